from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras_tuner
import numpy as np
import pytest

from app.training.declaration import declare
from pipelines.schema import Task
from search_spaces.context import TableContext, TableSample
from search_spaces.realmlp import RealMLPSpace

NUM_ROWS = 128
RNG = np.random.default_rng(6)
FEATURES = {
    "numeric": RNG.normal(size=(NUM_ROWS, 3)).astype(np.float32),
    "categorical": RNG.integers(0, (4, 40), (NUM_ROWS, 2)).astype(np.int32),
}
VALUES = FEATURES["numeric"][:, :1] * 2.0
SAMPLE = TableSample(**FEATURES, target=VALUES)
CONTEXT = TableContext(Task.REGRESSION, 0, 3, (4, 40), num_training_rows=NUM_ROWS, max_epochs=8, sample=SAMPLE)


def build(context: TableContext, **values: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.values = {"width": 64, "depth": 2, "batch_size": 32} | values
    return RealMLPSpace(context).build(hp)


def default(context: TableContext, name: str) -> object:
    return declare(RealMLPSpace(context))[name].fallback


def test_defaults_are_those_of_the_authors() -> None:
    classes = replace(CONTEXT, task=Task.BINARY, num_classes=2)
    common = {"depth": 3, "width": 256, "dropout": 0.15, "weight_decay": 0.02, "frequency_scale": 0.1}
    for context in (CONTEXT, classes):
        assert {name: default(context, name) for name in common} == common
        assert (default(context, "front_scale"), default(context, "numeric_embedding")) == (True, "pbld")
    assert (default(CONTEXT, "activation"), default(CONTEXT, "learning_rate")) == ("mish", 0.2)
    assert (default(classes, "activation"), default(classes, "learning_rate")) == ("selu", 0.04)


def test_labels_are_smoothed_where_labels_alone_are_judged() -> None:
    classes = replace(CONTEXT, task=Task.BINARY, num_classes=2)
    assert default(classes, "label_smoothing") == 0.0
    assert default(replace(classes, judged_by_labels=True), "label_smoothing") == 0.1
    assert "label_smoothing" not in declare(RealMLPSpace(CONTEXT)).names


def test_each_group_has_its_rate_and_its_decay() -> None:
    model = build(CONTEXT)
    model.optimizer.build(model.trainable_variables)
    factors = dict(zip((v.path for v in model.trainable_variables), model.optimizer._factor_of, strict=True))
    assert factors["front_scale/scale"] == 6.0
    groups = {0.1: ("number_waves/", "/bias", "/alpha"), 1.0: ("/kernel", "/matrix")}
    for path, factor in factors.items():
        if path != "front_scale/scale":
            slow = any(part in path for part in groups[0.1])
            assert factor == (0.1 if slow else 1.0)
    undecayed = {v.path for v in model.trainable_variables if not model.optimizer._use_weight_decay(v)}
    assert undecayed == {layer.bias.path for layer in model.layers if type(layer).__name__ == "NtkDense"}
    assert (model.optimizer.beta_1, model.optimizer.beta_2, model.optimizer.epsilon) == (0.9, 0.95, 1e-8)


def test_every_layer_starts_fitted_to_what_comes_into_it() -> None:
    import keras

    model = build(CONTEXT, dropout=0.0)
    for layer in [layer for layer in model.layers if type(layer).__name__ == "NtkDense"]:
        values = np.asarray(keras.Model(model.inputs, layer.output)(FEATURES, training=False))
        np.testing.assert_allclose(values.std(axis=0), 1.0, rtol=1e-3)


def test_a_regression_answers_inside_the_range_of_its_target() -> None:
    model = build(CONTEXT)
    model.get_layer("head").bias.assign([100.0])
    assert np.asarray(model(FEATURES, training=False)).max() <= VALUES.max()
    assert np.asarray(model(FEATURES, training=True)).max() > VALUES.max()


@pytest.mark.parametrize(("share", "epochs"), [(1.0, 8), (0.5, 4), (0.125, 1)])
def test_all_schedules_end_with_the_share_of_the_epochs(share: float, epochs: int) -> None:
    model = build(CONTEXT, epoch_share=share)
    steps = epochs * NUM_ROWS // 32
    assert model.optimizer._learning_rate.total_steps == steps
    assert model.optimizer.decay_schedule.total_steps == steps
    assert {layer.total_steps for layer in model.layers if type(layer).__name__ == "FadingDropout"} == {steps}
