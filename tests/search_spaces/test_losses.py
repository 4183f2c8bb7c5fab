from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.special

from search_spaces.losses import MemberLoss, SmoothedCrossentropy, loss_for

LOGITS = np.array([[1.0, -2.0, 0.5], [0.1, 0.2, 0.3], [-4.0, 3.0, 1.0], [9.0, 0.0, -9.0]], np.float32)
IDS = np.array([0, 2, 1, 2], np.int32)
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0], np.float32)


def expected(smoothing: float) -> np.ndarray:
    target = (1.0 - smoothing) * np.eye(3)[IDS] + smoothing / 3.0
    return -(target * scipy.special.log_softmax(LOGITS.astype(np.float64), axis=1)).sum(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_the_loss_is_the_crossentropy_of_the_smoothed_target(smoothing: float, shape: tuple[int, ...]) -> None:
    loss = SmoothedCrossentropy(smoothing)
    y = IDS.reshape(shape)
    assert float(loss(y, LOGITS)) == pytest.approx(expected(smoothing).mean(), rel=1e-5)
    weighted = float(loss(y, LOGITS, sample_weight=WEIGHTS))
    assert weighted == pytest.approx((expected(smoothing) * WEIGHTS).mean(), rel=1e-5)


def test_without_smoothing_it_equals_keras_own() -> None:
    keras_own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(SmoothedCrossentropy()(IDS, LOGITS)) == float(keras_own(IDS, LOGITS))


def test_smoothing_equals_keras_own_on_one_hot_targets() -> None:
    keras_own = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    one_hot = np.eye(3, dtype=np.float32)[IDS]
    assert float(SmoothedCrossentropy(0.1)(IDS, LOGITS)) == pytest.approx(float(keras_own(one_hot, LOGITS)), rel=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, on NumPy 2
def test_it_is_registered_and_survives_its_configuration(tmp_path: Path) -> None:
    assert keras.saving.get_registered_name(SmoothedCrossentropy) == "tamiz>SmoothedCrossentropy"
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(SmoothedCrossentropy(0.1)))
    assert (type(restored), restored.smoothing) == (SmoothedCrossentropy, 0.1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(loss=SmoothedCrossentropy(0.2))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras", safe_mode=True).loss.smoothing == 0.2


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_a_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"smoothing is .*: expected a share in \[0, 1\)"):
        SmoothedCrossentropy(smoothing)


def test_each_kind_of_output_has_its_loss() -> None:
    assert isinstance(loss_for(1, classification=False, smoothing=0.1), keras.losses.MeanSquaredError)
    binary = loss_for(1, classification=True, smoothing=0.1)
    assert isinstance(binary, keras.losses.BinaryCrossentropy)
    assert (binary.from_logits, binary.label_smoothing) == (True, 0.1)
    many = loss_for(4, classification=True, smoothing=0.1)
    assert (type(many), many.smoothing) == (SmoothedCrossentropy, 0.1)


def test_members_are_trained_by_the_mean_of_their_losses() -> None:
    rng = np.random.default_rng(1)
    members = rng.normal(size=(4, 5, 3)).astype(np.float32)
    inner = SmoothedCrossentropy(0.1)
    loss = MemberLoss(inner, num_outputs=3)
    y = IDS.reshape(-1, 1)
    each = [float(inner(y, members[:, member])) for member in range(5)]
    assert float(loss(y, members.reshape(4, 15))) == pytest.approx(np.mean(each), rel=1e-5)
    weighted = [float(inner(y, members[:, member], sample_weight=WEIGHTS)) for member in range(5)]
    found = float(loss(y, members.reshape(4, 15), sample_weight=WEIGHTS))
    assert found == pytest.approx(np.mean(weighted), rel=1e-5)


def test_one_answer_has_the_loss_itself() -> None:
    inner = loss_for(1, classification=False)
    y, answer = np.array([[1.0], [2.0]], np.float32), np.array([[0.5], [4.0]], np.float32)
    assert float(MemberLoss(inner, num_outputs=1)(y, answer)) == pytest.approx(float(inner(y, answer)))


def test_the_loss_of_members_comes_back_from_its_configuration() -> None:
    loss = MemberLoss(SmoothedCrossentropy(0.2), num_outputs=3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert (again.num_outputs, again.loss.smoothing) == (3, 0.2)
    with pytest.raises(ValueError, match=r"num_outputs is 0: expected at least 1"):
        MemberLoss(loss, num_outputs=0)
