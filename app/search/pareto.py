"""Pareto fronts and the volume they dominate; arrays only, it knows no trials.

Notation: n points, m objectives, all minimised; points (n, m).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.search.parameters import Array


def is_undominated(points: Array) -> NDArray[np.bool_]:
    """Which points (n, m) -> (n,) no other point dominates; equal points do not dominate each other."""
    undominated = np.ones(len(points), dtype=bool)
    for index, point in enumerate(points):
        no_worse = np.all(points <= point, axis=1)
        better = np.any(points < point, axis=1)
        undominated[index] = not np.any(no_worse & better)
    return undominated


def hypervolume(points: Array, reference: Array) -> float:
    """Volume between points (n, m) and a reference (m,) that is worse; what is not better than it adds nothing.

    While, Bradstreet, Barone: "A Fast Way of Calculating Exact Hypervolumes", IEEE Trans. Evol. Comp. 16 (2012): each
    point adds its own box less what the points after it dominate of that box. Cost grows fast with m; meant for 2 to 4.
    """
    inside = points[np.all(points < reference, axis=1)]
    front = np.unique(inside[is_undominated(inside)], axis=0)
    if not len(front):
        return 0.0
    if front.shape[1] == 1:
        return float(reference[0] - front[0, 0])
    if front.shape[1] == 2:
        # Sorted by the first objective, the second falls: a staircase.
        ceilings = np.concatenate([reference[1:], front[:-1, 1]])
        return float(np.sum((reference[0] - front[:, 0]) * (ceilings - front[:, 1])))
    total = 0.0
    for index, point in enumerate(front):
        later = np.maximum(front[index + 1 :], point)
        total += float(np.prod(reference - point)) - hypervolume(later, reference)
    return total


def distance_to_front(points: Array, front: Array) -> Array:
    """By how much each point (n, m) would have to improve in all objectives to be undominated by the front (k, m).

    The additive epsilon indicator of Zitzler and Künzli, "Indicator-Based Selection in Multiobjective Search", PPSN
    2004: max over y in the front of min over i of x_i - y_i. Below zero for a point that would extend the front.
    """
    return np.asarray(np.min(points[:, None, :] - front[None, :, :], axis=2).max(axis=1))
