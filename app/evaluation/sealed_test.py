"""The sealed test's result: the model's metrics with intervals beside those of the baselines (evaluation.json)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from app.evaluation.intervals import MetricEstimate, estimate_metrics
from app.evaluation.metrics import METRICS, Direction, Metric
from app.evaluation.predictions import Predictions

MAX_CONFUSION_CLASSES = 20

_VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SealedTestReport:
    """What the test rows, opened once, say about the model.

    Args:
        objective: name of the metric the search followed.
        num_rows: number of test rows.
        num_resamples: bootstrap resamples behind the intervals.
        model: the model's metrics.
        baselines: metrics of each baseline, by its name.
        classes: class labels in the order of the confusion matrix; () for regression.
        confusion: number of rows by true (outer) and predicted (inner) class; None with more than 20 classes or
            for regression.
        notes: metrics left out and other remarks.
    """

    objective: str
    num_rows: int
    num_resamples: int
    model: tuple[MetricEstimate, ...]
    baselines: Mapping[str, tuple[MetricEstimate, ...]]
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] | None = None
    notes: tuple[str, ...] = ()

    def estimate(self, name: str, *, baseline: str | None = None) -> MetricEstimate | None:
        """The model's (or a baseline's) estimate of a metric; None if it was left out."""
        estimates = self.model if baseline is None else self.baselines[baseline]
        return next((estimate for estimate in estimates if estimate.name == name), None)

    def verdicts(self) -> tuple[str, ...]:
        """One sentence a baseline: whether the model is better by the objective, beyond its 95 % interval."""
        model = self.estimate(self.objective)
        sentences = []
        for name in self.baselines:
            other = self.estimate(self.objective, baseline=name)
            if model is not None and other is not None and model.low is not None and model.high is not None:
                sentences.append(_verdict(name, METRICS[self.objective], model, other))
        return tuple(sentences)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types, with a version."""
        return {
            "version": _VERSION,
            "objective": self.objective,
            "num_rows": self.num_rows,
            "num_resamples": self.num_resamples,
            "model": [estimate.to_json() for estimate in self.model],
            "baselines": {
                name: [e.to_json() for e in estimates] for name, estimates in self.baselines.items()
            },
            "classes": list(self.classes),
            "confusion": None if self.confusion is None else [list(row) for row in self.confusion],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: another version, or fields that are missing or unknown.
        """
        if data.get("version") != _VERSION:
            raise ValueError(
                f"expected an evaluation of version {_VERSION}, got {data.get('version')!r}; "
                "it was written by another version of tamiz"
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        given = set(data) - {"version"}
        if given != fields:
            raise ValueError(
                f"expected an evaluation with the fields {', '.join(sorted(fields))}, "
                f"got {', '.join(sorted(given ^ fields))} missing or unknown; the file is damaged"
            )
        confusion = data["confusion"]
        return cls(
            objective=data["objective"],
            num_rows=data["num_rows"],
            num_resamples=data["num_resamples"],
            model=tuple(MetricEstimate.from_json(one) for one in data["model"]),
            baselines={
                name: tuple(MetricEstimate.from_json(one) for one in estimates)
                for name, estimates in data["baselines"].items()
            },
            classes=tuple(data["classes"]),
            confusion=None if confusion is None else tuple(tuple(row) for row in confusion),
            notes=tuple(data["notes"]),
        )


def report_sealed_test(
    model: Predictions,
    *,
    baselines: Mapping[str, Predictions],
    objective: Metric,
    classes: tuple[str, ...],
    seed: int,
) -> SealedTestReport:
    """Score the model and the baselines on the test rows.

    The same seed draws the same resamples for all of them, so that their intervals can be compared.

    Args:
        model: the model's predictions.
        baselines: predictions on the same rows, by name.
        objective: the metric the search followed.
        classes: class labels in order; () for regression.
        seed: of the bootstrap.

    Raises:
        ValueError: a baseline answers other rows than the model.
    """
    for name, predictions in baselines.items():
        if not np.array_equal(predictions.y, model.y):
            raise ValueError(
                f"expected the baseline {name!r} on the model's {model.num_rows} rows, got {predictions.num_rows} "
                "rows with other targets; score both on the test rows"
            )
    estimates = estimate_metrics(model, seed=seed)
    return SealedTestReport(
        objective=objective.name,
        num_rows=model.num_rows,
        num_resamples=estimates.num_resamples,
        model=estimates.metrics,
        baselines={name: estimate_metrics(one, seed=seed).metrics for name, one in baselines.items()},
        classes=classes,
        confusion=_confusion(model),
        notes=estimates.notes,
    )


def _confusion(predictions: Predictions) -> tuple[tuple[int, ...], ...] | None:
    size = predictions.num_classes
    if not 0 < size <= MAX_CONFUSION_CLASSES:
        return None
    cells = np.bincount(
        predictions.y.astype(np.intp) * size + predictions.predicted_labels, minlength=size**2
    )
    return tuple(tuple(int(cell) for cell in row) for row in cells.reshape(size, size))


def _verdict(name: str, metric: Metric, model: MetricEstimate, other: MetricEstimate) -> str:
    better = metric.to_loss(model.value) < metric.to_loss(other.value)
    if model.low is not None and model.high is not None and model.low <= other.value <= model.high:
        return f"by {metric.name} the model does not differ significantly from the {name} baseline"
    side = "above" if (metric.direction is Direction.MAXIMIZE) == better else "below"
    word = "better" if better else "worse"
    return f"by {metric.name} the model is {word} than the {name} baseline: its interval lies {side} it"
