from __future__ import annotations

from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import scipy.special

from pipelines.schema import Task
from search_spaces.context import TableContext, TableSample
from search_spaces.user_space import load_space

NUM_ROWS, NUM_CLASSES = 96, 3
RNG = np.random.default_rng(3)
FEATURES = {
    "numeric": RNG.normal(size=(NUM_ROWS, 3)).astype(np.float32),
    "categorical": RNG.integers(0, (4, 40), (NUM_ROWS, 2)).astype(np.int32),
}
TARGET = (FEATURES["numeric"][:, :1] > 0).astype(np.int32) + (FEATURES["categorical"][:, :1] > 2)
CONTEXT = TableContext(
    Task.MULTICLASS,
    NUM_CLASSES,
    3,
    (4, 40),
    num_training_rows=NUM_ROWS,
    max_epochs=4,
    sample=TableSample(**FEATURES, target=TARGET),
)
SMALL: dict[str, Any] = {"members": 8, "width": 64, "num_blocks": 2, "num_bins": 8, "dropout": 0.0, "batch_size": 32}


def build(name: str, **values: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.values = SMALL | values
    keras.utils.set_random_seed(4)
    return load_space(name, CONTEXT).build(hp)


def before(model: Any, layer: Any) -> np.ndarray:
    """What comes into a layer."""
    return np.asarray(keras.Model(model.inputs, layer.input)(FEATURES, training=False))


def layers_of(model: Any, kind: str) -> list[Any]:
    return [layer for layer in model.layers if type(layer).__name__ == kind]


@pytest.fixture(scope="module", params=["tabm", "tabm-mini"])
def trained(request: pytest.FixtureRequest) -> tuple[str, Any]:
    model = build(request.param)
    model.fit(FEATURES, TARGET, epochs=3, batch_size=32, verbose=0)
    return request.param, model


def member(name: str, model: Any, index: int) -> np.ndarray:
    """Logits of one member taken out of the network, written out in NumPy."""
    if name == "tabm":
        dense = layers_of(model, "BatchEnsembleDense")
        x = before(model, dense[0])
        for layer in dense:
            r, s, b = (np.asarray(w)[index] for w in (layer.input_scale, layer.output_scale, layer.bias))
            x = np.maximum(((x * r) @ np.asarray(layer.kernel)) * s + b, 0.0)
    else:
        (scaling,) = layers_of(model, "MemberScaling")
        x = before(model, scaling) * np.asarray(scaling.scale)[index]
        for layer in layers_of(model, "Dense"):
            x = np.maximum(x @ np.asarray(layer.kernel) + np.asarray(layer.bias), 0.0)
    head = model.get_layer("head")
    return np.asarray(x @ np.asarray(head.kernel)[index] + np.asarray(head.bias)[index])


def test_the_answer_is_the_average_of_the_members_taken_out(trained: tuple[str, Any]) -> None:
    name, model = trained
    logits = np.stack([member(name, model, index) for index in range(SMALL["members"])])
    assert logits.std(axis=0).max() > 1e-3
    answered = scipy.special.softmax(np.asarray(model(FEATURES, training=False)), axis=-1)
    np.testing.assert_allclose(answered, scipy.special.softmax(logits, axis=-1).mean(axis=0), atol=1e-5)


def test_the_loss_in_training_is_the_mean_of_the_members_own(trained: tuple[str, Any]) -> None:
    name, model = trained
    found = float(model.compute_loss(y=TARGET, y_pred=model(FEATURES, training=True)))
    logits = np.stack([member(name, model, index) for index in range(SMALL["members"])])
    likelihood = scipy.special.log_softmax(logits, axis=-1)[:, np.arange(NUM_ROWS), TARGET[:, 0]]
    assert found == pytest.approx(-likelihood.mean(), rel=1e-4)


def test_matrices_decay_and_scales_biases_and_embeddings_do_not() -> None:
    model = build("tabm")
    model.optimizer.build(model.trainable_variables)
    decayed = {v.path for v in model.trainable_variables if model.optimizer._use_weight_decay(v)}
    matrices = [*layers_of(model, "BatchEnsembleDense"), model.get_layer("head")]
    assert decayed == {layer.kernel.path for layer in matrices}


@pytest.mark.parametrize(("embedding", "width"), [("piecewise", 3 * 8), ("none", 3)])
def test_numbers_are_embedded_or_not_and_many_categories_are_embedded(embedding: str, width: int) -> None:
    values = {"numeric_embedding": embedding} | ({} if embedding == "piecewise" else {"num_bins": None})
    model = build("tabm", **{name: value for name, value in values.items() if value is not None})
    (first, *_) = layers_of(model, "BatchEnsembleDense")
    # Three ids of the small column, and a vector of eight for the large one.
    assert first.kernel.shape[0] == width + 3 + 8
    assert first.start == ("normal" if embedding == "piecewise" else "random-signs")


def test_a_step_whose_members_agree_answers_as_each_of_them() -> None:
    model = build("tabm-mini")
    (scaling,) = layers_of(model, "MemberScaling")
    head = model.get_layer("head")
    for weight in (scaling.scale, head.kernel, head.bias):
        weight.assign(np.broadcast_to(np.asarray(weight)[:1], weight.shape))
    answered = scipy.special.softmax(np.asarray(model(FEATURES, training=False)), axis=-1)
    alone = scipy.special.softmax(member("tabm-mini", model, 0), axis=-1)
    np.testing.assert_allclose(answered, alone, atol=1e-5)
