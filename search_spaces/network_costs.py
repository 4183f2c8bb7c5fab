"""What a network costs, read off its graph before it is trained: operations of an answer, memory of a training step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops

COPIES = 4
"""Of every weight that a training holds: itself, its gradient, and the two moments of Adam."""

_VIEWS = frozenset(
    {"Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "Placeholder", "Const", "ReadVariableOp"}
)
"""Operations whose output is no memory of its own."""

_IN_PLACE = frozenset({"AddV2", "AddN", "BiasAdd", "Cast", "Mul", "Neg", "RealDiv", "Sub"})
"""Operations that write over what they are given, or that a training fuses with the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCosts:
    """What a network costs.

    Attributes:
        flops: Floating-point operations of the answer for one row: a multiply-add counts as two.
        memory_bytes: Bytes of a training step: weights with gradients and moments, what operations put out for a batch
            and the gradients need again, and two of the largest of these on the way back. A residual network of three
            stages on 64 x 64 pixels took up to a quarter more; what a library needs beside that is not in it.
    """

    flops: int
    memory_bytes: int


def network_costs(model: keras.Model, inputs: Any, *, batch_size: int) -> NetworkCosts:
    """Returns the costs of a network.

    Operations are those that TensorFlow's own statistics count, with Einstein sums, which these leave out.

    Args:
        model: A built network.
        inputs: What it takes: a tensor (num_rows, ...) or a mapping of such; their values do not matter.
        batch_size: Rows of a training step.
    """
    specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype), inputs)
    answer = tf.function(lambda rows: model(rows, training=False), autograph=False)
    operations = answer.get_concrete_function(specs).graph.get_operations()
    outputs = [_output_bytes(operation) for operation in operations]
    activations = sum(outputs) + 2 * max(outputs, default=0)
    weights = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return NetworkCosts(
        flops=sum(_flops(operation) for operation in operations),
        memory_bytes=4 * COPIES * weights + batch_size * activations,
    )


def _flops(operation: Any) -> int:
    if operation.type == "Einsum":
        return 2 * _einsum_multiplications(operation)
    return int(tf_ops.get_stats_for_node_def(operation.graph, operation.node_def, "flops").value or 0)


def _einsum_multiplications(operation: Any) -> int:
    """Returns the product of the sizes of all indices of ``abc,cd->abd``."""
    left = operation.get_attr("equation").decode().split("->")[0]
    sizes: Mapping[str, int] = {
        index: size or 1
        for indices, tensor in zip(left.split(","), operation.inputs, strict=True)
        for index, size in zip(indices, tensor.shape, strict=True)
    }
    return math.prod(sizes.values())


def _output_bytes(operation: Any) -> int:
    """Returns the bytes for one row of what an operation computes and keeps; 0 for weights and views."""
    if operation.type in _VIEWS or operation.type in _IN_PLACE:
        return 0
    return sum(
        math.prod(tensor.shape) * tensor.dtype.size
        for tensor in operation.outputs
        if tensor.dtype.is_floating and tensor.shape.rank and tensor.shape.rank > 1 and tensor.shape[0] == 1
    )
