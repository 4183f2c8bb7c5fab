from __future__ import annotations

import pytest

from app.search.rank_agreement import rank_agreement


def test_equal_and_opposite_orders() -> None:
    same = rank_agreement([0.1, 0.5, 0.7, 2.0], [1.0, 2.0, 3.0, 40.0])
    assert same is not None
    assert same.number == 4
    assert [same.spearman, same.kendall] == pytest.approx([1.0, 1.0])
    opposite = rank_agreement([0.1, 0.5, 0.7], [3.0, 2.0, 1.0])
    assert opposite is not None
    assert [opposite.spearman, opposite.kendall] == pytest.approx([-1.0, -1.0])


def test_a_known_order_with_a_tie() -> None:
    found = rank_agreement([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 2.0])
    assert found is not None
    # By hand: ranks 1, 4, 2.5, 2.5; one pair is tied, three agree and two do not.
    assert found.spearman == pytest.approx(1.5 / (5.0 * 4.5) ** 0.5)
    assert found.kendall == pytest.approx((3 - 2) / (6 * 5) ** 0.5)


def test_too_few_values_or_equal_ones_say_nothing() -> None:
    assert rank_agreement([1.0, 2.0], [1.0, 2.0]) is None
    assert rank_agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_unequal_numbers_of_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 and 2 values were given; expected as many of both\."):
        rank_agreement([1.0, 2.0, 3.0], [1.0, 2.0])
