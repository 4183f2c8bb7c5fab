from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from pipelines.schema import Task
from search_spaces.augmentation import augment, declare_augmentation
from search_spaces.image_context import ImageContext

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

CONTEXT = ImageContext(Task.MULTICLASS, 4, 12, 10, 3, num_training_rows=64, max_epochs=3)
RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (16, 12, 10, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 4, (16, 1)).astype(np.int32)

EVERYTHING: dict[str, Any] = {
    "augmentation": "randaugment",
    "num_operations": 2,
    "magnitude": 0.7,
    "shift": 0.125,
    "flip": True,
    "erasing": 0.5,
    "mixing": "cutmix",
    "mixing_alpha": 0.4,
}


def changed(
    configuration: Mapping[str, Any], *, seed: tuple[int, int] = (1, 2), images: np.ndarray = IMAGES
) -> tuple[np.ndarray, np.ndarray]:
    change = augment(configuration, CONTEXT)
    assert change is not None
    pictures, labels = change(tf.constant(images), tf.constant(LABELS), tf.constant(seed))
    return pictures.numpy(), labels.numpy()


def test_the_same_seed_changes_a_batch_in_the_same_way_and_another_one_in_another() -> None:
    first, second, other = (changed(EVERYTHING, seed=seed) for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != other[0]).any()
    assert first[0].shape == IMAGES.shape
    assert first[0].dtype == np.uint8


def test_a_pipeline_that_starts_later_sees_the_pictures_that_it_would_have_seen() -> None:
    change = augment({"augmentation": "light", "shift": 0.125, "erasing": 0.5}, CONTEXT)
    assert change is not None

    def batches(first: int) -> list[np.ndarray]:
        numbers = tf.data.Dataset.range(first, 4, output_type=tf.int32)
        return [
            pictures.numpy() for pictures, _ in numbers.map(lambda n: change(IMAGES, LABELS, tf.stack([5, n])))
        ]

    for whole, resumed in zip(batches(0)[2:], batches(2), strict=True):
        np.testing.assert_array_equal(whole, resumed)


def test_nothing_to_do_is_no_function() -> None:
    assert augment({}, CONTEXT) is None
    assert augment({"augmentation": "none", "mixing": "none"}, CONTEXT) is None


def test_a_flip_mirrors_whole_pictures_and_leaves_the_others_alone() -> None:
    pictures, labels = changed({"augmentation": "light", "flip": True})
    mirrored = [bool((picture == image[:, ::-1]).all()) for picture, image in zip(pictures, IMAGES, strict=True)]
    same = [bool((picture == image).all()) for picture, image in zip(pictures, IMAGES, strict=True)]
    assert any(mirrored)
    assert any(same)
    assert all(one or other for one, other in zip(mirrored, same, strict=True))
    np.testing.assert_array_equal(labels, LABELS)


def test_a_shift_is_by_whole_pixels() -> None:
    pictures, _ = changed({"augmentation": "light", "shift": 0.125})
    for picture, image in zip(pictures, IMAGES, strict=True):
        moved = [
            bool((picture[1:-1, 1:-1] == np.roll(image, (y, x), (0, 1))[1:-1, 1:-1]).all())
            for y in (-2, -1, 0, 1, 2)
            for x in (-1, 0, 1)
        ]
        # A move by two rows leaves one row of the edge inside.
        inner = [
            bool((picture[2:-2, 2:-2] == np.roll(image, (y, x), (0, 1))[2:-2, 2:-2]).all())
            for y in (-2, -1, 0, 1, 2)
            for x in (-1, 0, 1)
        ]
        assert any(moved) or any(inner)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_mixed_labels_are_shares_of_the_classes_in_the_picture(mixing: str) -> None:
    # A picture is as bright as its class: what it shows of each class can be read off.
    images = np.broadcast_to(LABELS[:, :, None, None] * 60, IMAGES.shape).astype(np.uint8)
    pictures, labels = changed({"mixing": mixing, "mixing_alpha": 1.0}, images=images)
    assert labels.shape == (16, 4)
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(pictures.mean(axis=(1, 2, 3)) / 60, labels @ np.arange(4), atol=0.02)
    assert ((labels > 0.01) & (labels < 0.99)).any()


def test_erasing_leaves_most_of_a_picture_and_some_pictures_whole() -> None:
    pictures, _ = changed({"augmentation": "light", "erasing": 0.5})
    share = (pictures != IMAGES).mean(axis=(1, 2, 3))
    assert (share == 0.0).any()
    assert (share > 0.0).any()
    assert share.max() < 0.5


@pytest.mark.parametrize("seed", range(6))
def test_randaugment_keeps_the_range_of_pixels_whatever_it_draws(seed: int) -> None:
    pictures, _ = changed({"augmentation": "randaugment", "num_operations": 3, "magnitude": 1.0}, seed=(seed, 0))
    assert pictures.dtype == np.uint8
    assert (pictures != IMAGES).any()


def test_what_a_flip_would_make_another_sign_of_is_never_flipped() -> None:
    digits = ImageContext(Task.MULTICLASS, 10, 8, 8, 1, num_training_rows=64, max_epochs=3, may_flip=False)
    hp = keras_tuner.HyperParameters()
    declare_augmentation(hp, digits)
    assert "flip" not in {parameter.name for parameter in hp.space}
    change = augment({"augmentation": "light", "flip": True}, digits)
    assert change is not None
    images = tf.constant(RNG.integers(0, 256, (16, 8, 8, 1)).astype(np.uint8))
    np.testing.assert_array_equal(change(images, tf.constant(LABELS), tf.constant((1, 2)))[0], images)


def test_values_are_not_mixed() -> None:
    values = ImageContext(Task.REGRESSION, 0, 8, 8, 1, num_training_rows=64, max_epochs=3)
    hp = keras_tuner.HyperParameters()
    declare_augmentation(hp, values)
    assert "mixing" not in {parameter.name for parameter in hp.space}
