from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from app.evaluation.intervals import Difference, MetricEstimate
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


def judged(objective: str, value: float, low: float | None, high: float | None) -> tuple[str, ...]:
    return SealedTestReport(
        objective=objective,
        num_rows=9,
        num_resamples=9,
        model=(MetricEstimate(objective, 0.8, 0.7, 0.9),),
        baselines={"linear": (MetricEstimate(objective, 0.8 - value, None, None),)},
        differences={"linear": Difference(value, low, high)},
    ).verdicts()


BETTER = "the model is better than the linear baseline: the difference is"
WORSE = "the model is worse than the linear baseline: the difference is"
UNCLEAR = "there is no clear difference to the linear baseline: the difference of"


@pytest.mark.parametrize(
    ("objective", "difference", "sentence"),
    [
        ("accuracy", (0.2, 0.1, 0.3), f"{BETTER} +0.20 (95 % interval 0.10 to 0.30)."),
        ("accuracy", (-0.2, -0.3, -0.1), f"{WORSE} -0.20 (95 % interval -0.30 to -0.10)."),
        ("accuracy", (1 / 52, 0.0, 3 / 52), f"{UNCLEAR} +0.019 (95 % interval 0 to 0.058) may be chance."),
        ("accuracy", (-0.01, -0.05, 0.04), f"{UNCLEAR} -0.010 (95 % interval -0.050 to 0.040) may be chance."),
        ("accuracy", (0.02, 0.0004, 0.06), f"{BETTER} +0.0200 (95 % interval 0.0004 to 0.0600)."),
        ("accuracy", (1.0, 1.0, 1.0), f"{BETTER} +1 (95 % interval 1 to 1)."),
        ("rmse", (-1234.5, -2000.0, -400.0), f"{BETTER} -1,234 (95 % interval -2,000 to -400)."),
        ("rmse", (1.26, 0.5, 2.5), f"{WORSE} +1.3 (95 % interval 0.5 to 2.5)."),
        ("rmse", (0.0, 0.0, 0.0), "there is no difference to the linear baseline on these rows."),
    ],
)
def test_verdict_judges_the_difference(
    objective: str, difference: tuple[float, float, float], sentence: str
) -> None:
    assert judged(objective, *difference) == (f"By {objective} {sentence}",)


def test_no_verdict_without_an_interval() -> None:
    assert judged("r2", 0.4, None, None) == ()


def classified(*, right: int, wrong: int, scores: bool = True) -> Predictions:
    y = np.arange(right + wrong) % 2
    labels = np.where(np.arange(right + wrong) < right, y, 1 - y)
    probabilities = np.where(labels[:, None] == [0, 1], 0.9, 0.1) if scores else None
    return Predictions(task=Task.BINARY, y=y, probabilities=probabilities, labels=labels)


def on_test_rows(predictions: Predictions) -> SealedTestReport:
    return report_sealed_test(
        predictions, baselines={}, objective=METRICS["accuracy"], classes=("no", "yes"), seed=0
    )


def test_one_row_of_difference_to_a_model_without_mistakes_is_no_clear_difference() -> None:
    made = report_sealed_test(
        classified(right=52, wrong=0),
        baselines={"linear": classified(right=51, wrong=1), "constant": classified(right=26, wrong=26)},
        objective=METRICS["accuracy"],
        classes=("no", "yes"),
        seed=0,
    )
    linear, constant = made.verdicts()
    assert linear.endswith("the difference of +0.019 (95 % interval 0 to 0.058) may be chance.")
    assert constant.startswith("By accuracy the model is better than the constant baseline")


def test_a_share_without_a_counterexample_gets_the_rule_of_three() -> None:
    assert on_test_rows(classified(right=52, wrong=0, scores=False)).notes == (
        "Here accuracy, balanced_accuracy and f1 are 1 on all 52 rows, where the percentile interval has no width. "
        "By the rule of three the true share of rows predicted wrong may be up to 0.058 "
        "(3 / 52; Hanley and Lippman-Hand 1983).",
    )
    (note,) = on_test_rows(classified(right=0, wrong=20, scores=False)).notes
    assert "predicted right may be up to 0.15 (3 / 20;" in note


def test_no_remark_on_shares_that_have_an_interval() -> None:
    assert on_test_rows(classified(right=50, wrong=2)).notes == ()


def test_a_perfect_ranking_rests_on_the_rarest_class() -> None:
    y = np.array([0] * 30 + [1] * 10)
    score = np.where(y == 1, 0.4, 0.1)  # all ranked right, all predicted as class 0
    made = on_test_rows(Predictions(task=Task.BINARY, y=y, probabilities=np.stack([1 - score, score], axis=1)))
    assert made.notes == (
        "Here f1 is 0 on the 10 rows of the second class, where the percentile interval has no width. By the rule "
        "of three the true share of such rows predicted right may be up to 0.3 (3 / 10; Hanley and Lippman-Hand 1983).",
        "Here roc_auc and pr_auc are 1 on the 10 rows of the rarest class, where the percentile interval has no "
        "width. By the rule of three the true share of such rows ranked wrong may be up to 0.3 "
        "(3 / 10; Hanley and Lippman-Hand 1983).",
    )


def test_the_report_survives_json() -> None:
    for made in (
        report(),
        dataclasses.replace(report(), confusion=None, classes=(), notes=("Left out: mape.",)),
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
