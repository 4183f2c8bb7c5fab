"""Metrics of several targets: the mean over them, each told by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from app.evaluation import baselines
from app.evaluation.baselines import EncodedRows
from app.evaluation.metrics import METRICS, compute_metrics, default_objective
from app.evaluation.predictions import Predictions
from app.evaluation.sealed_test import SealedTestReport, report_sealed_test
from pipelines.schema import Task

NAMES = ("rain", "snow", "wind")


def labels(*, num_rows: int = 300, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    p = rng.random((num_rows, 3))
    y = (rng.random((num_rows, 3)) < p).astype(np.int32)
    ids = (p > 0.5).astype(np.int32)
    return Predictions(task=Task.MULTILABEL, y=y, probabilities=p, labels=ids, outputs=NAMES)


def numbers(*, num_rows: int = 300) -> Predictions:
    rng = np.random.default_rng(1)
    y = rng.normal([0.0, 1e4], [1.0, 500.0], (num_rows, 2))
    values = y + rng.normal(0.0, [0.5, 100.0], (num_rows, 2))
    return Predictions(task=Task.REGRESSION, y=y, values=values, outputs=("small", "large"))


def test_metrics_of_labels_are_macro_averages() -> None:
    made = labels()
    found = compute_metrics(made).values
    assert found["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(made.y, made.probabilities, average="macro"))
    assert found["pr_auc"] == pytest.approx(sklearn.metrics.average_precision_score(made.y, made.probabilities))
    assert found["f1"] == pytest.approx(sklearn.metrics.f1_score(made.y, made.labels, average="macro"))
    assert found["accuracy"] == pytest.approx(1 - sklearn.metrics.hamming_loss(made.y, made.labels))


def test_metrics_of_numbers_are_means_over_the_targets() -> None:
    made = numbers()
    found = compute_metrics(made).values
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(made.y, made.values))
    assert made.values is not None
    assert found["rmse"] == pytest.approx(np.sqrt(((made.y - made.values) ** 2).mean(axis=0)).mean())


def test_objectives_have_no_units() -> None:
    assert default_objective(Task.REGRESSION, num_targets=2).metric.name == "r2"
    assert default_objective(Task.MULTILABEL).metric.name == "roc_auc"
    assert default_objective(Task.MULTILABEL, imbalance_ratio=30.0).metric.name == "pr_auc"


@pytest.mark.parametrize("made", [labels(), numbers()], ids=["labels", "numbers"])
def test_the_sealed_test_tells_each_target_and_the_means(made: Predictions) -> None:
    rng = np.random.default_rng(2)
    rows = EncodedRows(numeric=rng.normal(size=(300, 2)), categorical=np.zeros((300, 0), int), y=made.y)
    options: dict[str, Any] = {"task": made.task, "num_classes": 3 if made.task is Task.MULTILABEL else 0}
    others = {
        "constant": baselines.constant(rows, rows, **options),
        "linear": baselines.linear(rows, rows, cardinalities=(), **options),
    }
    objective = METRICS["roc_auc" if made.task is Task.MULTILABEL else "r2"]
    report = report_sealed_test(made, baselines=others, objective=objective, classes=(), seed=0)
    assert set(report.outputs) == set(made.outputs)
    each = [values[objective.name] for values in report.outputs.values()]
    estimate = report.estimate(objective.name)
    assert estimate is not None
    assert estimate.value == pytest.approx(np.mean(each))
    assert estimate.low is not None
    assert estimate.low < estimate.value
    assert report.confusion is None
    assert report.differences["linear"].sign == 1
    assert SealedTestReport.from_json(report.to_json()) == report


def test_answers_for_other_targets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected probabilities of shape \(300, 2\), got \(300, 3\)"):
        Predictions(
            task=Task.MULTILABEL, y=labels().y[:, :2], probabilities=labels().probabilities, outputs=NAMES[:2]
        )
    with pytest.raises(ValueError, match="expected several targets of a multilabel or regression task, got binary"):
        Predictions(task=Task.BINARY, y=labels().y, probabilities=labels().probabilities, outputs=NAMES)
