from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model

from app.evaluation import baselines
from app.evaluation.baselines import EncodedRows, constant, linear
from app.evaluation.metrics import METRICS, Predictions
from pipelines.schema import Task

CARDINALITIES = (3, 5)


def rows(num_rows: int, *, task: Task, seed: int = 0) -> EncodedRows:
    """A target that depends linearly on two numbers and on the first of two categories."""
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(num_rows, 2)).astype(np.float32) * np.array([1, 100], np.float32)
    categorical = rng.integers(0, CARDINALITIES, size=(num_rows, 2)).astype(np.int32)
    signal = numeric[:, 0] - numeric[:, 1] / 100 + np.array([-2.0, 0.0, 2.0])[categorical[:, 0]]
    noisy = signal + rng.normal(size=num_rows) / 4
    if task is Task.REGRESSION:
        return EncodedRows(numeric=numeric, categorical=categorical, y=1e6 + 1e3 * noisy)
    cuts = [0.0] if task is Task.BINARY else [-1.0, 1.0]
    return EncodedRows(numeric=numeric, categorical=categorical, y=np.digitize(noisy, cuts).astype(np.int32))


def probabilities(predictions: Predictions) -> np.ndarray:
    assert predictions.probabilities is not None
    return predictions.probabilities


def test_constant_answers_the_frequencies_of_training() -> None:
    train = EncodedRows(numeric=np.zeros((4, 0)), categorical=np.zeros((4, 0), int), y=np.array([0, 1, 1, 1]))
    predictions = constant(train, train, task=Task.MULTICLASS, num_classes=3)
    np.testing.assert_allclose(probabilities(predictions), np.tile([0.25, 0.75, 0.0], (4, 1)))


def test_constant_answers_the_mean_of_training() -> None:
    train = rows(50, task=Task.REGRESSION)
    predictions = constant(train, rows(7, task=Task.REGRESSION, seed=1), task=Task.REGRESSION)
    assert predictions.values is not None
    np.testing.assert_allclose(predictions.values, np.full(7, train.y.mean()))
    assert predictions.mape_epsilon > 0


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTICLASS])
def test_linear_learns_a_linear_classification(task: Task) -> None:
    predictions = linear(
        rows(600, task=task),
        rows(300, task=task, seed=1),
        task=task,
        cardinalities=CARDINALITIES,
        num_classes=2 if task is Task.BINARY else 3,
    )
    assert METRICS["accuracy"].value(predictions) > 0.85


def test_linear_learns_a_linear_regression_of_any_unit() -> None:
    train, test = rows(600, task=Task.REGRESSION), rows(300, task=Task.REGRESSION, seed=1)
    predictions = linear(train, test, task=Task.REGRESSION, cardinalities=CARDINALITIES)
    assert METRICS["r2"].value(predictions) > 0.97


def test_linear_equals_scikit_learn_on_a_dense_matrix() -> None:
    train, test = rows(200, task=Task.BINARY), rows(50, task=Task.BINARY, seed=1)

    def dense(part: EncodedRows) -> np.ndarray:
        scaled = (part.numeric - train.numeric.mean(axis=0)) / train.numeric.std(axis=0)
        return np.hstack([scaled, *(np.eye(k)[part.categorical[:, i]] for i, k in enumerate(CARDINALITIES))])

    expected = sklearn.linear_model.LogisticRegression().fit(dense(train), train.y).predict_proba(dense(test))
    predictions = linear(train, test, task=Task.BINARY, cardinalities=CARDINALITIES, num_classes=2)
    np.testing.assert_allclose(probabilities(predictions), expected, atol=1e-3)


def test_linear_fits_a_part_of_very_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_ROWS", 100)
    train, test = rows(500, task=Task.BINARY), rows(50, task=Task.BINARY, seed=1)
    chosen = train.take(np.random.default_rng(3).choice(500, size=100, replace=False))
    options = {"task": Task.BINARY, "cardinalities": CARDINALITIES, "num_classes": 2}
    part = linear(train, test, seed=3, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(part.probabilities, linear(chosen, test, **options).probabilities)  # type: ignore[arg-type]


def test_linear_keeps_a_small_chance_for_a_class_it_never_saw() -> None:
    train, test = rows(100, task=Task.BINARY), rows(20, task=Task.BINARY, seed=1)
    predictions = linear(train, test, task=Task.MULTICLASS, cardinalities=CARDINALITIES, num_classes=4)
    assert predictions.probabilities is not None
    assert (predictions.probabilities[:, 2:] > 0).all()
    assert (predictions.probabilities[:, 2:] < 1e-5).all()


def test_linear_falls_back_on_constant_without_features_or_with_one_class() -> None:
    train, test = rows(100, task=Task.BINARY), rows(20, task=Task.BINARY, seed=1)
    one_class = EncodedRows(numeric=train.numeric, categorical=train.categorical, y=np.ones(100, np.int32))
    predictions = linear(one_class, test, task=Task.BINARY, cardinalities=CARDINALITIES, num_classes=2)
    np.testing.assert_array_equal(predictions.probabilities, np.tile([0.0, 1.0], (20, 1)))
    bare = EncodedRows(numeric=np.zeros((100, 0)), categorical=np.zeros((100, 0), int), y=train.y)
    predictions = linear(bare, bare, task=Task.BINARY, cardinalities=(), num_classes=2)
    assert len(np.unique(probabilities(predictions), axis=0)) == 1


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_linear_takes_features_of_one_kind_only(kind: str) -> None:
    full = rows(300, task=Task.BINARY)
    part = EncodedRows(
        numeric=full.numeric[:, : 2 if kind == "numeric" else 0],
        categorical=full.categorical[:, : 2 if kind == "categorical" else 0],
        y=full.y,
    )
    predictions = linear(
        part,
        part,
        task=Task.BINARY,
        num_classes=2,
        cardinalities=CARDINALITIES if kind == "categorical" else (),
    )
    assert METRICS["roc_auc"].value(predictions) > 0.7


def test_linear_says_nothing_when_it_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_ITERATIONS", 1)
    for task in (Task.MULTICLASS, Task.REGRESSION):  # a warning would be an error here
        part = rows(200, task=task)
        assert linear(part, part, task=task, cardinalities=CARDINALITIES, num_classes=3).num_rows == 200


def test_rows_that_do_not_fit_are_refused() -> None:
    good = rows(10, task=Task.BINARY)
    with pytest.raises(ValueError, match=r"same number of rows, got \(10, 10, 9\)"):
        EncodedRows(numeric=good.numeric, categorical=good.categorical, y=good.y[:9])
    with pytest.raises(ValueError, match="expected finite numeric features, got NaN or infinity"):
        EncodedRows(numeric=good.numeric * np.float32(np.nan), categorical=good.categorical, y=good.y)
    with pytest.raises(ValueError, match="one cardinality for each of 2 categorical features, got 1"):
        linear(good, good, task=Task.BINARY, cardinalities=(3,), num_classes=2)
    with pytest.raises(ValueError, match=r"expected category ids in \[0, cardinality\)"):
        linear(good, good, task=Task.BINARY, cardinalities=(2, 2), num_classes=2)
