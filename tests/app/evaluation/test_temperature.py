from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.evaluation.predictions import Predictions
from app.evaluation.temperature import fit_temperature, tempered
from pipelines.schema import Task


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


@given(seed=st.integers(0, 2**32 - 1), temperature=st.floats(0.2, 5.0))
@settings(deadline=None)
def test_a_temperature_divides_the_logits(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(0.0, 3.0, size=(7, 4))
    np.testing.assert_allclose(tempered(softmax(logits), temperature), softmax(logits / temperature), atol=1e-9)


def test_probabilities_of_zero_stay_probabilities() -> None:
    sharp = tempered(np.array([[0.0, 1.0], [1.0, 0.0]], np.float32), 0.5)
    assert np.isfinite(sharp).all()
    np.testing.assert_allclose(sharp.sum(axis=1), 1.0)


def answered(logits: NDArray[np.float64], y: NDArray[np.intp]) -> Predictions:
    task = Task.BINARY if logits.shape[1] == 2 else Task.MULTICLASS
    return Predictions(task=task, y=y, probabilities=softmax(logits))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_fit_finds_how_much_too_sure_the_logits_are(factor: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0.0, 1.5, size=(20_000, 3))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from the softmax of the logits
    assert fit_temperature(answered(factor * logits, y)) == pytest.approx(factor, rel=0.05)


def test_a_few_rows_all_answered_right_make_nobody_certain() -> None:
    logits = np.array([[2.0, -2.0], [-2.0, 2.0]] * 10)
    assert 0.3 < fit_temperature(answered(logits, logits.argmax(axis=1))) < 1.0


def test_weighted_rows_count_as_often_as_their_weight_says() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0.0, 2.0, size=(400, 2))
    y = rng.integers(0, 2, size=400)
    weights = np.where(logits.argmax(axis=1) == y, 3.0, 0.0)
    predictions = Predictions(task=Task.BINARY, y=y, probabilities=softmax(logits), weights=weights)
    assert fit_temperature(predictions) < 0.7 < 1.5 < fit_temperature(answered(logits, y))


def test_a_regression_has_no_temperature() -> None:
    assert fit_temperature(Predictions(task=Task.REGRESSION, y=np.ones(3), values=np.ones(3))) == 1.0
