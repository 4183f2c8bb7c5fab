"""How far two orders of the same things agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.search.parameters import Array

LEAST = 3
"""Things below which their orders say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankAgreement:
    """Two rank correlations.

    Attributes:
        number: Things that were ordered.
        spearman: Spearman's rho, in [-1, 1].
        kendall: Kendall's tau-b, in [-1, 1]; like rho it counts ties as half agreed.
    """

    number: int
    spearman: float
    kendall: float


def rank_agreement(first: Sequence[float] | Array, second: Sequence[float] | Array) -> RankAgreement | None:
    """Returns how far two orders agree; None for fewer than `LEAST` values, or where all of one are equal.

    Args:
        first: Finite values of things.
        second: Other finite values of the same things.

    Raises:
        ValueError: There are not as many of both.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values were given; expected as many of both.")
    if len(first) < LEAST or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    # Half a second to import, which only a search that compares two orders pays.
    from scipy.stats import kendalltau, spearmanr

    rho, tau = float(spearmanr(first, second).statistic), float(kendalltau(first, second).statistic)
    return RankAgreement(number=len(first), spearman=rho, kendall=tau) if math.isfinite(rho) else None
