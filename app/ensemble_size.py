"""How many trials may answer together, and of how many the networks are kept until that is decided."""

from __future__ import annotations

DEFAULT_MEMBERS = 8
"""The gain of each further member falls fast, while latency, size and the time to export grow with all of them."""

MAX_NETWORKS = 20
"""In one exported graph; where folds judge, every trial is as many networks as there are folds."""

POOL_FACTOR = 2
"""Trials to choose from for each member: the best are alike, and those behind them may err elsewhere."""


def max_members(asked: int, *, num_objectives: int, num_folds: int) -> int:
    """Returns how many trials may answer together; 1 for the winner alone.

    Args:
        asked: As the user asked; 0 for automatic.
        num_objectives: Objectives of the search; an average has no place on a front of single networks.
        num_folds: Networks that a trial has.
    """
    if not asked and num_objectives > 1:
        return 1
    return min(asked or DEFAULT_MEMBERS, max(1, MAX_NETWORKS // num_folds))


def pool_size(most: int) -> int:
    """Returns of how many of the best trials what an ensemble needs is kept, when `most` may answer together."""
    return POOL_FACTOR * most
