"""The layers of a pack on activations (num_members, batch, width), with their gradients written out (TensorFlow).

Members differ in normalisation and activation. Each kind is computed for the members that have it and for no others:
they are gathered by their positions and put back, which costs a copy where a masked choice would cost every kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

EPSILON = 1e-5
"""Of both normalisations in `search_spaces.tabular`."""

Gradients = Callable[..., Any]


def take(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns the members of `x` at `positions`, none of them twice."""

    @tf.custom_gradient
    def gathered(x: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        shape = tf.shape(x)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.scatter_nd(positions[:, tf.newaxis], upstream, shape)

        return tf.gather(x, positions), gradient

    return gathered(x)


def put(x: tf.Tensor, positions: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns `x` with the members at `positions` replaced."""
    return tf.tensor_scatter_nd_update(x, positions[:, tf.newaxis], values)


def normalise(
    y: tf.Tensor,
    scale: tf.Tensor,
    shift: tf.Tensor,
    *,
    batch: tf.Tensor,
    layer: tf.Tensor,
    mask: tf.Tensor,
    moments: tuple[tf.Tensor, tf.Tensor] | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Normalises over the batch or over the units, each member as it wants.

    Args:
        y: (num_members, batch, width), zero where a member is narrower.
        scale: (num_members, 1, width).
        shift: (num_members, 1, width).
        batch: Positions of the members with batch normalisation.
        layer: Positions of the members with layer normalisation.
        mask: (num_members, 1, width), 1 where a member has a unit.
        moments: Moving mean and variance (num_batch, 1, width) to use instead of the batch's.

    Returns:
        The same shape, and the batch's moments (num_batch, 2, width).
    """
    layer_mask = tf.gather(mask, layer)
    units = tf.reduce_sum(layer_mask, axis=2, keepdims=True)

    @tf.custom_gradient
    def normalised(y: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor) -> tuple[Any, Gradients]:
        rows = tf.cast(tf.shape(y)[1], tf.float32)
        yb, scale_b, shift_b = tf.gather(y, batch), tf.gather(scale, batch), tf.gather(shift, batch)
        if moments is None:
            mean_b = tf.reduce_mean(yb, axis=1, keepdims=True)
            yb = yb - mean_b
            variance_b = tf.reduce_mean(tf.square(yb), axis=1, keepdims=True)
        else:
            mean_b, variance_b = moments
            yb = yb - mean_b
        inverse_b = tf.math.rsqrt(variance_b + EPSILON)
        zb = yb * (inverse_b * scale_b) + shift_b
        yl, scale_l, shift_l = tf.gather(y, layer), tf.gather(scale, layer), tf.gather(shift, layer)
        yl = (yl - tf.reduce_sum(yl, axis=2, keepdims=True) / units) * layer_mask
        variance_l = tf.reduce_sum(tf.square(yl), axis=2, keepdims=True) / units
        inverse_l = tf.math.rsqrt(variance_l + EPSILON)
        yl = yl * inverse_l
        zl = yl * scale_l + shift_l

        def gradient(dz: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            dzb, dzl = tf.gather(dz, batch), tf.gather(dz, layer)
            shift_gradient_b = tf.reduce_sum(dzb, axis=1, keepdims=True)
            product_b = tf.reduce_sum(dzb * yb, axis=1, keepdims=True)
            correction = yb * (tf.square(inverse_b) * product_b / rows) + shift_gradient_b / rows
            dyb = (dzb - correction) * (inverse_b * scale_b)
            shift_gradient_l = tf.reduce_sum(dzl, axis=1, keepdims=True)
            scale_gradient_l = tf.reduce_sum(dzl * yl, axis=1, keepdims=True)
            dh = dzl * scale_l
            mean = tf.reduce_sum(dh, axis=2, keepdims=True) / units
            product_l = tf.reduce_sum(dh * yl, axis=2, keepdims=True) / units
            dyl = (dh - mean - yl * product_l) * inverse_l * layer_mask
            dy = put(put(dz, batch, dyb), layer, dyl)
            zeros = tf.zeros_like(scale)
            dscale = put(put(zeros, batch, product_b * inverse_b), layer, scale_gradient_l)
            dshift = put(put(zeros, batch, shift_gradient_b), layer, shift_gradient_l)
            return dy, dscale, dshift

        return (put(put(y, batch, zb), layer, zl), tf.concat([mean_b, variance_b], axis=1)), gradient

    found: tuple[tf.Tensor, tf.Tensor] = normalised(y, scale, shift)
    return found


def activate(x: tf.Tensor, slope: tf.Tensor, *, gelu: tf.Tensor) -> tf.Tensor:
    """Returns ``max(x, slope * x)``, and the exact GELU (Hendrycks & Gimpel, 2016) for the members at `gelu`.

    Args:
        x: (num_members, batch, width).
        slope: (num_members, 1, 1) in [0, 1): 0 for ReLU.
        gelu: Positions of the members with GELU.
    """

    @tf.custom_gradient
    def activated(x: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        xg = tf.gather(x, gelu)
        below = 0.5 + 0.5 * tf.math.erf(xg * math.sqrt(0.5))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            dx = tf.where(x > 0.0, upstream, slope * upstream)
            density = tf.exp(-0.5 * tf.square(xg)) * (1.0 / math.sqrt(2.0 * math.pi))
            return put(dx, gelu, tf.gather(upstream, gelu) * (below + xg * density))

        return put(tf.maximum(x, slope * x), gelu, xg * below), gradient

    return activated(x)


def drop(x: tf.Tensor, noise: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Returns `x` with units dropped and the others scaled up.

    Args:
        x: (num_members, batch, width).
        noise: (batch, width) uniform in [0, 1), the same for all members: each is dropped with its own rate, and two
            members that differ in something else are compared under the same noise.
        rate: (num_members, 1, 1) in [0, 1).
    """
    kept = tf.cast(noise[tf.newaxis] >= rate, tf.float32) / (1.0 - rate)

    @tf.custom_gradient
    def dropped(x: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        return x * kept, lambda upstream: upstream * kept

    return dropped(x)


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
