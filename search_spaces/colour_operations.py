"""What changes the colours of pictures and leaves every pixel in its place."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

NUM_COLOUR_OPERATIONS = 7
"""Brightness, contrast, colour, sharpness, posterisation, solarisation and automatic contrast."""


def coloured(pixels: Any, chosen: Any, strength: Any) -> Any:
    """Returns pictures, each after the operation of RandAugment that was chosen for it (Cubuk et al., 2020).

    Args:
        pixels: (batch, height, width, channels) float32 in [0, 255].
        chosen: (batch,) number of the operation; any other number leaves the picture as it is.
        strength: (batch,) in [-1, 1]; the sign says brighter or darker, and what has one direction ignores it.
    """
    factor = (1.0 + 0.9 * strength)[:, None, None, None]
    much = tf.abs(strength)[:, None, None, None]
    grey = tf.reduce_mean(pixels, axis=-1, keepdims=True)
    middle = tf.reduce_mean(grey, axis=(1, 2), keepdims=True)
    # Rounded down to multiples of 1 to 16 levels; turned over above a level of 256 to 128.
    step = tf.pow(2.0, tf.round(4.0 * much))
    least = tf.reduce_min(pixels, axis=(1, 2), keepdims=True)
    most = tf.reduce_max(pixels, axis=(1, 2), keepdims=True)
    changed = [
        pixels * factor,
        middle + (pixels - middle) * factor,
        grey + (pixels - grey) * factor,
        _blurred(pixels) + (pixels - _blurred(pixels)) * factor,
        tf.floor(pixels / step) * step,
        tf.where(pixels >= 256.0 - 128.0 * much, 255.0 - pixels, pixels),
        (pixels - least) * 255.0 / tf.maximum(most - least, 1.0),
    ]
    result = pixels
    for number, picture in enumerate(changed):
        result = tf.where((chosen == number)[:, None, None, None], picture, result)
    return tf.clip_by_value(result, 0.0, 255.0)


def jittered(pixels: Any, most: float, seed: Any) -> Any:
    """Returns pictures with another brightness, contrast and, where they have colours, saturation.

    Args:
        pixels: (batch, height, width, channels) float32 in [0, 255].
        most: Each of the three is multiplied by a number in [1 - most, 1 + most].
        seed: (2,) integers.
    """
    factors = tf.random.stateless_uniform((tf.shape(pixels)[0], 3), seed, 1.0 - most, 1.0 + most)
    brightness, contrast, saturation = (factors[:, place, None, None, None] for place in range(3))
    pixels = pixels * brightness
    middle = tf.reduce_mean(pixels, axis=(1, 2, 3), keepdims=True)
    pixels = middle + (pixels - middle) * contrast
    if pixels.shape[-1] == 3:
        grey = tf.reduce_mean(pixels, axis=-1, keepdims=True)
        pixels = grey + (pixels - grey) * saturation
    return tf.clip_by_value(pixels, 0.0, 255.0)


def _blurred(pixels: Any) -> Any:
    """Returns the mean of each pixel and its eight neighbours."""
    return tf.nn.avg_pool2d(pixels, 3, 1, "SAME")
