"""Many networks in one: layers of which `num_members` share one matrix (TabM; Gorishniy et al., ICLR 2025).

A member ``i`` of a layer (BatchEnsemble; Wen et al., ICLR 2020, equation 5) computes ``((x * r_i) W) * s_i + b_i``: the
matrix is shared, and each member has only three vectors of its own. No layer loops over its members.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import keras
import numpy as np
from keras import ops


class ScalingStart(StrEnum):
    """What the scaling of a layer's input starts as."""

    ONES = "ones"
    RANDOM_SIGNS = "random-signs"
    NORMAL = "normal"


@keras.saving.register_keras_serializable(package="tamiz")
class MemberScaling(keras.layers.Layer):
    """Shows each member the input on scales of its own, ``x * r_i``; all that the members of TabM-mini differ in.

    Args:
        num_members: Members.
        start: What the scales start as.
        chunks: Lengths of the groups of inputs, in order, that start with one scale, such as the vector of a feature;
            None for groups of one.

    Shapes:
        Input (batch, num_features); output (batch, num_members, num_features).
    """

    def __init__(
        self,
        num_members: int,
        *,
        start: str = ScalingStart.RANDOM_SIGNS,
        chunks: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_members, self.start = _at_least_one("num_members", num_members), ScalingStart(start)
        self.chunks = None if chunks is None else tuple(int(length) for length in chunks)

    def build(self, input_shape: Any) -> None:
        """Creates the scales ``(num_members, num_features)``."""
        self.scale = self.add_weight(
            name="scale",
            shape=(self.num_members, int(input_shape[-1])),
            initializer=_scaling(self.start, self.chunks),
        )
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns what every member sees."""
        return ops.expand_dims(x, 1) * self.scale

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_members, num_features)``."""
        return (input_shape[0], self.num_members, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        own = {"num_members": self.num_members, "start": self.start.value, "chunks": self.chunks}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tamiz")
class BatchEnsembleDense(keras.layers.Layer):
    """A dense layer of every member, ``((x * r_i) W) * s_i + b_i``.

    The matrix and the biases start uniform within ``1 / sqrt(num_features)``, the biases of all members alike, and
    ``s`` starts at one: members differ at the start in ``r`` alone, and only where that is random.

    Args:
        units: Width of the output.
        num_members: Members.
        start: What ``r`` starts as; random in the first layer of a network.
        chunks: As in `MemberScaling`.

    Shapes:
        Input (batch, num_members, num_features), or (batch, num_features) that all members see; output (batch,
        num_members, units).
    """

    def __init__(
        self,
        units: int,
        *,
        num_members: int,
        start: str = ScalingStart.ONES,
        chunks: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.num_members = _at_least_one("units", units), _at_least_one("num_members", num_members)
        self.start = ScalingStart(start)
        self.chunks = None if chunks is None else tuple(int(length) for length in chunks)

    def build(self, input_shape: Any) -> None:
        """Creates the matrix ``(num_features, units)`` and the members' vectors."""
        num_features, members = int(input_shape[-1]), self.num_members
        limit = num_features**-0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(name="kernel", shape=(num_features, self.units), initializer=uniform)
        self.input_scale = self.add_weight(
            name="input_scale", shape=(members, num_features), initializer=_scaling(self.start, self.chunks)
        )
        self.output_scale = self.add_weight(name="output_scale", shape=(members, self.units), initializer="ones")
        self.bias = self.add_weight(
            name="bias",
            shape=(members, self.units),
            initializer=lambda shape, dtype=None: ops.tile(uniform((1, shape[1]), dtype), (shape[0], 1)),
        )
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the outputs of all members."""
        num_features = self.kernel.shape[0]
        if len(x.shape) == 2:
            # One product with the members' matrices side by side, instead of one with `num_members` copies of x.
            kernels = ops.expand_dims(ops.transpose(self.input_scale), 2) * ops.expand_dims(self.kernel, 1)
            flat = ops.reshape(kernels * self.output_scale, (num_features, self.num_members * self.units))
            y = ops.reshape(ops.matmul(x, flat), (-1, self.num_members, self.units))
            return y + self.bias
        flat = ops.reshape(x * self.input_scale, (-1, num_features))
        y = ops.reshape(ops.matmul(flat, self.kernel), (-1, self.num_members, self.units))
        return y * self.output_scale + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_members, units)``."""
        return (input_shape[0], self.num_members, self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        own = {
            "units": self.units,
            "num_members": self.num_members,
            "start": self.start.value,
            "chunks": self.chunks,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tamiz")
class MemberDense(keras.layers.Layer):
    """A dense layer of every member with a matrix of its own, ``x_i W_i + b_i``: the heads of a TabM.

    Args:
        units: Width of the output.

    Shapes:
        Input (batch, num_members, num_features); output (batch, num_members, units).
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = _at_least_one("units", units)

    def build(self, input_shape: Any) -> None:
        """Creates the matrices ``(num_members, num_features, units)`` and biases ``(num_members, units)``."""
        _, members, num_features = input_shape
        limit = int(num_features) ** -0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(name="kernel", shape=(members, num_features, self.units), initializer=uniform)
        self.bias = self.add_weight(name="bias", shape=(members, self.units), initializer=uniform)
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the outputs of all members."""
        return ops.einsum("bmi,mio->bmo", x, self.kernel) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_members, units)``."""
        return (*input_shape[:2], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "units": self.units}


class Averaged(StrEnum):
    """What of the members' outputs is averaged: class probabilities, probabilities of two classes, or values."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    VALUES = "values"


@keras.saving.register_keras_serializable(package="tamiz")
class MemberAverage(keras.layers.Layer):
    """The answer of all members: in training their outputs side by side, else one output like that of any network.

    Each member is trained by its own loss, so training needs them apart (`search_spaces.losses.MemberLoss`). The
    answer averages probabilities and not logits, and is given as logits again: their softmax, or sigmoid, is the
    average.

    Args:
        averaged: What is averaged.

    Shapes:
        Input (batch, num_members, num_outputs); output (batch, num_members * num_outputs) in training, else (batch,
        num_outputs).
    """

    def __init__(self, averaged: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.averaged = Averaged(averaged)

    def call(self, outputs: Any, training: bool | None = None) -> Any:
        """Returns the outputs side by side, or their average."""
        _, members, num_outputs = outputs.shape
        if training:
            return ops.reshape(outputs, (-1, members * num_outputs))
        match self.averaged:
            case Averaged.VALUES:
                return ops.mean(outputs, axis=1)
            case Averaged.SOFTMAX:
                return ops.logsumexp(ops.log_softmax(outputs, axis=-1), axis=1) - np.log(members)
            case Averaged.SIGMOID:
                # The logit of the average; the number of members cancels.
                likely, unlikely = (ops.logsumexp(-ops.softplus(-sign * outputs), axis=1) for sign in (1.0, -1.0))
                return likely - unlikely

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_outputs)``, the shape outside training."""
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "averaged": self.averaged.value}


def _scaling(start: ScalingStart, chunks: Sequence[int] | None) -> Any:
    """Returns an initializer of scales (num_members, num_features)."""
    if start is ScalingStart.ONES:
        return "ones"

    def draw(shape: Any, dtype: Any = None) -> Any:
        lengths = chunks or (1,) * shape[1]
        if sum(lengths) != shape[1]:
            raise ValueError(f"chunks are {tuple(lengths)}: expected lengths that add up to the {shape[1]} inputs")
        normal = keras.random.normal((shape[0], len(lengths)), dtype=dtype)
        values = normal if start is ScalingStart.NORMAL else ops.where(normal < 0, -1.0, 1.0)
        return ops.cast(ops.take(values, np.repeat(np.arange(len(lengths)), lengths), axis=1), dtype or "float32")

    return draw


def _at_least_one(name: str, number: int) -> int:
    if int(number) < 1:
        raise ValueError(f"{name} is {number}: expected at least 1")
    return int(number)
