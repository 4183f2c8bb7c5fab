"""Which epoch of a training its network is taken from; no TensorFlow.

The best value of the objective, and the loss where values are equal. On few rows a ROC-AUC is known to some hundredths
only and jumps from epoch to epoch, so the best of many is mostly luck: what is within one standard error of the best
is taken for equal (the one-standard-error rule; Breiman et al., 1984), and the log loss, of which every row says
something, tells it apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from app.evaluation.metrics import METRICS, Metric
from app.evaluation.predictions import Predictions
from pipelines.schema import Task

OBJECTIVE_ERROR = "val/objective_error"
"""Tag of the standard error of an epoch's objective, where that counts."""


def objective_error(objective: Metric, predictions: Predictions) -> dict[str, float]:
    """Returns the standard error of the objective under its tag, or nothing where values are taken as they are.

    Only the ROC-AUC of two classes has one.

    Args:
        objective: What decides.
        predictions: On the rows held out.
    """
    if objective is not METRICS["roc_auc"] or predictions.task is not Task.BINARY:
        return {}
    positives = int(np.count_nonzero(predictions.y))
    negatives = len(predictions.y) - positives
    if not positives or not negatives:
        return {}
    return {OBJECTIVE_ERROR: area_error(objective.value(predictions), positives=positives, negatives=negatives)}


def area_error(area: float, *, positives: int, negatives: int) -> float:
    """Returns the standard error of an area under the ROC curve (Hanley and McNeil, Radiology 1982, equation 1).

    Args:
        area: The area, in [0, 1].
        positives: Rows of the one class.
        negatives: Rows of the other.
    """
    of_positives, of_negatives = area / (2.0 - area) - area**2, 2.0 * area**2 / (1.0 + area) - area**2
    spread = area * (1.0 - area) + (positives - 1) * of_positives + (negatives - 1) * of_negatives
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


def chosen_epoch(epochs: Iterable[tuple[float, float, float]]) -> int | None:
    """Returns the place (from 0) of the epoch that a network is taken from; None of none.

    The choice among the first epochs never falls back on an earlier one that was not chosen before, so the weights of
    the chosen one are all that has to be kept.

    Args:
        epochs: Of each the objective to be minimised, the validation loss, and the standard error of the objective.
    """
    chosen: tuple[int, float, float] | None = None
    top, margin = math.inf, 0.0
    for place, (objective, loss, error) in enumerate(epochs):
        if math.isnan(objective):
            objective = math.inf
        if objective < top:
            top, margin = objective, error
        if objective > top + margin:
            continue
        if chosen is None or chosen[1] > top + margin or _order(objective, loss, margin) < _order(*chosen[1:], margin):
            chosen = place, objective, loss
    return None if chosen is None else chosen[0]


def _order(objective: float, loss: float, margin: float) -> tuple[float, float]:
    return (loss, objective) if margin else (objective, loss)
