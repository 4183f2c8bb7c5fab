"""What training images are changed by, from one batch to the next: searched like the rest of a space.

Every number is drawn from a seed that the caller passes, and nothing else: a trial that is resumed sees the pictures
that it would have seen. Keras' own augmentation layers draw from a generator inside them, whose state a `tf.data`
pipeline neither saves nor restores, and choose one operation for a whole batch; so what they do is done here with
TensorFlow's stateless functions, an operation for each picture. All geometry of a picture is one resampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras_tuner
import tensorflow as tf

from pipelines.schema import Task
from search_spaces.colour_operations import NUM_COLOUR_OPERATIONS, coloured, jittered
from search_spaces.image_context import ImageContext
from search_spaces.image_mixing import Mixing, mixed, rectangle

Value: TypeAlias = bool | int | float | str
Augment: TypeAlias = Callable[[Any, Any, Any], tuple[Any, Any]]

NONE, LIGHT, RANDAUGMENT = "none", "light", "randaugment"

NUM_GEOMETRIC_OPERATIONS = 5
"""Shears and translations along both axes, and rotation."""

MAX_ROTATION, MAX_SHEAR, MAX_TRANSLATION = 0.5236, 0.3, 0.3
"""At a magnitude of 1: 30 degrees in radians, a tangent, and a share of the side (Cubuk et al., 2020)."""


def declare_augmentation(hp: keras_tuner.HyperParameters, context: ImageContext) -> None:
    """Declares which changes of a training image are tried; only such that leave its label what it is.

    Args:
        hp: Receives the parameters.
        context: The images: whether they may be flipped, and whether labels can be mixed.
    """
    hp.Choice("augmentation", [NONE, LIGHT, RANDAUGMENT], default=LIGHT)
    with hp.conditional_scope("augmentation", [LIGHT, RANDAUGMENT]):
        hp.Choice("shift", [0.0, 0.0625, 0.125], default=0.125, ordered=True)
        hp.Choice("erasing", [0.0, 0.25, 0.5], default=0.0, ordered=True)
        if context.may_flip:
            hp.Boolean("flip", default=True)
    with hp.conditional_scope("augmentation", [LIGHT]):
        hp.Choice("jitter", [0.0, 0.1, 0.2, 0.4], default=0.1, ordered=True)
    with hp.conditional_scope("augmentation", [RANDAUGMENT]):
        hp.Int("num_operations", 1, 3, default=2)
        hp.Float("magnitude", 0.1, 1.0, default=0.5)
    if context.task.is_classification:
        hp.Choice("mixing", [kind.value for kind in Mixing], default=Mixing.NONE.value)
        with hp.conditional_scope("mixing", [Mixing.MIXUP.value, Mixing.CUTMIX.value]):
            hp.Choice("mixing_alpha", [0.1, 0.2, 0.4, 1.0], default=0.2, ordered=True)


def augment(configuration: Mapping[str, Value], context: ImageContext) -> Augment | None:
    """Returns what changes the batches of a training as a configuration asks for; None for nothing.

    The function takes images (batch, height, width, channels) uint8, labels (batch, 1) class ids or (batch, width)
    numbers, and a seed (2,) of integers, which should be another one for every batch of every epoch. It returns images
    of the same shape and type. Labels come back as they are, unless pictures are mixed: then as the mixed targets,
    float32 (batch, 1) for two classes, (batch, num_classes) for more and (batch, num_labels) for several labels.

    Args:
        configuration: Active parameters of a space; what is missing is not done.
        context: The images.
    """
    kind = configuration.get("augmentation", NONE)
    mixing = Mixing(str(configuration.get("mixing", Mixing.NONE)))
    if kind == NONE and mixing is Mixing.NONE:
        return None
    alpha = float(configuration.get("mixing_alpha", 0.2))

    def changed(images: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
        # Random bits of an operation depend on its place here, and on nothing that another one drew.
        seeds = [tf.random.experimental.stateless_fold_in(seed, place) for place in range(4)]
        pixels = tf.cast(images, tf.float32)
        if kind != NONE:
            pixels = _changed_one_by_one(pixels, configuration, context, seeds[:3])
        if mixing is not Mixing.NONE:
            pixels, labels = mixed(pixels, _as_numbers(labels, context), mixing, alpha=alpha, seed=seeds[3])
        return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), images.dtype), labels

    return changed


def _changed_one_by_one(
    pixels: Any, configuration: Mapping[str, Value], context: ImageContext, seeds: list[Any]
) -> Any:
    """Returns pictures that are changed each by itself, float32 in about [0, 255]."""
    num_images = tf.shape(pixels)[0]
    shift = float(configuration.get("shift", 0.0))
    geometry = _Geometry(num_images, context)
    draw = tf.random.stateless_uniform((num_images, 3), seeds[0], -1.0, 1.0)
    if shift:
        # Whole pixels: a shift alone then changes no pixel's value.
        geometry.translate(
            tf.round(draw[:, 0] * shift * context.width), tf.round(draw[:, 1] * shift * context.height)
        )
    if context.may_flip and configuration.get("flip", False):
        geometry.flip(draw[:, 2] > 0.0)
    rounds: list[tuple[Any, Any]] = []
    if configuration.get("augmentation") == RANDAUGMENT:
        magnitude = float(configuration.get("magnitude", 0.5))
        num_choices = NUM_GEOMETRIC_OPERATIONS + NUM_COLOUR_OPERATIONS
        for number in range(int(configuration.get("num_operations", 2))):
            chosen_seed, sign_seed = tf.unstack(tf.random.split(
                tf.random.experimental.stateless_fold_in(seeds[1], number)
            ))
            chosen = tf.random.stateless_uniform((num_images,), chosen_seed, 0, num_choices, dtype=tf.int32)
            sign = tf.sign(tf.random.stateless_uniform((num_images,), sign_seed, -1.0, 1.0))
            geometry.apply(chosen, magnitude * sign)
            rounds.append((chosen - NUM_GEOMETRIC_OPERATIONS, magnitude * sign))
    pixels = geometry.resample(pixels)
    for chosen, strength in rounds:
        pixels = coloured(pixels, chosen, strength)
    jitter = float(configuration.get("jitter", 0.0))
    if configuration.get("augmentation") == LIGHT and jitter:
        pixels = jittered(pixels, jitter, seeds[1])
    erasing = float(configuration.get("erasing", 0.0))
    return _erased(pixels, erasing, seeds[2]) if erasing else pixels


class _Geometry:
    """The map from a place in the changed picture to one in the picture itself, for each picture of a batch."""

    def __init__(self, num_images: Any, context: ImageContext) -> None:
        self._height, self._width = context.height, context.width
        self._map = tf.eye(3, batch_shape=[num_images])
        self._is_used = False

    def translate(self, x: Any, y: Any) -> None:
        """Moves by so many pixels."""
        self._then(x=x, y=y)

    def flip(self, chosen: Any) -> None:
        """Mirrors the chosen pictures, left to right."""
        self._then(scale=tf.where(chosen, -1.0, 1.0))

    def apply(self, chosen: Any, strength: Any) -> None:
        """Applies operation `chosen` (batch,) of RandAugment with a signed `strength` (batch,) in [-1, 1]."""
        amounts = [tf.where(chosen == number, strength, 0.0) for number in range(NUM_GEOMETRIC_OPERATIONS)]
        self._then(
            shear_x=amounts[0] * MAX_SHEAR,
            shear_y=amounts[1] * MAX_SHEAR,
            x=tf.round(amounts[2] * MAX_TRANSLATION * self._width),
            y=tf.round(amounts[3] * MAX_TRANSLATION * self._height),
            angle=amounts[4] * MAX_ROTATION,
        )

    def resample(self, pixels: Any) -> Any:
        """Returns the changed pictures; what comes from outside is the nearest pixel of the edge."""
        if not self._is_used:
            return pixels
        x, y = (self._width - 1) / 2.0, (self._height - 1) / 2.0
        to_middle = tf.constant([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])
        from_middle = tf.constant([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
        flat = tf.reshape(from_middle @ self._map @ to_middle, (-1, 9))[:, :8]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=flat,
            output_shape=tf.constant([self._height, self._width]),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )

    def _then(
        self,
        *,
        x: Any = 0.0,
        y: Any = 0.0,
        angle: Any = 0.0,
        shear_x: Any = 0.0,
        shear_y: Any = 0.0,
        scale: Any = 1.0,
    ) -> None:
        """Puts one more step behind the others; each number is one for all pictures or (batch,)."""
        self._is_used = True
        zeros = tf.zeros(tf.shape(self._map)[:1])
        x, y, angle, shear_x, shear_y, scale = (zeros + number for number in (x, y, angle, shear_x, shear_y, scale))
        cosine, sine = tf.cos(angle), tf.sin(angle)
        rows = [
            [scale * cosine, shear_x - sine, x],
            [shear_y + sine, cosine, y],
            [zeros, zeros, zeros + 1.0],
        ]
        step = tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)
        self._map = self._map @ step


def _erased(pixels: Any, share: float, seed: Any) -> Any:
    """Returns pictures of which a share has a rectangle of noise (Zhong et al., AAAI 2020)."""
    shape = tf.shape(pixels)
    place_seed, noise_seed = tf.unstack(tf.random.split(seed))
    draw = tf.random.stateless_uniform((shape[0], 5), place_seed)
    # Areas of 2 % to 33 % of the picture, up to three times as wide as high or the other way round.
    area, aspect = 0.02 + 0.31 * draw[:, 0], tf.exp((2.0 * draw[:, 1] - 1.0) * tf.math.log(3.0))
    height, width = tf.sqrt(area / aspect), tf.sqrt(area * aspect)
    inside = rectangle(shape, height=height, width=width, place=draw[:, 2:4]) & (draw[:, 4] < share)[:, None, None]
    noise = tf.random.stateless_uniform(shape, noise_seed, 0.0, 255.0)
    return tf.where(inside[..., None], noise, pixels)


def _as_numbers(labels: Any, context: ImageContext) -> Any:
    """Returns labels as targets that can be mixed, float32."""
    if context.task is Task.MULTICLASS and labels.shape[-1] == 1:
        return tf.one_hot(tf.cast(labels[:, 0], tf.int32), context.num_classes)
    return tf.cast(labels, tf.float32)
