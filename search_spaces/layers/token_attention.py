"""What tokens of a row do with each other, and each with itself (FT-Transformer; Gorishniy et al., NeurIPS 2021)."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import keras
from keras import ops


class Queries(StrEnum):
    """The tokens that are answered: all, or the first alone, which is all that the last block of a network needs."""

    ALL = "all"
    FIRST = "first"


@keras.saving.register_keras_serializable(package="tamiz")
class TokenAttention(keras.layers.Layer):
    """Multi-head attention of a row's tokens to each other (Vaswani et al., 2017, section 3.2.2).

    Matrices start uniform within ``1 / sqrt(size)`` and biases at zero, as in the authors' package. Keras' own
    attention would count the heads to the inputs of a matrix when it draws it.

    Args:
        num_heads: Heads; divides the tokens' size.
        dropout: Share of the attention weights dropped in training, in [0, 1).
        queries: ALL or FIRST.
        seed: Of the dropout; None draws one.

    Shapes:
        Input (batch, num_tokens, size); output (batch, num_tokens or 1, size).
    """

    def __init__(
        self,
        num_heads: int,
        *,
        dropout: float = 0.0,
        queries: str = Queries.ALL,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.dropout = int(num_heads), float(dropout)
        self.queries, self.seed = Queries(queries), seed
        if self.num_heads < 1:
            raise ValueError(f"num_heads is {self.num_heads}: expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}: expected a share in [0, 1)")
        self._noise = keras.random.SeedGenerator(seed) if self.dropout else None

    def build(self, input_shape: Any) -> None:
        """Creates the matrices of queries, keys with values, and the output."""
        size = int(input_shape[-1])
        if size % self.num_heads:
            raise ValueError(f"tokens have the size {size}: expected a multiple of the {self.num_heads} heads")
        draw = keras.initializers.RandomUniform(-(size**-0.5), size**-0.5)
        self.query_kernel = self.add_weight(name="query_kernel", shape=(size, size), initializer=draw)
        self.query_bias = self.add_weight(name="query_bias", shape=(size,), initializer="zeros")
        self.pair_kernel = self.add_weight(name="pair_kernel", shape=(size, 2 * size), initializer=draw)
        self.pair_bias = self.add_weight(name="pair_bias", shape=(2 * size,), initializer="zeros")
        self.output_kernel = self.add_weight(name="output_kernel", shape=(size, size), initializer=draw)
        self.output_bias = self.add_weight(name="output_bias", shape=(size,), initializer="zeros")
        self.built = True

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Returns what the queries gather from all tokens."""
        size, num_tokens = tokens.shape[-1], tokens.shape[1]
        asking = tokens[:, :1] if self.queries is Queries.FIRST else tokens
        query = self._heads(_dense(asking, self.query_kernel, self.query_bias), 1)[0]
        key, value = self._heads(_dense(tokens, self.pair_kernel, self.pair_bias), 2)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * (1.0 / math.sqrt(size // self.num_heads))
        weights = ops.softmax(scores, axis=-1)
        if training and self._noise is not None:
            weights = keras.random.dropout(weights, self.dropout, seed=self._noise)
        gathered = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        length = 1 if self.queries is Queries.FIRST else num_tokens
        return _dense(ops.reshape(gathered, (-1, length, size)), self.output_kernel, self.output_bias)

    def _heads(self, x: Any, num_parts: int) -> list[Any]:
        """Returns parts (batch, num_heads, num_tokens, size / num_heads) of what lies side by side in `x`."""
        _, num_tokens, width = x.shape
        shape = (-1, num_tokens, num_parts, self.num_heads, width // num_parts // self.num_heads)
        split = ops.transpose(ops.reshape(x, shape), (2, 0, 3, 1, 4))
        return [split[part] for part in range(num_parts)]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_tokens or 1, size)``."""
        batch, num_tokens, size = input_shape
        return (batch, 1 if self.queries is Queries.FIRST else num_tokens, size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        own = {
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "queries": self.queries.value,
            "seed": self.seed,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tamiz")
class GatedLinearUnit(keras.layers.Layer):
    """Multiplies one half of the input by the activated other half: ReGLU, GEGLU (Shazeer, 2020, equation 6).

    Args:
        activation: Name of Keras' activation of the second half.

    Shapes:
        Input (..., 2 * width); output (..., width).
    """

    def __init__(self, activation: str = "relu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Checks that the input has two halves."""
        if input_shape[-1] % 2:
            raise ValueError(f"the input has a width of {input_shape[-1]}: expected an even number, two halves")
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the gated half."""
        linear, gate = ops.split(x, 2, axis=-1)
        return linear * self.activation(gate)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(..., width)``."""
        return (*input_shape[:-1], int(input_shape[-1] or 0) // 2)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


def _dense(x: Any, kernel: Any, bias: Any) -> Any:
    """Returns ``x @ kernel + bias`` of (batch, num_tokens, inputs), as one product over all tokens of all rows."""
    _, num_tokens, inputs = x.shape
    flat = ops.matmul(ops.reshape(x, (-1, inputs)), kernel) + bias
    return ops.reshape(flat, (-1, num_tokens, flat.shape[-1]))
