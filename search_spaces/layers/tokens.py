"""A row as a sequence of tokens, one a feature (FT-Transformer; Gorishniy et al., NeurIPS 2021, section 3.3)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from search_spaces.layers.learned import present


@keras.saving.register_keras_serializable(package="tamiz")
class LinearEmbedding(keras.layers.Layer):
    """Embeds every number along a line of its column's own, ``x * weight + bias``.

    Weight and bias start uniform within ``1 / sqrt(size)``. A missing value (NaN) counts as 0.

    Args:
        size: Length of a number's vector.
        activation: Name of Keras' activation on the vector; None for none.

    Shapes:
        Input (batch, num_features) float; output (batch, num_features, size).
    """

    def __init__(self, size: int, *, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.activation = _positive("size", size), keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Creates weight and bias, ``(num_features, size)`` each."""
        shape, uniform = (int(input_shape[-1]), self.size), _uniform(self.size)
        self.weight = self.add_weight(name="weight", shape=shape, initializer=uniform)
        self.bias = self.add_weight(name="bias", shape=shape, initializer=uniform)
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the vectors."""
        x = ops.cast(ops.expand_dims(present(x), -1), self.compute_dtype)
        return self.activation(x * self.weight + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_features, size)``."""
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "size": self.size, "activation": activation}


@keras.saving.register_keras_serializable(package="tamiz")
class FeatureBias(keras.layers.Layer):
    """Adds a vector of each feature's own, which tells the tokens of two features apart.

    The vectors start uniform within ``1 / sqrt(size)``.

    Shapes:
        Input (batch, num_features, size); output the same.
    """

    def build(self, input_shape: Any) -> None:
        """Creates the vectors ``(num_features, size)``."""
        _, num_features, size = input_shape
        self.bias = self.add_weight(name="bias", shape=(num_features, size), initializer=_uniform(size))
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns the tokens with their features' vectors."""
        return tokens + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable(package="tamiz")
class ClassToken(keras.layers.Layer):
    """Puts a trained token, [CLS], before the tokens of a row; the answer is read off it.

    It starts uniform within ``1 / sqrt(size)``.

    Shapes:
        Input (batch, num_tokens, size); output (batch, num_tokens + 1, size).
    """

    def build(self, input_shape: Any) -> None:
        """Creates the token ``(size,)``."""
        size = int(input_shape[-1])
        self.token = self.add_weight(name="token", shape=(size,), initializer=_uniform(size))
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns [CLS] and the tokens."""
        first = ops.broadcast_to(self.token, (ops.shape(tokens)[0], 1, tokens.shape[-1]))
        return ops.concatenate([first, tokens], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_tokens + 1, size)``."""
        _, num_tokens, size = input_shape
        return (input_shape[0], None if num_tokens is None else num_tokens + 1, size)


def _uniform(size: int) -> Any:
    return keras.initializers.RandomUniform(-(size**-0.5), size**-0.5)


def _positive(name: str, number: int) -> int:
    if int(number) < 1:
        raise ValueError(f"{name} is {number}: expected at least 1")
    return int(number)
