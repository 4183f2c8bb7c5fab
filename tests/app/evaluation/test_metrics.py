from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from app.evaluation.metrics import (
    METRICS,
    Direction,
    Metric,
    Predictions,
    compute_metrics,
    default_objective,
    imbalance_ratio,
    mape_epsilon,
    metrics_for,
    resolve_objective,
)
from pipelines.schema import Task

CLASSIFICATION = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "pr_auc", "log_loss", "brier", "ece")
REGRESSION = ("rmse", "mae", "r2", "mape")


def classification(
    num_classes: int, *, num_rows: int = 500, seed: int = 0, decimals: int | None = None
) -> Predictions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, num_classes))
    if decimals is not None:  # ties
        logits = logits.round(decimals)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    task = Task.BINARY if num_classes == 2 else Task.MULTICLASS
    return Predictions(task=task, y=y, probabilities=probabilities)


def regression(*, num_rows: int = 300, seed: int = 0, offset: float = 50.0) -> Predictions:
    rng = np.random.default_rng(seed)
    y = offset + rng.normal(size=num_rows)
    return Predictions(task=Task.REGRESSION, y=y, values=y + rng.normal(size=num_rows) / 2)


def reference(predictions: Predictions) -> dict[str, float]:
    """The same metrics by scikit-learn."""
    y, p, labels = predictions.y, predictions.probabilities, predictions.predicted_labels
    assert p is not None
    binary = predictions.task is Task.BINARY
    scores = p[:, 1] if binary else p
    one_hot = np.eye(predictions.num_classes)[y]
    return {
        "accuracy": sklearn.metrics.accuracy_score(y, labels),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(y, labels),
        "f1": sklearn.metrics.f1_score(y, labels, average="binary" if binary else "macro"),
        "roc_auc": sklearn.metrics.roc_auc_score(y, scores, multi_class="ovr"),
        "pr_auc": sklearn.metrics.average_precision_score(y if binary else one_hot, scores),
        "log_loss": sklearn.metrics.log_loss(y, p),
        "brier": sklearn.metrics.brier_score_loss(y, scores),
    }


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("decimals", [None, 0], ids=["distinct scores", "tied scores"])
def test_classification_metrics_equal_those_of_scikit_learn(num_classes: int, decimals: int | None) -> None:
    predictions = classification(num_classes, decimals=decimals)
    values = compute_metrics(predictions).values
    for name, expected in reference(predictions).items():
        assert values[name] == pytest.approx(expected, rel=1e-9), name


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=60))
@settings(deadline=None, max_examples=150)
def test_rank_metrics_equal_those_of_scikit_learn_for_any_ties(rows: list[tuple[bool, int]]) -> None:
    y = np.array([int(positive) for positive, _ in rows])
    scores = np.array([score / 10 for _, score in rows])
    predictions = Predictions(task=Task.BINARY, y=y, probabilities=np.stack([1 - scores, scores], axis=1))
    if y.min() == y.max():
        assert np.isnan(METRICS["roc_auc"].value(predictions))
        return
    assert METRICS["roc_auc"].value(predictions) == pytest.approx(sklearn.metrics.roc_auc_score(y, scores))
    assert METRICS["pr_auc"].value(predictions) == pytest.approx(
        sklearn.metrics.average_precision_score(y, scores)
    )


@pytest.mark.parametrize(
    "predictions",
    [classification(2, decimals=0), classification(4, decimals=0), regression()],
    ids=["binary", "multiclass", "regression"],
)
def test_weights_give_the_metric_of_repeated_rows(predictions: Predictions) -> None:
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, size=(3, predictions.num_rows))
    for metric in metrics_for(predictions.task):
        repeated = [
            metric.value(predictions.take(np.repeat(np.arange(predictions.num_rows), w))) for w in weights
        ]
        np.testing.assert_allclose(
            metric.function(predictions)(weights.astype(float)), repeated, rtol=1e-9, err_msg=metric.name
        )


def test_regression_metrics_equal_those_of_scikit_learn() -> None:
    predictions = regression()
    assert predictions.values is not None
    values = compute_metrics(predictions).values
    y, answers = predictions.y, predictions.values
    assert values["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(y, answers))
    assert values["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(y, answers))
    assert values["r2"] == pytest.approx(sklearn.metrics.r2_score(y, answers))
    assert values["mape"] == pytest.approx(sklearn.metrics.mean_absolute_percentage_error(y, answers))


def test_r2_is_exact_when_the_target_is_far_from_zero() -> None:
    predictions = regression(offset=1e9)
    assert METRICS["r2"].value(predictions) == pytest.approx(
        sklearn.metrics.r2_score(predictions.y, predictions.values), rel=1e-6
    )


def test_ece_is_the_mean_gap_between_confidence_and_frequency() -> None:
    # 10 rows at 0.9 of which 6 are right, 10 rows at 0.6 of which 6 are right: (10 * 0.3 + 10 * 0) / 20.
    confidence = np.repeat([0.9, 0.6], 10)
    y = np.tile([1] * 6 + [0] * 4, 2)
    binary = Predictions(task=Task.BINARY, y=y, probabilities=np.stack([1 - confidence, confidence], axis=1))
    assert METRICS["ece"].value(binary) == pytest.approx(0.15)
    rest = (1 - confidence) / 2
    multiclass = Predictions(
        task=Task.MULTICLASS, y=y, probabilities=np.stack([rest, confidence, rest], axis=1)
    )
    assert METRICS["ece"].value(multiclass) == pytest.approx(0.15)


def test_ece_puts_a_confidence_of_one_into_the_last_bin() -> None:
    certain = Predictions(
        task=Task.BINARY, y=np.array([1, 0]), probabilities=np.array([[0.0, 1.0], [0.0, 1.0]])
    )
    assert METRICS["ece"].value(certain) == pytest.approx(0.5)


def test_log_loss_of_an_impossible_truth_is_finite() -> None:
    wrong = Predictions(
        task=Task.BINARY, y=np.array([0]), probabilities=np.array([[0.0, 1.0]], dtype=np.float32)
    )
    assert METRICS["log_loss"].value(wrong) == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_classes_absent_from_y_are_left_out_of_the_mean() -> None:
    full = classification(4)
    assert full.probabilities is not None
    rows = np.flatnonzero(full.y != 2)
    some = full.take(rows)
    expected = [sklearn.metrics.roc_auc_score(some.y == k, full.probabilities[rows, k]) for k in (0, 1, 3)]
    assert METRICS["roc_auc"].value(some) == pytest.approx(np.mean(expected))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of the class that is predicted and never true
        expected_recall = sklearn.metrics.balanced_accuracy_score(some.y, some.predicted_labels)
    assert METRICS["balanced_accuracy"].value(some) == pytest.approx(expected_recall)


def test_rows_of_a_single_class_leave_out_the_metrics_that_compare_classes() -> None:
    one_class = classification(2).take(np.flatnonzero(classification(2).y == 0))
    result = compute_metrics(one_class)
    assert "roc_auc" not in result.values
    assert "log_loss" in result.values
    assert "Left out: roc_auc, because these rows lack the classes it compares." in result.notes


def test_mape_is_left_out_when_the_target_holds_a_zero() -> None:
    result = compute_metrics(
        Predictions(task=Task.REGRESSION, y=np.array([0.0, 1.0]), values=np.array([1.0, 1.0]))
    )
    assert set(result.values) == {"rmse", "mae", "r2"}
    assert any("Left out: mape, because the target holds zeros" in note for note in result.notes)


def test_mape_divides_by_no_less_than_its_epsilon() -> None:
    predictions = Predictions(
        task=Task.REGRESSION, y=np.array([1e-9, 2.0]), values=np.array([1.0, 1.0]), mape_epsilon=0.5
    )
    assert METRICS["mape"].value(predictions) == pytest.approx((1 / 0.5 + 1 / 2) / 2)


def test_mape_epsilon_is_the_first_percentile_of_the_size() -> None:
    assert mape_epsilon(-np.arange(101.0)) == pytest.approx(1.0)


def test_r2_of_a_constant_target_is_left_out() -> None:
    result = compute_metrics(Predictions(task=Task.REGRESSION, y=np.full(5, 0.1), values=np.arange(5.0)))
    assert "r2" not in result.values
    assert "Left out: r2, because the target is constant on these rows." in result.notes


def test_labels_alone_give_the_metrics_of_labels() -> None:
    labels_only = Predictions(task=Task.MULTICLASS, y=np.array([0, 1, 2]), labels=np.array([0, 2, 2]))
    assert set(compute_metrics(labels_only).values) == {"accuracy", "balanced_accuracy", "f1"}
    with pytest.raises(ValueError, match="expected probabilities for this metric, got labels only"):
        METRICS["roc_auc"].value(labels_only)


def test_metrics_by_task() -> None:
    assert tuple(metric.name for metric in metrics_for(Task.BINARY)) == CLASSIFICATION
    assert tuple(metric.name for metric in metrics_for(Task.MULTICLASS)) == CLASSIFICATION
    assert tuple(metric.name for metric in metrics_for(Task.REGRESSION)) == REGRESSION
    with pytest.raises(ValueError, match="got forecast; no metric is defined for it yet"):
        metrics_for(Task.FORECAST)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_loss_is_smaller_for_the_better_value_and_turns_back(metric: Metric) -> None:
    better, worse = (0.9, 0.1) if metric.direction is Direction.MAXIMIZE else (0.1, 0.9)
    assert metric.to_loss(better) < metric.to_loss(worse)
    assert metric.from_loss(metric.to_loss(better)) == better


def test_a_metric_refuses_the_wrong_kind_of_predictions() -> None:
    with pytest.raises(
        ValueError, match="expected a metric for a regression task, got 'roc_auc'; choose one of rmse"
    ):
        METRICS["roc_auc"].value(regression())


@pytest.mark.parametrize(
    ("task", "ratio", "name", "reason"),
    [
        (Task.BINARY, 10.0, "roc_auc", "without a threshold"),
        (Task.BINARY, 10.1, "pr_auc", "10.1 times"),
        (Task.MULTICLASS, 1.0, "accuracy", "similar size"),
        (Task.MULTICLASS, 40.0, "balanced_accuracy", "40 times"),
        (Task.REGRESSION, 1.0, "rmse", "target's units"),
    ],
)
def test_default_objective_follows_task_and_imbalance(
    task: Task, ratio: float, name: str, reason: str
) -> None:
    objective = default_objective(task, imbalance_ratio=ratio)
    assert objective.metric is METRICS[name]
    assert reason in objective.reason


def test_imbalance_ratio_compares_the_classes_that_occur() -> None:
    assert imbalance_ratio(np.array([0, 0, 0, 0, 2])) == 4.0


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("auc", Task.BINARY, "roc_auc"),
        ("val_auc", Task.MULTICLASS, "roc_auc"),
        ("ROC-AUC", Task.BINARY, "roc_auc"),
        ("val_rmse", Task.REGRESSION, "rmse"),
        ("val/acc", Task.BINARY, "accuracy"),
        ("val_loss", Task.BINARY, "log_loss"),
        ("loss", Task.REGRESSION, "rmse"),
        *[(name, Task.BINARY, name) for name in CLASSIFICATION],
        *[(name, Task.REGRESSION, name) for name in REGRESSION],
    ],
)
def test_objective_is_found_by_name_or_alias(name: str, task: Task, expected: str) -> None:
    assert resolve_objective(name, task).name == expected


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("acuracy", Task.BINARY, "expected the name of a metric, got 'acuracy'; did you mean 'accuracy'?"),
        ("zzzz", Task.REGRESSION, "got 'zzzz'; choose one of rmse, mae, r2, mape"),
        ("auc", Task.REGRESSION, "expected a metric for a regression task, got 'auc'; choose one of rmse"),
        (
            "val_rmse",
            Task.BINARY,
            "expected a metric for a binary task, got 'val_rmse'; choose one of accuracy",
        ),
    ],
)
def test_an_objective_that_cannot_be_is_refused(name: str, task: Task, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        resolve_objective(name, task)


TWO = np.array([0, 1])
HALVES = np.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Predictions(task=Task.FORECAST, y=TWO), "got forecast; no metric is defined"),
        (
            lambda: Predictions(task=Task.BINARY, y=np.zeros((2, 1), int)),
            r"y of shape \(num_rows,\).*got \(2, 1\)",
        ),
        (lambda: Predictions(task=Task.BINARY, y=np.zeros(0, int)), "at least one row"),
        (lambda: Predictions(task=Task.BINARY, y=TWO), "got neither; pass probabilities"),
        (
            lambda: Predictions(task=Task.BINARY, y=TWO / 1.0, probabilities=HALVES),
            "integer class ids, got float64",
        ),
        (
            lambda: Predictions(task=Task.BINARY, y=TWO, probabilities=HALVES[:, 0]),
            r"shape \(2, num_classes\)",
        ),
        (
            lambda: Predictions(task=Task.BINARY, y=TWO, probabilities=HALVES * np.nan),
            "NaN or infinity in 2 of 2 rows",
        ),
        (lambda: Predictions(task=Task.BINARY, y=TWO, probabilities=HALVES * 3), "apply softmax to logits"),
        (
            lambda: Predictions(task=Task.BINARY, y=TWO, probabilities=np.full((2, 4), 0.25)),
            "expected 2 classes",
        ),
        (
            lambda: Predictions(task=Task.BINARY, y=TWO + 1, probabilities=HALVES),
            r"y in \[0, 2\), got 1 to 2",
        ),
        (
            lambda: Predictions(task=Task.BINARY, y=TWO, labels=np.array([0])),
            r"labels of shape \(2,\), got \(1,\)",
        ),
        (lambda: Predictions(task=Task.REGRESSION, y=TWO), "expected values"),
        (
            lambda: Predictions(task=Task.REGRESSION, y=TWO, values=np.ones(3)),
            r"values of shape \(2,\), got \(3,\)",
        ),
        (
            lambda: Predictions(task=Task.REGRESSION, y=TWO, values=np.array([1, np.inf])),
            "1 of 2 rows .the first is row 1",
        ),
        (lambda: Predictions(task=Task.REGRESSION, y=TWO * np.nan, values=HALVES[0]), "finite numbers in y"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(
    build: Callable[[], Predictions], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_regression_has_no_labels_and_a_classification_no_errors() -> None:
    with pytest.raises(ValueError, match="a regression has no labels"):
        _ = regression().predicted_labels
    with pytest.raises(ValueError, match="expected a regression for this metric, got a classification"):
        METRICS["rmse"].function(classification(2))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_row_of_weight_three_counts_like_three_rows(kind: str) -> None:
    plain = regression() if kind == "regression" else classification(2 if kind == "binary" else 4)
    weights = np.random.default_rng(3).integers(0, 4, size=plain.num_rows)
    weighted = compute_metrics(dataclasses.replace(plain, weights=weights.astype(np.float64))).values
    repeated = compute_metrics(plain.take(np.repeat(np.arange(plain.num_rows), weights))).values
    assert weighted == pytest.approx(repeated, rel=1e-9)
    assert weighted != pytest.approx(compute_metrics(plain).values, rel=1e-9)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(500), "weights of at least 0 and one above it, got numbers from 0 to 0"),
        (np.full(500, -1.0), "got numbers from -1 to -1"),
        (np.ones(3), r"weights of shape \(500,\), got \(3,\)"),
        (np.full(500, np.nan), "finite numbers in weights"),
    ],
)
def test_weights_that_are_none_are_refused(weights: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(classification(3), weights=weights)
