"""Quantiles never cross, the loss is the pinball loss, and its minimum is where the quantiles are."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schema import Task
from search_spaces.answers import AnswerForm
from search_spaces.context import TableContext
from search_spaces.losses import loss_of
from search_spaces.quantiles import PinballLoss, middle_of, rising

LEVELS = (0.05, 0.5, 0.95)
RAW = np.random.default_rng(0).normal(0.0, 2.0, (40, 3)).astype(np.float32)


def softplus(x: Any) -> Any:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def test_the_median_is_the_output_and_steps_lead_away_from_it() -> None:
    found = keras.ops.convert_to_numpy(rising(RAW, LEVELS))
    middle = RAW[:, 1]
    expected = np.stack([middle - softplus(RAW[:, 0]), middle, middle + softplus(RAW[:, 2])], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=5, max_size=5),
    st.lists(st.floats(0.01, 0.99), min_size=5, max_size=5, unique=True).map(sorted),
)
def test_quantiles_never_cross(raw: list[float], levels: list[float]) -> None:
    found = keras.ops.convert_to_numpy(rising(np.array([raw], np.float32), levels))
    assert (np.diff(found) >= 0).all()
    assert found[0, middle_of(levels)] == np.float32(raw[middle_of(levels)])


def test_the_loss_is_the_mean_of_the_pinball_losses() -> None:
    y = np.random.default_rng(1).normal(size=(40, 1)).astype(np.float32)
    values = keras.ops.convert_to_numpy(rising(RAW, LEVELS))
    expected = np.mean(
        [sklearn.metrics.mean_pinball_loss(y[:, 0], values[:, k], alpha=q) for k, q in enumerate(LEVELS)]
    )
    assert float(PinballLoss(LEVELS)(y, RAW)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_rebuilt_from_its_configuration() -> None:
    loss = PinballLoss(LEVELS)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


def test_levels_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"quantiles are \(0\.9, 0\.5\): expected rising levels between 0 and 1"):
        PinballLoss((0.9, 0.5))


def test_a_context_of_quantiles_has_an_output_for_each() -> None:
    table = TableContext(Task.REGRESSION, 0, 4, (), num_training_rows=200, max_epochs=4, quantiles=LEVELS)
    assert table.num_outputs == 3
    assert not table.answers_values
    assert isinstance(loss_of(table), PinballLoss)


def form(**changes: Any) -> AnswerForm:
    made: dict[str, Any] = {
        "task": Task.REGRESSION, "target_mean": 100.0, "target_scale": 10.0, "quantiles": LEVELS
    }  # fmt: skip
    return AnswerForm(**(made | changes))


def test_answers_are_in_the_users_units_with_both_ends() -> None:
    answer = {name: tensor.numpy() for name, tensor in form().answer(RAW).items()}
    values = 100 + 10 * keras.ops.convert_to_numpy(rising(RAW, LEVELS))
    assert set(answer) == {"prediction", "lower", "upper"}
    for name, column in zip(("lower", "prediction", "upper"), values.T, strict=True):
        np.testing.assert_allclose(answer[name], column, rtol=1e-5)


@pytest.mark.parametrize("margin", [2.5, -1e6])
def test_the_margin_moves_the_ends_and_never_past_the_prediction(margin: float) -> None:
    plain = form().answer(RAW)
    moved = form(interval_margin=margin).answer(RAW)
    np.testing.assert_array_equal(moved["prediction"], plain["prediction"])
    assert (moved["lower"].numpy() <= moved["prediction"].numpy()).all()
    assert (moved["upper"].numpy() >= moved["prediction"].numpy()).all()
    if margin > 0:
        np.testing.assert_allclose(moved["lower"], plain["lower"] - margin, rtol=1e-5)


def test_more_than_three_quantiles_are_all_answered() -> None:
    levels = (0.1, 0.4, 0.5, 0.9)
    raw = np.concatenate([RAW, RAW[:, :1]], axis=1)
    answer = form(quantiles=levels).answer(raw)
    assert answer["quantiles"].shape == (40, 4)
    np.testing.assert_array_equal(answer["quantiles"][:, 2], answer["prediction"])


def test_quantiles_of_a_network_with_a_loss_of_its_own_are_sorted() -> None:
    crossed = np.array([[3.0, 1.0, 2.0]], np.float32)
    answer = form(logits=False, target_mean=0.0, target_scale=1.0).answer(crossed)
    assert [float(answer[name][0]) for name in ("lower", "prediction", "upper")] == [1.0, 2.0, 3.0]


def test_the_form_of_intervals_round_trips_through_json() -> None:
    made = form(interval_margin=1.5)
    assert AnswerForm.from_json(made.to_json()) == made
