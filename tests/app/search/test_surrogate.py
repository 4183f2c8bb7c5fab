from __future__ import annotations

import numpy as np
import pytest

from app.search.surrogate import rank_scores, saturated

LOSSES = np.array([0.3, 0.1, 0.2, 0.9, 0.15])


def test_ranks_know_the_order_alone() -> None:
    assert np.allclose(rank_scores(LOSSES), rank_scores(np.exp(50.0 * LOSSES)))
    assert np.array_equal(np.argsort(rank_scores(LOSSES)), np.argsort(LOSSES))


def test_saturated_losses_are_the_formula_and_know_no_unit() -> None:
    above = LOSSES - 0.1
    shares = above / (above + 2.0 * 0.1)  # the median is 0.1 above the least
    expected = (shares - shares.mean()) / shares.std()
    assert np.allclose(saturated(LOSSES), expected)
    assert np.allclose(saturated(7.0 * LOSSES - 3.0), expected)


@pytest.mark.parametrize("worst", [1e6, 1e200, 1e308])
def test_a_disaster_counts_little_more_than_what_is_bad(worst: float) -> None:
    targets = saturated(np.array([0.1, 0.2, 0.3, 0.4, worst]))
    assert np.isfinite(targets).all()
    assert targets[-1] - targets[3] < 2.0 * (targets[3] - targets[0])


def test_where_half_of_the_losses_are_the_least_ranks_tell_them_apart() -> None:
    losses = np.array([0.1, 0.1, 0.1, 0.5])
    assert np.array_equal(saturated(losses), rank_scores(losses))
