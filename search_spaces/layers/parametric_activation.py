"""Activations of which every unit learns how much it wants (RealMLP; Holzmueller et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tamiz")
class ParametricActivation(keras.layers.Layer):
    """``x + alpha * (f(x) - x)`` with an ``alpha`` of each unit that starts at 1: between the identity and ``f``.

    Args:
        activation: Name of Keras' activation ``f``.

    Shapes:
        Input (batch, units); output the same.
    """

    def __init__(self, activation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Creates ``alpha`` ``(units,)``."""
        self.alpha = self.add_weight(name="alpha", shape=(int(input_shape[-1]),), initializer="ones")
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the activated units."""
        return x + self.alpha * (self.activation(x) - x)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}
