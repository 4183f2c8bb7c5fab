"""A scale of every feature that training chooses: soft feature selection (Holzmueller et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tamiz")
class FeatureScale(keras.layers.Layer):
    """Multiplies every feature by a trained scale that starts at 1.

    Shapes:
        Input (batch, num_features); output the same.
    """

    def build(self, input_shape: Any) -> None:
        """Creates the scale ``(num_features,)``."""
        self.scale = self.add_weight(name="scale", shape=(int(input_shape[-1]),), initializer="ones")
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the scaled features."""
        return x * self.scale

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape
