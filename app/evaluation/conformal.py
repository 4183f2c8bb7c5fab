"""How much a prediction interval has to be widened to hold the share of rows that it should, learned on held-out rows.

Conformalized quantile regression (Romano, Patterson and Candès, NeurIPS 2019, algorithm 1): the interval between two
predicted quantiles, widened by one margin on both sides, holds a new row with at least the stated probability, whatever
the network, as long as the held-out rows are like the new ones and the network did not learn from them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from app.evaluation.predictions import Predictions


def interval_margin(held_out: Predictions) -> float:
    """Return the margin between the outermost quantiles and the interval's ends; below 0 the interval is narrowed.

    Args:
        held_out: Quantiles on rows that the network did not learn from.

    Raises:
        ValueError: There are no quantiles.
    """
    if held_out.quantiles is None:
        raise ValueError("expected quantiles to learn a margin from, got single values; ask for --interval")
    y = held_out.y.astype(np.float64)
    found = held_out.quantiles.astype(np.float64)
    misses = np.maximum(found[:, 0] - y, y - found[:, -1])
    return _upper_quantile(misses, held_out.row_weights, stated_coverage(held_out.levels))


def stated_coverage(levels: tuple[float, ...]) -> float:
    """Return the share of rows that the interval between the outermost quantiles should hold."""
    return levels[-1] - levels[0]


def _upper_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The smallest value that, with one further row of infinite value, is not exceeded by that share of the rows."""
    order = np.argsort(values, kind="stable")
    counted = np.cumsum(weights[order]) / weights.mean()
    # n + 1 rows, of which the new one may be the worst.
    place = int(np.searchsorted(counted, share * (len(values) + 1) - 1e-9))
    return float(values[order][min(place, len(values) - 1)])


def smallest_rows(levels: tuple[float, ...]) -> int:
    """Return how many held-out rows it takes for a margin to be sure of the stated coverage."""
    share = stated_coverage(levels)
    return math.ceil(share / (1.0 - share) - 1e-9)
