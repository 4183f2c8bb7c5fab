"""95 % intervals for metrics by the seeded percentile bootstrap (Efron and Tibshirani 1993, section 13.3)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
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

_ROUNDING = 1e-12  # relative: far above that of float64, far below any difference worth a word


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
class Difference:
    """How far the model is from a baseline by one metric, with a 95 % interval from the same resamples for both.

    Args:
        value: the model's value minus the baseline's, on all rows.
        low: 2.5th percentile over the resamples; None if the difference is defined on less than half of them.
        high: 97.5th percentile, likewise.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 if the interval lies above 0, -1 if below; 0 if it holds 0 or does not exist."""
        if self.low is not None and self.low > 0:
            return 1
        return -1 if self.high is not None and self.high < 0 else 0

    def to_json(self) -> dict[str, float | None]:
        """The difference as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: fields are missing or unknown, or the value is not a number.
        """
        value = _number(data.get("value"))
        if set(data) != {"value", "low", "high"} or value is None:
            raise ValueError(
                f"expected a difference with value, low and high, got {sorted(data)}; "
                "the file was not written by this version"
            )
        return cls(value, _number(data["low"]), _number(data["high"]))


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


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """A model beside its baselines, all of them on the same resamples.

    Args:
        model: the model's metrics.
        baselines: metrics of each baseline, by its name.
        differences: model minus baseline by the objective, by the baseline's name; left out where one of the two
            has no value.
    """

    model: Estimates
    baselines: Mapping[str, tuple[MetricEstimate, ...]]
    differences: Mapping[str, Difference]


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
    (resampled,), notes = _bootstrap([predictions], seed=seed, num_resamples=num_resamples)
    return _estimates(resampled, notes)


def compare_metrics(
    model: Predictions,
    *,
    baselines: Mapping[str, Predictions],
    objective: Metric,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Comparison:
    """A model's and its baselines' metrics, and the differences between them by the paired bootstrap.

    Two intervals that overlap say little about a difference, and an interval of no width (all rows right) says too
    much. So the difference itself is resampled, on the same rows for both (Efron and Tibshirani 1993, section 8.6
    on paired data).

    Args:
        model: the model's predictions.
        baselines: predictions on the same rows, by name.
        objective: the metric whose differences are of interest.
        seed: of the bootstrap.
        num_resamples: at least 1; fewer are drawn where rows times classes are many, as in `estimate_metrics`.

    Raises:
        ValueError: `num_resamples` is below 1.
    """
    (first, *others), notes = _bootstrap([model, *baselines.values()], seed=seed, num_resamples=num_resamples)
    by_name = dict(zip(baselines, others, strict=True))
    return Comparison(
        model=_estimates(first, notes),
        baselines={name: other.estimates() for name, other in by_name.items()},
        differences={
            name: first.difference(other, objective.name)
            for name, other in by_name.items()
            if objective.name in first.values and objective.name in other.values
        },
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Resampled:
    """Metrics of one set of predictions: `values` on all rows, `bag` on the rows drawn from, `samples` by resample.

    `samples` maps a metric to `(num_resamples,)` with NaN where it is not defined. The bag's own value differs a
    little from that of all rows: intervals are moved by the difference.
    """

    values: Mapping[str, float]
    bag: Mapping[str, float]
    samples: Mapping[str, NDArray[np.float64]]
    notes: tuple[str, ...]

    def estimates(self) -> tuple[MetricEstimate, ...]:
        """One estimate a metric."""
        return tuple(
            MetricEstimate(name, value, *_interval(self.samples[name], shift=value - self.bag.get(name, math.nan)))
            for name, value in self.values.items()
        )

    def difference(self, other: _Resampled, name: str) -> Difference:
        """This minus the other by one metric."""
        value = self.values[name] - other.values[name]
        shift = value - (self.bag.get(name, math.nan) - other.bag.get(name, math.nan))
        low, high = _interval(self.samples[name] - other.samples[name], shift=shift)
        # Sums in another order differ in the last bits, which must not count as better or worse.
        noise = _ROUNDING * max(abs(self.values[name]), abs(other.values[name]))
        if low is None or high is None:
            return Difference(value, None, None)
        return Difference(*(0.0 if abs(x) <= noise else x for x in (value, low, high)))


def _bootstrap(
    predictions: Sequence[Predictions], *, seed: int, num_resamples: int
) -> tuple[list[_Resampled], tuple[str, ...]]:
    """Resamples several predictions on the same rows alike; also returns notes on how that was done."""
    if num_resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {num_resamples}; 1000 is usual")
    num_rows = predictions[0].num_rows
    rng = np.random.default_rng(seed)
    num_rankings = max(
        one.num_classes if one.task is Task.MULTICLASS else len(one.outputs) or 1 for one in predictions
    )
    weights_affordable = _WORK // (5 + 2 * num_rankings)
    affordable = min(num_resamples, max(MIN_RESAMPLES, weights_affordable // num_rows))
    notes = []
    bags, bag_size = list(predictions), max(MIN_ROWS, weights_affordable // affordable)
    if bag_size < num_rows:
        rows = rng.choice(num_rows, size=bag_size, replace=False)
        bags = [one.take(rows) for one in predictions]
        notes.append(f"The intervals rest on {bag_size:,} of {num_rows:,} rows, weighted up.")
    if affordable < num_resamples:
        notes.append(f"The intervals rest on {affordable} resamples instead of {num_resamples}, to bound the time.")
    computed = [compute_metrics(one) for one in predictions]
    metrics = [
        tuple(metric for metric in available_metrics(one) if metric.name in found.values)
        for one, found in zip(predictions, computed, strict=True)
    ]
    draws = _draws(rng, bags[0].num_rows, num_rows, affordable)
    samples = _resample(bags, metrics, draws)
    resampled = [
        _Resampled(
            values=found.values,
            bag=found.values if bag is whole else compute_metrics(bag, metrics=wanted).values,
            samples={metric.name: columns[:, index] for index, metric in enumerate(wanted)},
            notes=found.notes,
        )
        for whole, bag, found, wanted, columns in zip(predictions, bags, computed, metrics, samples, strict=True)
    ]
    return resampled, tuple(notes)


def _estimates(resampled: _Resampled, notes: tuple[str, ...]) -> Estimates:
    num_resamples = len(next(iter(resampled.samples.values()))) if resampled.samples else 0
    return Estimates(resampled.estimates(), num_resamples, (*resampled.notes, *notes))


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
    predictions: Sequence[Predictions],
    metrics: Sequence[tuple[Metric, ...]],
    draws: Iterator[NDArray[np.float64]],
) -> list[NDArray[np.float64]]:
    """`(num_resamples, num_metrics)` for each of the predictions; everything of a resample from the same weights."""
    prepared = [
        [metric.statistic(one) for metric in wanted] for one, wanted in zip(predictions, metrics, strict=True)
    ]
    chunks: list[list[NDArray[np.float64]]] = [[] for _ in predictions]
    for weights in draws:
        for one, functions, chunk in zip(predictions, prepared, chunks, strict=True):
            counted = weights if one.weights is None else weights * one.row_weights
            columns = [function(counted) for function in functions]
            chunk.append(np.stack(columns, axis=1) if columns else np.empty((len(weights), 0)))
    return [np.concatenate(chunk) for chunk in chunks]


def _interval(samples: NDArray[np.float64], *, shift: float) -> tuple[float | None, float | None]:
    """The 2.5th and 97.5th percentile, moved by `shift`; None where most resamples have no value."""
    defined = samples[np.isfinite(samples)]
    if not math.isfinite(shift) or 2 * len(defined) < len(samples):
        return None, None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail]) + shift
    return float(low), float(high)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
