from __future__ import annotations

from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from pipelines.schema import Task
from search_spaces.context import TableContext
from search_spaces.layers.categorical_embedding import CategoricalEmbedding
from search_spaces.tabular import MLPSpace, ResNetSpace

CONTEXT = TableContext(Task.MULTICLASS, 3, 4, (5, 3), num_training_rows=200, max_epochs=4)


def build(space: keras_tuner.HyperModel, **values: Any) -> tuple[keras.Model, keras_tuner.HyperParameters]:
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return space.build(hp), hp


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def test_an_mlp_is_as_deep_wide_and_regularised_as_asked() -> None:
    values = {"depth": 3, "width": 16, "normalisation": "layer", "dropout": 0.25, "residual": False}
    model, _ = build(MLPSpace(CONTEXT), activation="gelu", embedding_size=2, **values)
    block = ["Dense", "LayerNormalization", "Dropout", "Activation"]
    assert kinds(model) == ["CategoricalEmbedding", "Concatenate", *block * 3, "Dense"]
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [16, 16, 16, 3]
    # Four numbers and two embeddings of length two.
    assert dense[0].kernel.shape == (8, 16)
    assert {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} == {0.25}


def test_a_residual_mlp_adds_every_layer_but_the_first() -> None:
    model, _ = build(MLPSpace(CONTEXT), depth=4, residual=True, dropout=0.0, normalisation="none")
    assert kinds(model).count("Add") == 3
    assert "Dropout" not in kinds(model)


def test_a_single_layer_has_no_residual_parameter() -> None:
    _, hp = build(MLPSpace(CONTEXT), depth=1)
    assert "residual" not in hp.values
    _, hp = build(ResNetSpace(CONTEXT), num_blocks=1)
    assert "residual_dropout" not in hp.values


def test_a_resnet_has_a_residual_stream_with_its_blocks() -> None:
    values = {"num_blocks": 2, "width": 32, "hidden_factor": 4.0, "dropout": 0.1, "residual_dropout": 0.2}
    model, _ = build(ResNetSpace(CONTEXT), normalisation="batch", numeric_embedding="none", **values)
    block = ["BatchNormalization", "Dense", "Activation", "Dropout", "Dense", "Dropout", "Add"]
    assert kinds(model)[2:] == ["Dense", *block * 2, "BatchNormalization", "Activation", "Dense"]
    units = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert units == [32, 128, 32, 128, 32, 3]


@pytest.mark.parametrize("embedding", ["piecewise", "periodic"])
def test_a_resnet_embeds_its_numbers(embedding: str) -> None:
    model, hp = build(ResNetSpace(CONTEXT), numeric_embedding=embedding, number_size=4, embedding_size=2)
    # Four numbers and two categories.
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    assert first.kernel.shape[0] == 4 * 4 + 2 * 2
    assert ("num_bins" in hp.values) == (embedding == "piecewise")
    assert ("frequency_scale" in hp.values) == (embedding == "periodic")


@pytest.mark.parametrize("space", [MLPSpace, ResNetSpace])
def test_the_head_answers_in_float32_under_mixed_precision(space: type[MLPSpace]) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, _ = build(space(CONTEXT))
    finally:
        keras.config.set_dtype_policy("float32")
    output = model({"numeric": np.ones((2, 4), np.float32), "categorical": np.ones((2, 2), np.int32)})
    assert output.dtype == "float32"
    assert model.get_layer("head").name == model.layers[-1].name
    assert next(layer for layer in model.layers if isinstance(layer, CategoricalEmbedding)).compute_dtype == "float16"


def test_the_same_seed_builds_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model, _ = build(MLPSpace(CONTEXT))
        weights.append([np.asarray(variable) for variable in model.trainable_variables])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
