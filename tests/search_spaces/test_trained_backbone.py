from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.training.declaration import declare, hyperparameters
from pipelines.schema import Task
from search_spaces.backbones import BACKBONES, backbones_with_weights
from search_spaces.catalogue import SpaceError
from search_spaces.cnn import CNNSpace
from search_spaces.image_context import ImageContext
from search_spaces.pretrained import TrainedBackboneSpace, pretrained_space
from search_spaces.trained_backbone import PREFIX, load_backbone, sized
from search_spaces.user_space import load_space

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

EARLIER = ImageContext(Task.MULTICLASS, 4, 8, 8, 1, 32, 3, pixel_mean=(60.0,), pixel_deviation=(50.0,), num_numeric=2)
LATER = ImageContext(Task.MULTICLASS, 3, 8, 8, 1, num_training_rows=32, max_epochs=5)
RNG = np.random.default_rng(5)
IMAGES = tf.constant(RNG.integers(0, 256, (8, 8, 8, 1)).astype(np.uint8))
NUMBERS = tf.constant(RNG.normal(size=(8, 2)).astype(np.float32))
LABELS = tf.constant(RNG.integers(0, 3, (8, 1)).astype(np.int32))


@pytest.fixture(name="earlier", scope="module")
def earlier_fixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, keras.Model]:
    """A small network on images joined with two numbers, and its file."""
    values: dict[str, Any] = {"block": "plain", "num_stages": 2, "width": 8, "squeeze_excite": True, "dropout": 0.2}
    model = CNNSpace(EARLIER).build(hyperparameters(values))
    model.train_step(({"image": IMAGES, "numeric": NUMBERS}, LABELS))
    file = tmp_path_factory.mktemp("earlier") / "model.keras"
    model.save(file)
    return str(file), model


def built(file: str, **values: Any) -> tuple[keras.Model, Any]:
    """Returns a network of 10 steps, two an epoch, and the backbone in it."""
    space = load_space("pretrained", replace(LATER, backbone=file))
    hp = hyperparameters({"batch_size": 16, "dropout": 0.0, "schedule": "constant", **values})
    model = space.build(hp)
    return model, model.get_layer(PREFIX)


def seen_by(model: keras.Model) -> np.ndarray:
    """What the earlier network sees in images before the other columns join it, dropout aside."""
    seen = model.get_layer("joined").input[0]
    return np.asarray(keras.Model(model.inputs, seen)({"image": IMAGES, "numeric": NUMBERS}, training=False))


def test_a_backbone_sees_what_the_network_saw_before_its_head(earlier: tuple[str, keras.Model]) -> None:
    file, model = earlier
    found = np.asarray(load_backbone(file)(IMAGES, training=False))
    np.testing.assert_allclose(found, seen_by(model), atol=1e-6)
    assert np.abs(found).max() > 0.0


def test_a_search_begins_with_the_network_where_one_is_named(earlier: tuple[str, keras.Model]) -> None:
    space = pretrained_space(replace(LATER, backbone=earlier[0]))
    assert isinstance(space, TrainedBackboneSpace)
    assert {"fine_tuning", "backbone_rate", "dropout"} <= set(declare(space).names)
    assert not {"backbone", "side", "pooling"} & set(declare(space).names)


def test_what_is_built_on_a_backbone_can_be_saved_and_be_one_again(
    earlier: tuple[str, keras.Model], tmp_path: Path
) -> None:
    first, _ = built(earlier[0], fine_tuning="frozen", dropout=0.3)
    first.save(tmp_path / "first.keras")
    second, backbone = built(str(tmp_path / "first.keras"), fine_tuning="staged")
    np.testing.assert_allclose(np.asarray(backbone(IMAGES)), np.asarray(load_backbone(earlier[0])(IMAGES)), atol=1e-6)
    paths = [variable.path for variable in second.trainable_variables]
    assert len(set(paths)) == len(paths)
    assert sum(path.startswith("head/") for path in paths) == 2


def test_the_head_learns_alone_and_the_top_of_the_backbone_follows(earlier: tuple[str, keras.Model]) -> None:
    model, backbone = built(earlier[0], fine_tuning="staged", frozen_share=0.2, learning_rate=1e-2)
    free = backbone.trainable_variables
    assert all(path.startswith(f"{PREFIX}_") for path in model.optimizer.factors)
    assert model.optimizer._factor("head/kernel") == 1.0
    start = [np.asarray(variable) for variable in free]
    still = [np.asarray(variable) for variable in backbone.non_trainable_variables]
    head = np.asarray(model.get_layer("head").kernel)
    for done, moves in ((0, False), (4, True)):
        model.optimizer.iterations.assign(done)
        model.train_step(({"image": IMAGES}, LABELS))
        changed = [bool((old != np.asarray(new)).any()) for old, new in zip(start, free, strict=True)]
        assert not changed[0]
        assert changed[-1] is moves
    assert (np.asarray(model.get_layer("head").kernel) != head).any()
    for old, new in zip(still, backbone.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


def test_a_frozen_backbone_leaves_the_head_alone_to_learn(earlier: tuple[str, keras.Model]) -> None:
    model, _ = built(earlier[0], fine_tuning="frozen")
    assert [variable.path for variable in model.trainable_variables] == ["head/kernel", "head/bias"]


def test_images_of_another_size_are_brought_to_the_one_it_knows(earlier: tuple[str, keras.Model]) -> None:
    backbone = load_backbone(earlier[0])
    larger = keras.Input((12, 10, 1), dtype="uint8")
    found = keras.Model(larger, sized(larger, backbone))(tf.fill((2, 12, 10, 1), tf.constant(77, tf.uint8)))
    assert found.dtype == tf.uint8
    np.testing.assert_array_equal(np.asarray(found), np.full((2, 8, 8, 1), 77))


def test_images_with_other_channels_are_refused(earlier: tuple[str, keras.Model]) -> None:
    message = r"the images have 3 channels and the backbone has learned from 1: expected equal ones, see the setting"
    with pytest.raises(SpaceError, match=message):
        sized(keras.Input((8, 8, 3), dtype="uint8"), load_backbone(earlier[0]))


def test_a_network_without_images_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "table.keras")
    message = r"the network of the earlier run cannot be a backbone: expected one that takes images and ends with a D"
    with pytest.raises(SpaceError, match=message):
        load_backbone(str(tmp_path / "table.keras"))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(SpaceError, match=r"cannot load the backbone model\.keras: "):
        load_backbone(str(tmp_path / "model.keras"))


def test_a_file_of_weights_is_known_by_its_name() -> None:
    known = BACKBONES["resnet50_v2"].file
    assert backbones_with_weights(f"/weights/{known}") == ["resnet50_v2"]
    with pytest.raises(SpaceError, match=r"other\.h5 is no file of weights that is known: expected one of weights_mob"):
        backbones_with_weights("/weights/other.h5")
