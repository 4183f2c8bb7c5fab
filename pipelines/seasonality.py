"""The period of a series, and the forecast that repeats it: what every forecasting model has to beat.

Seasonal-naive: the value one period earlier (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 5.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_PERIOD = 400

WORTH = 0.9
"""Share of the error of the last value that a period's error must stay below: among many, some are better by chance."""

TOLERANCE = 1.05
"""Errors that differ by less are taken for equal."""

MAX_SERIES, MAX_STEPS = 50, 20_000
"""Series, and last steps of each, that a period is looked for in."""


def find_period(series: Sequence[NDArray[np.float64]], *, horizon: int, likely: Sequence[int] = ()) -> int:
    """Return the period whose seasonal-naive forecast of the series errs least; 1 repeats the last value.

    Of periods that are about as good the shortest is meant: a multiple of one is as good as it. One that the length of
    a step suggests (the days of a week, the months of a year) comes first.

    Args:
        series: Values in order, NaN where one is missing.
        horizon: Steps of a forecast.
        likely: Periods that the length of a step suggests.
    """
    longest = max((len(values) for values in series), default=0)
    most = min(MAX_PERIOD, longest // 3)
    if most < 2:
        return 1
    apart = _differences(series, most + horizon)
    periods = np.arange(1, most + 1)
    errors = np.array([mean_error(apart, int(period), horizon=horizon) for period in periods])
    errors[np.isnan(errors)] = np.inf
    if not errors.min() < WORTH * errors[0]:
        return 1
    # A period's neighbours are nearly as good as it where a season is long: only the lowest of them counts.
    around = np.concatenate([[np.inf], errors, [np.inf]])
    lowest = (errors <= around[:-2]) & (errors <= around[2:])
    good = periods[lowest & (errors <= TOLERANCE * errors.min())]
    return next((period for period in sorted(likely) if period in good), int(good.min()))


def mean_error(apart: NDArray[np.float64], period: int, *, horizon: int) -> float:
    """Return the mean absolute error of a seasonal-naive forecast over all steps of the horizon.

    Args:
        apart: Mean absolute difference of values by the steps between them, ``(max_steps + 1,)``.
        period: Steps of a period.
        horizon: Steps of a forecast.
    """
    steps = np.arange(1, horizon + 1)
    return float(apart[-(-steps // period) * period].mean())


def seasonal_lag(step: int, period: int) -> int:
    """Return which lag a seasonal-naive forecast repeats; lag 1 is the last value known.

    Args:
        step: Steps ahead, from 1.
        period: Steps of a period, from 1.
    """
    return -(-step // period) * period - step + 1


def _differences(series: Sequence[NDArray[np.float64]], most: int) -> NDArray[np.float64]:
    """Return the mean absolute difference of values 0 to `most` steps apart; NaN where there are none."""
    total, counted = np.zeros(most + 1), np.zeros(most + 1)
    for values in series[:: -(-len(series) // MAX_SERIES)]:
        latest = values[-MAX_STEPS:]
        for steps in range(1, min(most, len(latest) - 1) + 1):
            difference = np.abs(latest[steps:] - latest[:-steps])
            known = np.isfinite(difference)
            total[steps] += difference[known].sum()
            counted[steps] += known.sum()
    means: NDArray[np.float64] = np.divide(total, counted, out=np.full(most + 1, np.nan), where=counted > 0)
    return means
