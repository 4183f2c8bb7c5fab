"""One training step of every optimizer a pack's members may have, as tensors (TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import tensorflow as tf


def flatten(block: tf.Tensor) -> tf.Tensor:
    """Returns a block with everything of a member in one row."""
    shape = tf.shape(block)
    # Not -1, which a block without members leaves undecided.
    return tf.reshape(block, tf.stack([shape[0], tf.reduce_prod(shape[1:])]))


def learning_rate(settings: Mapping[str, tf.Tensor], steps: tf.Tensor) -> tf.Tensor:
    """Returns the rate of every member at step `steps` (from 0): its peak, or `WarmupCosine`, (num_members,)."""
    peak, total, warmup = settings["peak"], settings["total_steps"], settings["warmup_steps"]
    done = tf.clip_by_value((steps - warmup) / (total - warmup), 0.0, 1.0)
    rate = 0.5 * peak * (1.0 + tf.cos(3.141592653589793 * done))
    start = peak / tf.maximum(warmup, 1.0)
    warming = tf.minimum(rate, start + (peak - start) * steps / tf.maximum(warmup, 1.0))
    rate = tf.where(warmup > 0.0, warming, rate)
    return tf.where(settings["cosine"] > 0.0, rate, peak)


@final
class Update:
    """One formula for three optimizers, with coefficients that make it the member's own.

    ``first' = a * first + b * g``, ``second' = c * second + d * g^2`` and
    ``w' = h * w + (p * first' + q * g) / (sqrt(second' + e) + f)``, with the clipping of ``g`` inside ``b``, ``d``
    and ``q``: for AdamW p is its step size, for RMSprop only q counts, for SGD with Nesterov's momentum the
    denominator is one.
    """

    def __init__(
        self, settings: Mapping[str, tf.Tensor], steps: tf.Tensor, rate: tf.Tensor, *, clip: tf.Tensor
    ) -> None:
        adamw, rmsprop, sgd = settings["adamw"], settings["rmsprop"], settings["sgd"]
        momentum = settings["momentum"]
        beta_1, beta_2 = tf.constant(0.9), tf.constant(0.999)
        count = steps + 1.0
        size = rate * tf.sqrt(1.0 - tf.pow(beta_2, count)) / (1.0 - tf.pow(beta_1, count))
        self._coefficients = {
            "a": adamw * 0.9 + sgd * momentum,
            "b": (adamw * (1.0 - 0.9) - sgd * rate) * clip,
            "c": adamw * 0.999 + rmsprop * 0.9,
            "d": (adamw * (1.0 - 0.999) + rmsprop * (1.0 - 0.9)) * tf.square(clip),
            "e": rmsprop * 1e-7 + sgd,
            "f": adamw * 1e-8,
            "h": 1.0 - rate * settings["decay"],
            "p": sgd * momentum - adamw * size,
            "q": -(rmsprop + sgd) * rate * clip,
        }

    def applied(
        self, parts: tuple[tf.Tensor, ...], of: tf.Tensor | None, *, decayed: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns new weights, first and second moments of a block whose members are `of` (all if None).

        Args:
            parts: Weights, moments, gradient and its square.
            of: The members.
            decayed: Whether weight decay applies.
        """
        shape = tf.shape(parts[0])
        weights, first, second, gradient, square = (flatten(part) for part in parts)
        own = {
            name: (value if of is None else tf.gather(value, of))[:, tf.newaxis]
            for name, value in self._coefficients.items()
        }
        first = own["a"] * first + own["b"] * gradient
        second = own["c"] * second + own["d"] * square
        moved = (own["p"] * first + own["q"] * gradient) / (tf.sqrt(second + own["e"]) + own["f"])
        weights = (own["h"] * weights if decayed else weights) + moved
        new_weights, new_first, new_second = (tf.reshape(part, shape) for part in (weights, first, second))
        return new_weights, new_first, new_second
