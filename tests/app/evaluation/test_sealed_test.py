from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from app.evaluation.intervals import MetricEstimate
from app.evaluation.metrics import METRICS, Predictions
from app.evaluation.sealed_test import SealedTestReport, report_sealed_test
from pipelines.schema import Task


def predictions(*, skill: float, num_classes: int = 3, num_rows: int = 200) -> Predictions:
    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, size=num_rows)
    probabilities = skill * np.eye(num_classes)[y] + (1 - skill) * rng.dirichlet(
        np.ones(num_classes), size=num_rows
    )
    return Predictions(task=Task.MULTICLASS, y=y, probabilities=probabilities)


def report(**changes: Any) -> SealedTestReport:
    options: dict[str, Any] = {
        "baselines": {"constant": predictions(skill=0.0), "linear": predictions(skill=0.2)},
        "objective": METRICS["accuracy"],
        "classes": ("a", "b", "c"),
        "seed": 1,
    }
    return report_sealed_test(predictions(skill=0.4), **(options | changes))


def test_the_model_stands_beside_its_baselines() -> None:
    made = report()
    assert made.num_rows == 200
    assert made.objective == "accuracy"
    assert list(made.baselines) == ["constant", "linear"]
    names = [estimate.name for estimate in made.model]
    assert all([e.name for e in estimates] == names for estimates in made.baselines.values())
    model, linear = made.estimate("accuracy"), made.estimate("accuracy", baseline="linear")
    assert model is not None
    assert linear is not None
    assert model.value == METRICS["accuracy"].value(predictions(skill=0.4)) > linear.value
    assert made.estimate("rmse") is None


def test_confusion_counts_true_classes_in_rows() -> None:
    y, labels = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2])
    made = report_sealed_test(
        Predictions(task=Task.MULTICLASS, y=y, labels=labels),
        baselines={},
        objective=METRICS["accuracy"],
        classes=("a", "b", "c"),
        seed=0,
    )
    assert made.confusion == ((1, 1, 0), (0, 1, 0), (1, 0, 2))


def test_no_confusion_with_many_classes_or_values() -> None:
    many = predictions(skill=0.5, num_classes=21)
    options: dict[str, Any] = {"baselines": {}, "seed": 0}
    classes = tuple(map(str, range(21)))
    assert (
        report_sealed_test(many, objective=METRICS["accuracy"], classes=classes, **options).confusion is None
    )
    values = Predictions(task=Task.REGRESSION, y=np.arange(1.0, 9.0), values=np.arange(8.0))
    assert report_sealed_test(values, objective=METRICS["rmse"], classes=(), **options).confusion is None


@pytest.mark.parametrize(
    ("objective", "interval", "baseline", "sentence"),
    [
        (
            "accuracy",
            (0.8, 0.7, 0.9),
            0.6,
            "the model is better than the linear baseline: its interval lies above it",
        ),
        (
            "accuracy",
            (0.8, 0.7, 0.9),
            0.95,
            "the model is worse than the linear baseline: its interval lies below it",
        ),
        (
            "accuracy",
            (0.8, 0.7, 0.9),
            0.75,
            "the model does not differ significantly from the linear baseline",
        ),
        (
            "rmse",
            (2.0, 1.5, 2.5),
            3.0,
            "the model is better than the linear baseline: its interval lies below it",
        ),
        (
            "rmse",
            (2.0, 1.5, 2.5),
            1.0,
            "the model is worse than the linear baseline: its interval lies above it",
        ),
    ],
)
def test_verdict_takes_the_interval_into_account(
    objective: str, interval: tuple[float, float, float], baseline: float, sentence: str
) -> None:
    made = SealedTestReport(
        objective=objective,
        num_rows=9,
        num_resamples=9,
        model=(MetricEstimate(objective, *interval),),
        baselines={"linear": (MetricEstimate(objective, baseline, None, None),)},
    )
    assert made.verdicts() == (f"by {objective} {sentence}",)


def test_no_verdict_without_an_interval() -> None:
    made = SealedTestReport(
        objective="r2",
        num_rows=2,
        num_resamples=9,
        model=(MetricEstimate("r2", 0.5, None, None),),
        baselines={"linear": (MetricEstimate("r2", 0.1, None, None),)},
    )
    assert made.verdicts() == ()


def test_the_report_survives_json() -> None:
    for made in (
        report(),
        dataclasses.replace(report(), confusion=None, classes=(), notes=("mape is left out",)),
    ):
        assert SealedTestReport.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False))) == made


def test_a_report_of_another_version_or_with_other_fields_is_refused() -> None:
    data = report().to_json()
    with pytest.raises(
        ValueError, match="expected an evaluation of version 1, got 2; it was written by another"
    ):
        SealedTestReport.from_json(data | {"version": 2})
    with pytest.raises(ValueError, match="got surprise missing or unknown; the file is damaged"):
        SealedTestReport.from_json(data | {"surprise": 1})
    del data["notes"]
    with pytest.raises(ValueError, match="got notes missing or unknown"):
        SealedTestReport.from_json(data)


def test_a_baseline_on_other_rows_is_refused() -> None:
    with pytest.raises(
        ValueError, match="expected the baseline 'linear' on the model's 200 rows, got 50 rows"
    ):
        report(baselines={"linear": predictions(skill=0.1, num_rows=50)})
