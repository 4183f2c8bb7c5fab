from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.special

from pipelines.schema import Task
from search_spaces.image_context import ImageContext
from search_spaces.losses import MemberLoss, SmoothedCrossentropy, loss_for, loss_of

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


@pytest.mark.parametrize("shares", [False, True])
def test_the_focal_loss_equals_keras_own_on_one_hot_targets(shares: bool) -> None:
    logits = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    ids = np.array([[0], [1], [2], [3], [3], [1]])
    one_hot = np.eye(4, dtype=np.float32)[ids[:, 0]]
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0, from_logits=True)(one_hot, logits)
    ours = SmoothedCrossentropy(focus=2.0)(one_hot if shares else ids, logits)
    np.testing.assert_allclose(float(ours), float(theirs), rtol=1e-5)


def test_mixed_targets_cost_the_crossentropy_of_their_shares() -> None:
    logits = np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32)
    shares = np.array([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]], np.float32)
    expected = -(shares * scipy.special.log_softmax(logits, axis=1)).sum(axis=1).mean()
    np.testing.assert_allclose(float(SmoothedCrossentropy()(shares, logits)), expected, rtol=1e-5)


def test_a_focus_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"focus is -1.0: expected at least 0"):
        SmoothedCrossentropy(focus=-1.0)


def test_classifiers_of_every_kind_have_a_focal_loss_and_regression_has_none() -> None:
    def loss(task: Task, num_classes: int) -> keras.losses.Loss:
        context = ImageContext(task, num_classes, 8, 8, 1, num_training_rows=64, max_epochs=3)
        return loss_of(context, focus=2.0)

    assert isinstance(loss(Task.BINARY, 2), keras.losses.BinaryFocalCrossentropy)
    assert isinstance(loss(Task.MULTILABEL, 3), keras.losses.BinaryFocalCrossentropy)
    assert isinstance(loss(Task.MULTICLASS, 3), SmoothedCrossentropy)
    assert isinstance(loss(Task.REGRESSION, 0), keras.losses.MeanSquaredError)
