"""The sum of the terms of an additive model."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tamiz")
class TermSum(keras.layers.Layer):
    """Adds up what every column says by itself, and a trained constant.

    Args:
        num_outputs: Length of a column's term.

    Shapes:
        Input (batch, num_columns * num_outputs) or (batch, num_columns, num_outputs); output (batch, num_outputs).
    """

    def __init__(self, num_outputs: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if int(num_outputs) < 1:
            raise ValueError(f"num_outputs is {num_outputs}: expected at least 1")
        self.num_outputs = int(num_outputs)

    def build(self, input_shape: Any) -> None:
        """Creates the constant ``(num_outputs,)``."""
        del input_shape
        self.bias = self.add_weight(name="bias", shape=(self.num_outputs,), initializer="zeros")
        self.built = True

    def call(self, terms: Any) -> Any:
        """Returns the sums."""
        return ops.sum(ops.reshape(terms, (ops.shape(terms)[0], -1, self.num_outputs)), axis=1) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """Returns ``(batch, num_outputs)``."""
        return (input_shape[0], self.num_outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "num_outputs": self.num_outputs}
