"""What every space of networks for images has to do; those of large backbones have tests of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.search.space import Configuration, Value
from app.training.declaration import declare, hyperparameters
from pipelines.schema import Task
from search_spaces.augmentation import augment
from search_spaces.catalogue import IMAGE_SPACES, SpaceError
from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext
from search_spaces.portfolio import portfolio_of
from search_spaces.user_space import checked_model, load_space

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

NUM_ROWS = 16
SPACES = sorted(IMAGE_SPACES - {"backbone", "pretrained"})
NUM_CONFIGURATIONS = int(os.environ.get("TAMIZ_RANDOM_NETWORKS", "2"))
"""Of each space; each costs about a second, and 30 are a good proof after a change of a space."""
NUM_SAVED = 1 if NUM_CONFIGURATIONS < 30 else NUM_CONFIGURATIONS
EXPORTED = frozenset({"cnn", "vit"} if NUM_CONFIGURATIONS < 30 else SPACES)
"""An export is traced for seconds; each layer is exported by its own conformance test."""

IMAGES: dict[str, ImageContext] = {
    "digits": ImageContext(Task.MULTICLASS, 4, 8, 8, 1, NUM_ROWS, 3, may_flip=False),
    "photographs": ImageContext(Task.BINARY, 2, 12, 9, 3, NUM_ROWS, 3, num_numeric=2, cardinalities=(4,)),
    "labels": ImageContext(Task.MULTILABEL, 3, 8, 8, 3, NUM_ROWS, 3),
    "values": ImageContext(Task.REGRESSION, 0, 8, 8, 1, NUM_ROWS, 3, num_targets=2),
}


def rows_of(context: ImageContext) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    rng = np.random.default_rng(2)
    features = {"image": rng.integers(0, 256, (NUM_ROWS, *context.image_shape)).astype(np.uint8)}
    if context.num_numeric:
        features["numeric"] = rng.normal(size=(NUM_ROWS, context.num_numeric)).astype(np.float32)
        features["categorical"] = rng.integers(0, 4, (NUM_ROWS, 1)).astype(np.int32)
    if context.task is Task.MULTILABEL:
        target = rng.integers(0, 2, (NUM_ROWS, context.num_classes)).astype(np.int32)
    elif context.task is Task.REGRESSION:
        target = rng.normal(size=(NUM_ROWS, context.num_targets)).astype(np.float32)
    else:
        target = rng.integers(0, context.num_classes, (NUM_ROWS, 1)).astype(np.int32)
    return {name: tf.constant(array) for name, array in features.items()}, tf.constant(target)


def small(configuration: Configuration) -> Configuration:
    """Returns a configuration whose sizes are the smallest there are."""
    least: dict[str, Value] = {"blocks_per_stage": 1, "growth_rate": 8, "head_units": 64, "expansion": 2}
    least |= {"cells_per_stage": 1, "depth": 2, "num_heads": 2}
    # Widths of transformers begin at 32; a cell whose last node cannot be reached is refused.
    least |= {"width": 32 if "patch_size" in configuration else 8, "edge_0_3": "skip"}
    return {name: least.get(name, value) for name, value in configuration.items()}


def outputs_of(model: keras.Model, context: ImageContext, configuration: Configuration, number: int) -> np.ndarray:
    """Trains one step on a batch that is changed as the configuration says, and returns what the network answers."""
    features, target = rows_of(context)
    change = augment(configuration, context)
    images, labels = features["image"], target
    if change is not None:
        images, labels = change(images, target, tf.constant([number, 1]))
    before = [np.asarray(variable) for variable in model.trainable_variables]
    logs = model.train_step(({**features, "image": images}, labels))
    assert np.isfinite(float(logs["loss"]))
    assert any((old != np.asarray(new)).any() for old, new in zip(before, model.trainable_variables, strict=True))
    output = np.asarray(model(features, training=False))
    assert output.shape == (NUM_ROWS, context.num_outputs)
    assert output.dtype == np.float32
    assert np.isfinite(output).all()
    return output


@pytest.mark.parametrize("name", SPACES)
def test_random_configurations_build_train_export_and_come_back(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    kinds = list(IMAGES.values())
    spaces = [load_space(name, context) for context in kinds]
    declared = [declare(space) for space in spaces]
    for number in range(NUM_CONFIGURATIONS):
        kind = number % len(kinds)
        context, features = kinds[kind], rows_of(kinds[kind])[0]
        configuration = small(declared[kind].sample(rng))
        hp = hyperparameters(configuration)
        model, width = checked_model(spaces[kind].build(hp), example=features, context=context)
        assert width == context.num_outputs
        assert set(hp.values) == set(configuration)
        output = outputs_of(model, context, configuration, number)
        if number < NUM_SAVED:
            check_comes_back(model, features, output, tmp_path / str(number), is_exported=name in EXPORTED)
        keras.backend.clear_session()


def check_comes_back(
    model: keras.Model, features: dict[str, tf.Tensor], output: np.ndarray, folder: Path, *, is_exported: bool
) -> None:
    """Saves a network, exports it too where asked for, and compares what comes back."""
    folder.mkdir()
    model.save(folder / "model.keras")
    loaded: Any = keras.models.load_model(folder / "model.keras", safe_mode=True)
    np.testing.assert_allclose(np.asarray(loaded(features, training=False)), output, rtol=1e-5, atol=1e-5)
    if not is_exported:
        return
    module = tf.Module()
    module.network = model
    specs = {name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for name, tensor in features.items()}
    module.answer = tf.function(lambda rows: model(rows, training=False), input_signature=[specs], autograph=False)
    tf.saved_model.save(module, str(folder / "saved_model"))
    restored = tf.saved_model.load(str(folder / "saved_model"))
    np.testing.assert_allclose(restored.answer(features).numpy(), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_a_space_for_images_refuses_a_table(name: str) -> None:
    with pytest.raises(SpaceError, match=f"'{name}' builds networks for images, and the data is a table"):
        load_space(name, TableContext(Task.BINARY, 2, 3, (), NUM_ROWS, 3))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_every_recipe_of_a_portfolio_is_a_point_of_its_space(name: str, kind: str) -> None:
    context = IMAGES[kind]
    space = declare(load_space(name, context))
    recipes = portfolio_of(name, context, seconds=120.0)
    assert recipes
    for recipe in recipes:
        completed = {
            parameter: recipe.get(parameter, space[parameter].fallback)
            for parameter in space.names
            if space.is_active(parameter, recipe)
        }
        space.validate(completed)
        assert set(recipe) <= set(completed)
