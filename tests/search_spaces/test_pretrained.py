from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.training.declaration import declare, hyperparameters
from pipelines.schema import Task
from search_spaces.backbones import BACKBONES
from search_spaces.catalogue import SpaceError
from search_spaces.image_context import ImageContext
from search_spaces.pretrained import PretrainedSpace, RandomBackboneSpace

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

CONTEXT = ImageContext(Task.MULTICLASS, 3, 12, 12, 1, num_training_rows=32, max_epochs=5)
SMALL = "mobilenet_v3_small"
RNG = np.random.default_rng(4)
IMAGES = {"image": tf.constant(RNG.integers(0, 256, (8, 12, 12, 1)).astype(np.uint8))}
LABELS = tf.constant(RNG.integers(0, 3, (8, 1)).astype(np.int32))


@pytest.fixture(name="weights", scope="module")
def weights_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[np.ndarray]]:
    """A file of weights where Keras keeps such, of a network with random ones; returns these."""
    home = tmp_path_factory.mktemp("keras")
    (home / "models").mkdir()
    model = BACKBONES[SMALL].build(include_top=False, weights=None, input_shape=(32, 32, 3))
    model.save(home / "models" / BACKBONES[SMALL].file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(home))
        yield [np.asarray(variable) for variable in model.variables]


def built(**values: Any) -> tuple[keras.Model, keras.Model]:
    """Returns a network of 10 steps, two an epoch, and the backbone in it."""
    hp = hyperparameters({"batch_size": 16, "side": 32, "dropout": 0.0, "schedule": "constant", **values})
    model = PretrainedSpace(CONTEXT).build(hp)
    (backbone,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return model, backbone


def moved(before: list[np.ndarray], variables: list[Any]) -> list[bool]:
    return [bool((old != np.asarray(new)).any()) for old, new in zip(before, variables, strict=True)]


def test_without_weights_it_is_said_which_files_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    message = r"no pretrained weights in .*models: expected at least one of weights_mobilenet_v3.*--space backbone"
    with pytest.raises(SpaceError, match=message):
        PretrainedSpace(CONTEXT)


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / BACKBONES[SMALL].file).write_bytes(b"nothing")
    with pytest.raises(SpaceError, match=r"cannot read the weights of mobilenet_v3_small from .*models"):
        built()


def test_only_backbones_whose_weights_are_here_are_searched(weights: list[np.ndarray]) -> None:
    del weights
    space = declare(PretrainedSpace(CONTEXT))
    assert space["backbone"].fallback == SMALL
    assert space["backbone"].num_values == 1


def test_a_backbone_begins_with_its_weights_and_thaws_from_the_top(weights: list[np.ndarray]) -> None:
    model, backbone = built(frozen_share=0.2)
    for variable, expected in zip(backbone.variables, weights, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), expected)
    trained, statistics = backbone.trainable_variables, backbone.non_trainable_variables
    start = [np.asarray(variable) for variable in trained]
    still = [np.asarray(variable) for variable in statistics]
    head = np.asarray(model.get_layer("head").kernel)
    third = len(trained) // 3
    # Ten steps in all: the top third is free from step 2 on, the middle from 4, the rest from 6.
    for done, free in ((0, 0), (4, 2)):
        model.optimizer.iterations.assign(done)
        model.train_step((IMAGES, LABELS))
        found = moved(start, trained)
        assert not any(found[: len(found) - free * third - 2])
        # Squeezes of a map of one pixel have no gradients.
        assert free == 0 or np.mean(found[len(found) - free * third :]) > 0.5
    assert (np.asarray(model.get_layer("head").kernel) != head).any()
    assert not any(moved(still, statistics))


def test_a_frozen_backbone_has_no_gradients_and_the_head_learns(weights: list[np.ndarray]) -> None:
    model, backbone = built(fine_tuning="frozen")
    assert [variable.path.split("/")[0] for variable in model.trainable_variables] == ["head", "head"]
    model.train_step((IMAGES, LABELS))
    for variable, expected in zip(backbone.variables, weights, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), expected)


def test_preprocessing_is_in_the_graph_and_grey_images_get_three_channels() -> None:
    space = RandomBackboneSpace(CONTEXT)
    image = keras.Input((12, 12, 1), dtype="uint8")
    hp = hyperparameters({"backbone": "resnet50_v2", "side": 32})
    model = keras.Model(image, space.pixels(image, hp))
    white = np.asarray(model(tf.fill((1, 12, 12, 1), tf.constant(255, tf.uint8))))
    assert white.shape == (1, 32, 32, 3)
    np.testing.assert_allclose(white, 1.0, atol=1e-5)
