"""A scale of every feature that training chooses: soft feature selection (Holzmueller et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tamiz")
class FeatureScale(keras.layers.Layer):
    """Multiplies every feature, or channel, by a trained scale.

    Args:
        initial: What the scales start at: 1, or nearly 0 on a residual branch (LayerScale; Touvron et al., 2021).

    Shapes:
        Input (batch, ..., num_features); output the same.
    """

    def __init__(self, initial: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = float(initial)

    def build(self, input_shape: Any) -> None:
        """Creates the scale ``(num_features,)``."""
        start = keras.initializers.Constant(self.initial)
        self.scale = self.add_weight(name="scale", shape=(int(input_shape[-1]),), initializer=start)
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the scaled features."""
        return x * self.scale

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "initial": self.initial}
