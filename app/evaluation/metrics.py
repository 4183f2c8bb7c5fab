"""The metrics by name: the tasks each one is for, which way is better, and which one a search follows."""

from __future__ import annotations

import dataclasses
import difflib
import enum
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from app.evaluation import weighted
from app.evaluation.predictions import Predictions
from pipelines.schema import Task

__all__ = [
    "IMBALANCE_LIMIT",
    "METRICS",
    "Direction",
    "Metric",
    "MetricValues",
    "Needs",
    "Objective",
    "Predictions",
    "compute_metrics",
    "default_objective",
    "imbalance_ratio",
    "mape_epsilon",
    "metrics_for",
    "resolve_objective",
]

IMBALANCE_LIMIT = 10.0  # majority / minority above this counts as imbalanced


class Direction(enum.StrEnum):
    """Which way a metric gets better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class Needs(enum.StrEnum):
    """What a metric is computed from."""

    LABELS = "labels"
    PROBABILITIES = "probabilities"
    VALUES = "values"
    QUANTILES = "quantiles"


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One number that says how good predictions are.

    Args:
        name: key in `METRICS`.
        direction: which way is better.
        needs: labels, probabilities (classification) or values (regression).
        function: predictions to a function of row weights (see `weighted`).
        description: one line for people.
        selects: whether a search may follow it alone; a wide interval always covers more, a narrow one less.
    """

    name: str
    direction: Direction
    needs: Needs
    function: Callable[[Predictions], weighted.Weighted]
    description: str
    selects: bool = True

    def value(self, predictions: Predictions) -> float:
        """The metric on all rows; NaN where it is not defined (say, ROC-AUC on rows of a single class).

        Raises:
            ValueError: the predictions are not of the kind this metric needs.
        """
        self._check(predictions.task)
        return float(self.statistic(predictions)(predictions.row_weights[np.newaxis])[0])

    def statistic(self, predictions: Predictions) -> weighted.Weighted:
        """The metric as a function of row weights; of several targets the mean of those where it is defined."""
        if not predictions.outputs:
            return self.function(predictions)
        return weighted.mean_of([self.function(single) for single in predictions.singles()])

    def to_loss(self, value: float) -> float:
        """The number to be minimised: the value itself, or its negative if more is better."""
        return -value if self.direction is Direction.MAXIMIZE else value

    def from_loss(self, loss: float) -> float:
        """The metric's value that belongs to a loss; the inverse of `to_loss`."""
        return self.to_loss(loss)

    def fits(self, task: Task) -> bool:
        """True if the metric is defined for the task."""
        if self.needs in (Needs.VALUES, Needs.QUANTILES):
            return task is Task.REGRESSION
        return task in (Task.BINARY, Task.MULTICLASS, Task.MULTILABEL)

    def _check(self, task: Task) -> None:
        if not self.fits(task):
            raise ValueError(
                f"expected a metric for a {task.value} task, got {self.name!r}; choose one of {_names(task)}"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Objective:
    """The metric a search follows on the validation rows, and why this one."""

    metric: Metric
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class MetricValues:
    """Values by metric name; a metric that is not defined on these rows is left out and a note says why."""

    values: Mapping[str, float]
    notes: tuple[str, ...] = ()


_MORE, _LESS = Direction.MAXIMIZE, Direction.MINIMIZE
_ALL = (
    Metric("accuracy", _MORE, Needs.LABELS, weighted.accuracy, "share of rows predicted right"),
    Metric(
        "balanced_accuracy", _MORE, Needs.LABELS, weighted.balanced_accuracy, "mean recall of the classes"
    ),
    Metric(
        "f1", _MORE, Needs.LABELS, weighted.f1, "F1 of the second class; mean over classes if more than two"
    ),
    Metric(
        "roc_auc",
        _MORE,
        Needs.PROBABILITIES,
        weighted.roc_auc,
        "area under the ROC curve, one against the rest",
    ),
    Metric("pr_auc", _MORE, Needs.PROBABILITIES, weighted.pr_auc, "average precision, one against the rest"),
    Metric("log_loss", _LESS, Needs.PROBABILITIES, weighted.log_loss, "mean of -ln p(true class)"),
    Metric("brier", _LESS, Needs.PROBABILITIES, weighted.brier, "mean squared error of the probabilities"),
    Metric("ece", _LESS, Needs.PROBABILITIES, weighted.ece, "expected calibration error over 15 bins"),
    Metric(
        "rmse", _LESS, Needs.VALUES, weighted.rmse, "root of the mean squared error, in the target's units"
    ),
    Metric("mae", _LESS, Needs.VALUES, weighted.mae, "mean absolute error, in the target's units"),
    Metric("r2", _MORE, Needs.VALUES, weighted.r2, "share of the target's variance explained"),
    Metric("mape", _LESS, Needs.VALUES, weighted.mape, "mean absolute error as a share of the target"),
    Metric("pinball", _LESS, Needs.QUANTILES, weighted.pinball, "mean pinball loss of the quantiles"),
    Metric(
        "coverage", _MORE, Needs.QUANTILES, weighted.coverage, "share of rows inside the interval", selects=False
    ),
    Metric(
        "interval_width", _LESS, Needs.QUANTILES, weighted.interval_width, "mean width of the interval", selects=False
    ),
    Metric("interval_score", _LESS, Needs.QUANTILES, weighted.interval_score, "width, and by how much rows miss it"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

_ALIASES = {
    "acc": "accuracy",
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "auprc": "pr_auc",
    "average_precision": "pr_auc",
    "prc": "pr_auc",
    "f1_score": "f1",
    "macro_f1": "f1",
    "crossentropy": "log_loss",
    "logloss": "log_loss",
    "root_mean_squared_error": "rmse",
    "mean_absolute_error": "mae",
    "mean_absolute_percentage_error": "mape",
    "r2_score": "r2",
}


def metrics_for(task: Task) -> tuple[Metric, ...]:
    """The metrics defined for a task, those of quantiles left out, in the order of reports.

    Raises:
        ValueError: no metric is defined for the task yet.
    """
    metrics = tuple(
        metric for metric in METRICS.values() if metric.fits(task) and metric.needs is not Needs.QUANTILES
    )
    if not metrics:
        raise ValueError(
            f"expected a binary, multiclass or regression task, got {task.value}; "
            "no metric is defined for it yet"
        )
    return metrics


def compute_metrics(predictions: Predictions, *, metrics: tuple[Metric, ...] | None = None) -> MetricValues:
    """Every metric of the task (or those given) on all rows.

    Raises:
        ValueError: a metric given does not fit the task.
    """
    values: dict[str, float] = {}
    notes: list[str] = []
    for metric in available_metrics(predictions) if metrics is None else metrics:
        value = metric.value(predictions)
        if np.isfinite(value):
            values[metric.name] = value
        else:
            notes.append(f"Left out: {metric.name}, because {_why_undefined(metric)}.")
    return MetricValues(values, tuple(notes))


def available_metrics(predictions: Predictions) -> tuple[Metric, ...]:
    """The task's metrics that these predictions have the material for (labels alone rank nothing)."""
    known = metrics_for(predictions.task)
    if predictions.probabilities is None:
        known = tuple(metric for metric in known if metric.needs is not Needs.PROBABILITIES)
    if predictions.quantiles is not None:
        known += tuple(metric for metric in METRICS.values() if metric.needs is Needs.QUANTILES)
    return known


def default_objective(
    task: Task, *, imbalance_ratio: float = 1.0, quantiles: bool = False, num_targets: int = 1
) -> Objective:
    """The metric a search follows unless told otherwise, with the reason.

    Args:
        task: binary, multiclass or regression.
        imbalance_ratio: rows of the most frequent class over rows of the rarest, >= 1.
        quantiles: whether the regression is one of quantiles.
        num_targets: values that a regression predicts.

    Raises:
        ValueError: no metric is defined for the task yet.
    """
    if num_targets > 1 and task is Task.REGRESSION:
        return Objective(METRICS["r2"], "several numbers: the mean of their R2, which has no units")
    metrics_for(task)
    if quantiles:
        return Objective(METRICS["pinball"], "quantiles: each is best where its own share of the rows lies below it")
    if task is Task.REGRESSION:
        return Objective(METRICS["rmse"], "regression: errors in the target's units, large ones weigh more")
    imbalanced = imbalance_ratio > IMBALANCE_LIMIT
    ratio = f"the largest class has {imbalance_ratio:.3g} times the rows of the smallest"
    if task is Task.MULTILABEL:
        if imbalanced:
            return Objective(METRICS["pr_auc"], f"several labels, and of one {ratio}: the mean of their PR-AUC")
        return Objective(METRICS["roc_auc"], "several labels: the mean of their ROC-AUC")
    if task is Task.BINARY:
        if imbalanced:
            return Objective(METRICS["pr_auc"], f"two classes, and {ratio}: ROC-AUC would flatter the model")
        return Objective(METRICS["roc_auc"], "two classes: ranks the rows without a threshold")
    if imbalanced:
        return Objective(METRICS["balanced_accuracy"], f"{ratio}: accuracy would overlook the small classes")
    return Objective(METRICS["accuracy"], "several classes of similar size")


def resolve_objective(name: str, task: Task) -> Metric:
    """The metric a user means: case, dashes and a leading `val_` do not matter; `auc` is `roc_auc`.

    `loss` is log_loss for classification and rmse for regression.

    Raises:
        ValueError: no such metric (the nearest name is given), or one that does not fit the task.
    """
    key = name.strip().lower().replace("-", "_").replace("/", "_").removeprefix("val_")
    if key == "loss":
        key = "rmse" if task is Task.REGRESSION else "log_loss"
    key = _ALIASES.get(key, key)
    if key not in METRICS:
        near = difflib.get_close_matches(key, [*METRICS, *_ALIASES], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {_names(task)}"
        raise ValueError(f"expected the name of a metric, got {name!r}; {hint}")
    metric = METRICS[key]
    if not metric.fits(task):
        raise ValueError(
            f"expected a metric for a {task.value} task, got {name!r}; choose one of {_names(task)}"
        )
    return metric


def imbalance_ratio(y: NDArray[np.integer], *, weights: NDArray[np.floating] | None = None) -> float:
    """Rows of the most frequent class over rows of the rarest that occurs.

    Args:
        y: `(num_rows,)` class ids.
        weights: `(num_rows,)` how much each row counts; None for all alike.
    """
    counts = np.bincount(y, weights=weights)
    counts = counts[counts > 0]
    return float(counts.max() / counts.min())


def mape_epsilon(y_train: NDArray[np.floating]) -> float:
    """The least |y| that MAPE divides by: the 1st percentile of |y| over the training rows `(num_rows,)`."""
    return float(np.percentile(np.abs(y_train.astype(np.float64)), 1))


def _why_undefined(metric: Metric) -> str:
    if metric.name == "mape":
        return "the target holds zeros, where a relative error means nothing; read mae instead"
    if metric.needs is Needs.VALUES:
        return "the target is constant on these rows"
    return "these rows lack the classes it compares"


def _names(task: Task) -> str:
    return ", ".join(metric.name for metric in METRICS.values() if metric.fits(task))
