"""95 % intervals for metrics by the seeded percentile bootstrap (Efron and Tibshirani 1993, section 13.3)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.evaluation.metrics import Metric, available_metrics, compute_metrics
from app.evaluation.predictions import Predictions
from pipelines.schema import Task

LEVEL = 0.95
NUM_RESAMPLES = 1_000
MIN_RESAMPLES = 200  # the 2.5th percentile is then still the fifth smallest value

MIN_ROWS = 2_000  # a smaller bag would miss rare classes

# Passes over row weights: about five a resample and two more a ranking, some 15 ns a weight, so a few seconds.
_WORK = 250_000_000
# Weights held at once: small enough to stay in the processor's cache, several times faster than main memory.
_CHUNK = 100_000


@dataclasses.dataclass(frozen=True, slots=True)
class MetricEstimate:
    """A metric on the test rows with its 95 % interval.

    Args:
        name: the metric's name.
        value: on all rows.
        low: 2.5th percentile over the resamples; None if the metric is defined on less than half of them.
        high: 97.5th percentile, likewise.
    """

    name: str
    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, str | float | None]:
        """The estimate as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: fields are missing or unknown, or are not numbers.
        """
        if set(data) != {"name", "value", "low", "high"}:
            raise ValueError(
                f"expected an estimate with name, value, low and high, got {sorted(data)}; "
                "the file was not written by this version"
            )
        name, value, low, high = (
            data["name"],
            _number(data["value"]),
            _number(data["low"]),
            _number(data["high"]),
        )
        if not isinstance(name, str) or value is None:
            raise ValueError(
                f"expected an estimate with a name and a value, got {name!r} and {value!r}; "
                "the file is damaged"
            )
        return cls(name, value, low, high)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimates:
    """Metrics with intervals, and what there is to know about how they were made.

    Args:
        metrics: one estimate a metric, in the order of reports.
        num_resamples: bootstrap resamples drawn.
        notes: metrics left out, fewer resamples or fewer rows than usual, each with the reason.
    """

    metrics: tuple[MetricEstimate, ...]
    num_resamples: int
    notes: tuple[str, ...] = ()


def estimate_metrics(predictions: Predictions, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Estimates:
    """Every metric of the task with a 95 % percentile interval; the same rows are drawn for all of them.

    A resample is the number of times each row was drawn, used as weights, so the metric of a resample is exact.
    The time is bounded: where rows times classes are many, fewer resamples are drawn (at least 200); if that is
    not enough, the rows are a random part of the test rows weighted up to the full number (the bag of little
    bootstraps, Kleiner et al. 2014, with one bag and Poisson weights). The notes say so.

    Args:
        predictions: of the model on the test rows.
        seed: same seed and predictions, same intervals; another model on the same rows is drawn alike.
        num_resamples: at least 1.

    Raises:
        ValueError: `num_resamples` is below 1.
    """
    if num_resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {num_resamples}; 1000 is usual")
    computed = compute_metrics(predictions)
    metrics = tuple(metric for metric in available_metrics(predictions) if metric.name in computed.values)
    rng = np.random.default_rng(seed)
    num_rankings = 1 if predictions.task is not Task.MULTICLASS else predictions.num_classes
    weights_affordable = _WORK // (5 + 2 * num_rankings)
    affordable = min(num_resamples, max(MIN_RESAMPLES, weights_affordable // predictions.num_rows))
    notes = list(computed.notes)
    bag, bag_size = predictions, max(MIN_ROWS, weights_affordable // affordable)
    if bag_size < predictions.num_rows:
        bag = predictions.take(rng.choice(predictions.num_rows, size=bag_size, replace=False))
        notes.append(f"the intervals rest on {bag.num_rows:,} of {predictions.num_rows:,} rows, weighted up")
    if affordable < num_resamples:
        notes.append(
            f"the intervals rest on {affordable} resamples instead of {num_resamples}, to bound the time"
        )
    samples = _resample(bag, metrics, _draws(rng, bag.num_rows, predictions.num_rows, affordable))
    # The bag's own value differs a little from that of all rows: the interval is moved by the difference.
    shifts = compute_metrics(bag, metrics=metrics).values if bag is not predictions else computed.values
    estimates = tuple(
        _estimate(
            metric, computed.values[metric.name], samples[:, column], shift=shifts.get(metric.name, math.nan)
        )
        for column, metric in enumerate(metrics)
    )
    return Estimates(estimates, affordable, tuple(notes))


def _draws(
    rng: np.random.Generator, num_rows: int, total: int, num_resamples: int
) -> Iterator[NDArray[np.float64]]:
    """Row weights in chunks of `(some resamples, num_rows)`: how often each row is drawn, `total` in all."""
    size = max(1, _CHUNK // num_rows)
    for start in range(0, num_resamples, size):
        chunk = np.empty((min(size, num_resamples - start), num_rows))
        for weights in chunk:
            if num_rows == total:
                weights[:] = np.bincount(rng.integers(0, num_rows, size=num_rows), minlength=num_rows)
            else:
                weights[:] = rng.poisson(total / num_rows, size=num_rows)
        yield chunk


def _resample(
    predictions: Predictions, metrics: tuple[Metric, ...], draws: Iterator[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """`(num_resamples, num_metrics)`; all metrics of a resample from the same weights."""
    prepared = [metric.function(predictions) for metric in metrics]
    return np.concatenate([np.stack([one(weights) for one in prepared], axis=1) for weights in draws])


def _estimate(metric: Metric, value: float, samples: NDArray[np.float64], *, shift: float) -> MetricEstimate:
    defined = samples[np.isfinite(samples)]
    if not math.isfinite(shift) or 2 * len(defined) < len(samples):
        return MetricEstimate(metric.name, value, None, None)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail]) + (value - shift)
    return MetricEstimate(metric.name, value, float(low), float(high))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
