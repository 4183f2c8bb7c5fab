"""The layers of a pack on activations (num_members, batch, width), with their gradients written out (TensorFlow).

Members differ in normalisation and activation, and stand in the order of both, so that those of a kind are neighbours:
a part of a stack is looked at without a copy, and no kind is computed for members that do not have it. Gradients are
written out because a pass over the activations costs more than a product at the sizes that packs are for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

NORMALISATIONS = ("none", "batch", "layer")
ACTIVATIONS = ("relu", "leaky_relu", "gelu")
"""Members stand in the order of these two, the first one first."""

EPSILON = 1e-5
"""Of both normalisations in `search_spaces.tabular`."""

NEGATIVE_SLOPE = 0.2
"""Of Keras' ``leaky_relu``."""

Gradients = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a hidden layer has to know beside its weights.

    Attributes:
        counts: Members of every kind, (9,) int32, in the order of `NORMALISATIONS` and `ACTIVATIONS`.
        mask: 1 where a member has a unit, (num_members, 1, width).
        rate: Dropout of every member, (num_members, 1, 1).
        noise: (batch, width) uniform in [0, 1), or None without dropout. It is the same for all members: each drops at
            its own rate, and two that differ in something else are compared under the same noise.
        moments: Moving mean and variance (num_batch, 2, width) to normalise with, or None for the batch's.
    """

    counts: tf.Tensor
    mask: tf.Tensor
    rate: tf.Tensor
    noise: tf.Tensor | None
    moments: tf.Tensor | None


def permute(x: tf.Tensor, order: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
    """Returns the members of `x` in another order, of which `inverse` is the way back."""

    @tf.custom_gradient
    def permuted(x: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        return tf.gather(x, order), lambda upstream: tf.gather(upstream, inverse)

    return permuted(x)


def hidden_layer(
    y: tf.Tensor, bias: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, scene: Scene
) -> tuple[tf.Tensor, tf.Tensor]:
    """Normalises, drops and activates: what follows the product in a layer of `search_spaces.tabular.MLPSpace`.

    Args:
        y: The product, (num_members, batch, width), zero where a member is narrower.
        bias: (num_members, 1, width), zero where there is batch normalisation.
        scale: (num_members, 1, width).
        shift: (num_members, 1, width).
        scene: The rest.

    Returns:
        The same shape, and mean and variance of the batch (num_batch, 2, width).
    """
    counts = scene.counts
    sizes = tf.reduce_sum(tf.reshape(counts, (3, 3)), axis=1)
    factor = tf.ones_like(scene.rate)
    kept: list[Any] = [None] * 3
    if scene.noise is not None:
        # The factor that makes up for what is dropped goes into scale and shift, which are small.
        factor = 1.0 / (1.0 - scene.rate)
        kept = tf.split(tf.cast(scene.noise[tf.newaxis] >= scene.rate, tf.float32), sizes, num=3)
    factors, masks = tf.split(factor, sizes, num=3), tf.split(scene.mask, sizes, num=3)[2]
    units = tf.reduce_sum(masks, axis=2, keepdims=True)

    def drop(part: tf.Tensor, kind: int) -> tf.Tensor:
        return part if kept[kind] is None else part * kept[kind]

    @tf.custom_gradient
    def computed(y: tf.Tensor, bias: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor) -> tuple[Any, Gradients]:
        rows = tf.cast(tf.shape(y)[1], tf.float32)
        split = [tf.split(tensor, sizes, num=3) for tensor in (y, bias, scale, shift)]
        (plain, by_batch, by_layer), biases, scales, shifts = split
        plain = (plain + biases[0]) * factors[0]
        if scene.moments is None:
            mean = tf.reduce_mean(by_batch, axis=1, keepdims=True)
            by_batch = by_batch - mean
            variance = tf.reduce_mean(tf.square(by_batch), axis=1, keepdims=True)
        else:
            mean, variance = tf.split(scene.moments, 2, axis=1)
            by_batch = by_batch - mean
        inverse = tf.math.rsqrt(variance + EPSILON)
        slope = inverse * scales[1] * factors[1]
        by_layer = by_layer + biases[2]
        by_layer = (by_layer - tf.reduce_sum(by_layer, axis=2, keepdims=True) / units) * masks
        row_inverse = tf.math.rsqrt(tf.reduce_sum(tf.square(by_layer), axis=2, keepdims=True) / units + EPSILON)
        by_layer = by_layer * row_inverse
        layer_scale = scales[2] * factors[2]
        normalised = [
            plain,
            by_batch * slope + shifts[1] * factors[1],
            by_layer * layer_scale + shifts[2] * factors[2],
        ]
        parts = [drop(part, kind) for kind, part in enumerate(normalised)]
        entering = [piece for kind, part in enumerate(parts) for piece in _by_activation(part, counts, kind)]
        leaving = [_activated(piece, index % 3) for index, piece in enumerate(entering)]

        def gradient(dz: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pieces = [
                _activation_gradient(upstream, entering[index], leaving[index], index % 3)
                for index, upstream in enumerate(tf.split(dz, counts, num=9))
            ]
            d_plain, d_batch, d_layer = (
                drop(tf.concat(pieces[3 * kind : 3 * kind + 3], axis=0), kind) for kind in range(3)
            )
            d_plain = d_plain * factors[0]
            sum_batch = tf.reduce_sum(d_batch, axis=1, keepdims=True)
            product_batch = tf.reduce_sum(d_batch * by_batch, axis=1, keepdims=True)
            correction = by_batch * (tf.square(inverse) * product_batch / rows)
            dy_batch = (d_batch - correction - sum_batch / rows) * slope
            scale_layer = tf.reduce_sum(d_layer * by_layer, axis=1, keepdims=True) * factors[2]
            shift_layer = tf.reduce_sum(d_layer, axis=1, keepdims=True) * factors[2]
            d_layer = d_layer * layer_scale
            mean_layer = tf.reduce_sum(d_layer, axis=2, keepdims=True) / units
            product_layer = tf.reduce_sum(d_layer * by_layer, axis=2, keepdims=True) / units
            dy_layer = (d_layer - by_layer * product_layer - mean_layer) * (row_inverse * masks)
            none, nothing = tf.zeros_like(biases[0]), tf.zeros_like(biases[1])
            d_bias = [tf.reduce_sum(part, axis=1, keepdims=True) for part in (d_plain, dy_layer)]
            return (
                tf.concat([d_plain, dy_batch, dy_layer], axis=0),
                tf.concat([d_bias[0], nothing, d_bias[1]], axis=0),
                tf.concat([none, product_batch * inverse * factors[1], scale_layer], axis=0),
                tf.concat([none, sum_batch * factors[1], shift_layer], axis=0),
            )

        return (tf.concat(leaving, axis=0), tf.concat([mean, variance], axis=1)), gradient

    found: tuple[tf.Tensor, tf.Tensor] = computed(y, bias, scale, shift)
    return found


def product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns ``x @ kernel`` for every member, (num_members, batch, inputs) and (num_members, inputs, units)."""

    @tf.custom_gradient
    def multiplied(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        # Shapes are known to agree: TensorFlow's own gradient would work out at every step how they broadcast.
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                tf.matmul(upstream, kernel, transpose_b=True),
                tf.matmul(x, upstream, transpose_a=True),
            )

        return tf.matmul(x, kernel), gradient

    return multiplied(x, kernel)


def shared_product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns ``x @ kernel`` for every member where `x` (batch, inputs) is the same for all and needs no gradient."""

    @tf.custom_gradient
    def multiplied(kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.matmul(x[tf.newaxis], upstream, transpose_a=True)

        return tf.matmul(x[tf.newaxis], kernel), gradient

    return multiplied(kernel)


def _by_activation(part: tf.Tensor, counts: tf.Tensor, kind: int) -> list[tf.Tensor]:
    pieces: list[tf.Tensor] = tf.split(part, counts[3 * kind : 3 * kind + 3], num=3)
    return pieces


def _activated(x: tf.Tensor, activation: int) -> tf.Tensor:
    if activation == 0:
        return tf.nn.relu(x)
    if activation == 1:
        return tf.nn.leaky_relu(x, NEGATIVE_SLOPE)
    return x * (0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5)))  # exact, as Keras' default


def _activation_gradient(upstream: tf.Tensor, x: tf.Tensor, z: tf.Tensor, activation: int) -> tf.Tensor:
    if activation == 0:
        return tf.raw_ops.ReluGrad(gradients=upstream, features=z)
    if activation == 1:
        return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=x, alpha=NEGATIVE_SLOPE)
    below = 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))
    density = tf.exp(-0.5 * tf.square(x)) * (1.0 / math.sqrt(2.0 * math.pi))
    return upstream * (below + x * density)
