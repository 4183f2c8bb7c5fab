"""The sealed test's result: the model's metrics with intervals beside those of the baselines (evaluation.json)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from app.evaluation.intervals import Difference, MetricEstimate, compare_metrics
from app.evaluation.metrics import METRICS, Direction, Metric, compute_metrics
from app.evaluation.number_text import number_text
from app.evaluation.predictions import Predictions

MAX_CONFUSION_CLASSES = 20

SINGLE = "single"
"""Name, among the baselines, of the best single model where several networks answer together."""

_VERSION = 1

_MAX_DECIMALS = 12

_OF_CLASSES = ("accuracy", "balanced_accuracy", "f1")
_OF_RANKINGS = ("roc_auc", "pr_auc")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SealedTestReport:
    """What the test rows, opened once, say about the model.

    Args:
        objective: name of the metric the search followed.
        num_rows: number of test rows.
        num_resamples: bootstrap resamples behind the intervals.
        model: the model's metrics.
        baselines: metrics of each baseline, by its name.
        differences: model minus baseline by the objective, with the interval of the paired bootstrap, by the
            baseline's name; a baseline is left out where the objective is not defined.
        classes: class labels in the order of the confusion matrix; () for regression.
        confusion: number of rows by true (outer) and predicted (inner) class; None with more than 20 classes or
            for regression.
        notes: metrics left out and other remarks.
        outputs: metrics of each of several targets by its name, whose means the model's are; empty for one target.
    """

    objective: str
    num_rows: int
    num_resamples: int
    model: tuple[MetricEstimate, ...]
    baselines: Mapping[str, tuple[MetricEstimate, ...]]
    differences: Mapping[str, Difference]
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] | None = None
    notes: tuple[str, ...] = ()
    outputs: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def estimate(self, name: str, *, baseline: str | None = None) -> MetricEstimate | None:
        """The model's (or a baseline's) estimate of a metric; None if it was left out."""
        estimates = self.model if baseline is None else self.baselines[baseline]
        return next((estimate for estimate in estimates if estimate.name == name), None)

    def verdicts(self) -> tuple[str, ...]:
        """One sentence a baseline: whether the model is better by the objective, or the difference may be chance."""
        metric = METRICS[self.objective]
        sentences = (_verdict(name, metric, difference) for name, difference in self.differences.items())
        return tuple(sentence for sentence in sentences if sentence)

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
            "differences": {name: one.to_json() for name, one in self.differences.items()},
            "classes": list(self.classes),
            "confusion": None if self.confusion is None else [list(row) for row in self.confusion],
            "notes": list(self.notes),
            "outputs": {name: dict(values) for name, values in self.outputs.items()},
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
        data = {"outputs": {}, **data}  # evaluations of one target had none
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
            differences={name: Difference.from_json(one) for name, one in data["differences"].items()},
            classes=tuple(data["classes"]),
            confusion=None if confusion is None else tuple(tuple(row) for row in confusion),
            notes=tuple(data["notes"]),
            outputs=data["outputs"],
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

    All of them are resampled alike, so that their differences can be judged (see `intervals.compare_metrics`).

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
    compared = compare_metrics(model, baselines=baselines, objective=objective, seed=seed)
    estimates = compared.model
    return SealedTestReport(
        objective=objective.name,
        num_rows=model.num_rows,
        num_resamples=estimates.num_resamples,
        model=estimates.metrics,
        baselines=compared.baselines,
        differences=compared.differences,
        classes=classes,
        confusion=_confusion(model),
        notes=(*estimates.notes, *_notes_on_edges(estimates.metrics, model)),
        outputs=_of_outputs(model),
    )


def _of_outputs(model: Predictions) -> dict[str, dict[str, float]]:
    """The metrics of each of several targets."""
    singles = zip(model.outputs, model.singles(), strict=True)
    return {name: dict(compute_metrics(single).values) for name, single in singles}


def _confusion(predictions: Predictions) -> tuple[tuple[int, ...], ...] | None:
    size = 0 if predictions.outputs else predictions.num_classes
    if not 0 < size <= MAX_CONFUSION_CLASSES:
        return None
    cells = np.bincount(
        predictions.y.astype(np.intp) * size + predictions.predicted_labels, minlength=size**2
    )
    return tuple(tuple(int(cell) for cell in row) for row in cells.reshape(size, size))


def _notes_on_edges(estimates: tuple[MetricEstimate, ...], predictions: Predictions) -> tuple[str, ...]:
    """Remarks on shares of 0 or 1, whose percentile intervals have no width however few rows there are."""
    edges = {
        estimate.name: estimate.value
        for estimate in estimates
        if estimate.value in (0.0, 1.0) and estimate.low == estimate.high
    }
    if not edges or predictions.outputs:
        return ()
    notes = []
    positives = int((predictions.y == 1).sum())
    rarest = int(np.unique(predictions.y, return_counts=True)[1].min())
    if "accuracy" in edges:
        # All or none of the rows are right: what the other metrics say follows from that.
        names = [name for name in (*_OF_CLASSES, *_OF_RANKINGS) if edges.get(name) == edges["accuracy"]]
        where = f"all {predictions.num_rows:,} rows"
        notes.append(_note_on_edge(names, edges["accuracy"], where, predictions.num_rows, thing="rows predicted"))
        return tuple(notes)
    if "f1" in edges and positives:
        where = f"the {positives:,} rows of the second class"
        notes.append(_note_on_edge(["f1"], edges["f1"], where, positives, thing="such rows predicted"))
    for value in (0.0, 1.0):
        names = [name for name in _OF_RANKINGS if edges.get(name) == value]
        if names:
            where = f"the {rarest:,} rows of the rarest class"
            notes.append(_note_on_edge(names, value, where, rarest, thing="such rows ranked"))
    return tuple(notes)


def _note_on_edge(names: list[str], value: float, where: str, num_rows: int, *, thing: str) -> str:
    """Says what the rule of three allows: up to 3 / n where n rows show no case of something."""
    said = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    verb = "are" if len(names) > 1 else "is"
    return (
        f"Here {said} {verb} {value:.0f} on {where}, where the percentile interval has no width. By the rule of "
        f"three the true share of {thing} {'wrong' if value else 'right'} may be up to "
        f"{min(1.0, 3 / num_rows):.2g} (3 / {num_rows:,}; Hanley and Lippman-Hand 1983)."
    )


def rival_text(name: str) -> str:
    """What the model is compared with, in words."""
    return "best single model" if name == SINGLE else f"{name} baseline"


def _verdict(name: str, metric: Metric, difference: Difference) -> str:
    """The sentence on one baseline; empty where the difference has no interval."""
    low, high = difference.low, difference.high
    if low is None or high is None:
        return ""
    if not (difference.value or low or high):
        return f"By {metric.name} there is no difference to the {rival_text(name)} on these rows."
    value, low_text, high_text = _difference_texts(difference.value, low, high)
    sign = "+" if difference.value > 0 else ""
    interval = f"(95 % interval {low_text} to {high_text})"
    if difference.sign == 0:
        return (
            f"By {metric.name} there is no clear difference to the {rival_text(name)}: "
            f"the difference of {sign}{value} {interval} may be chance."
        )
    better = (difference.sign > 0) == (metric.direction is Direction.MAXIMIZE)
    word = "better" if better else "worse"
    return (
        f"By {metric.name} the model is {word} than the {rival_text(name)}: "
        f"the difference is {sign}{value} {interval}."
    )


def _difference_texts(value: float, low: float, high: float) -> tuple[str, ...]:
    """The three numbers with as many decimals as the interval's width justifies: two of its digits."""
    width = high - low
    if not width > 0:
        return tuple(number_text(one) for one in (value, low, high))
    decimals = max(0, 1 - math.floor(math.log10(width)))
    # An end beside 0 must not read as 0: whether the interval holds it decides the verdict.
    ends = [one for one in (low, high) if one]
    while decimals < _MAX_DECIMALS and any(not round(one, decimals) for one in ends):
        decimals += 1
    return tuple(f"{round(one, decimals):,.{decimals}f}" if one else "0" for one in (value, low, high))
