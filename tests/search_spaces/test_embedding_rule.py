from __future__ import annotations

import numpy as np

from search_spaces.embedding_rule import MAX_LENGTH, embedding_lengths, start_scale


def test_columns_of_more_categories_have_longer_vectors_up_to_the_size_asked_for() -> None:
    cardinalities = (4, 10, 60, 20_000)
    assert embedding_lengths(cardinalities) == (4, 6, 16, MAX_LENGTH)
    assert embedding_lengths(cardinalities, size=8) == (4, 6, 8, 8)
    assert embedding_lengths(cardinalities, size=2) == (2, 2, 2, 2)


def test_vectors_start_with_length_one_and_with_nothing_where_there_is_nothing_to_learn() -> None:
    scale = start_scale((4, 5), (2, 3), size=4)
    assert scale.shape == (9, 4)
    np.testing.assert_allclose((scale**2).sum(axis=1), [0, 0, 1, 1, 0, 0, 1, 1, 1], atol=1e-6)
    assert not scale[:4, 2:].any()
    assert not scale[4:, 3:].any()


def test_a_given_deviation_holds_for_all_columns() -> None:
    assert set(np.unique(start_scale((4, 5), (2, 3), size=4, stddev=0.5))) == {0.0, 0.5}
