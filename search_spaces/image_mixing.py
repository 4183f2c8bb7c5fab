"""Two pictures in one, with both labels: MixUp and CutMix."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import tensorflow as tf


class Mixing(StrEnum):
    """How two pictures become one."""

    NONE = "none"
    MIXUP = "mixup"
    CUTMIX = "cutmix"


def mixed(images: Any, targets: Any, mixing: Mixing, *, alpha: float, seed: Any) -> tuple[Any, Any]:
    """Returns each picture mixed with another one of the batch, and the targets mixed in the same shares.

    Args:
        images: (batch, height, width, channels) float32.
        targets: (batch, width) float32.
        mixing: MIXUP (Zhang et al., ICLR 2018) or CUTMIX (Yun et al., ICCV 2019).
        alpha: Shares follow a Beta(alpha, alpha) distribution; above 0.
        seed: (2,) integers.
    """
    shape = tf.shape(images)
    gamma_seed, other_seed, place_seed = tf.unstack(tf.random.split(seed, 3))
    # Two gamma variables make a beta variable; float64, as a small alpha makes both vanish in float32.
    pair = tf.random.stateless_gamma((shape[0], 2), gamma_seed, tf.constant(alpha, tf.float64), dtype=tf.float64)
    share = tf.cast((pair[:, 0] + 1e-300) / (tf.reduce_sum(pair, axis=1) + 2e-300), tf.float32)
    # Batches are drawn at random: a turn by any number of places is as good as a new order.
    turn = tf.random.stateless_uniform((), other_seed, 0, shape[0], dtype=tf.int32)
    others, other_targets = tf.roll(images, turn, axis=0), tf.roll(targets, turn, axis=0)
    if mixing is Mixing.CUTMIX:
        side = tf.sqrt(1.0 - share)
        place = tf.random.stateless_uniform((shape[0], 2), place_seed)
        inside = rectangle(shape, height=side, width=side, place=place)
        images = tf.where(inside[..., None], others, images)
        # What lies outside the picture was not pasted: the share is that of the pixels.
        share = 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))
    else:
        weight = share[:, None, None, None]
        images = weight * images + (1.0 - weight) * others
    weight = share[:, None]
    return images, weight * targets + (1.0 - weight) * other_targets


def rectangle(shape: Any, *, height: Any, width: Any, place: Any) -> Any:
    """Returns which pixels lie in a rectangle of each picture, (batch, height, width) of truth values.

    Args:
        shape: Of the images.
        height: (batch,) height of the rectangles, as share of the picture's.
        width: (batch,) width, as share of the picture's.
        place: (batch, 2) centre, as shares of height and width; what lies outside is cut off.
    """
    rows = (tf.cast(tf.range(shape[1]), tf.float32) + 0.5) / tf.cast(shape[1], tf.float32)
    columns = (tf.cast(tf.range(shape[2]), tf.float32) + 0.5) / tf.cast(shape[2], tf.float32)
    in_rows = tf.abs(rows[None, :] - place[:, :1]) < height[:, None] / 2.0
    in_columns = tf.abs(columns[None, :] - place[:, 1:]) < width[:, None] / 2.0
    return in_rows[:, :, None] & in_columns[:, None, :]
