"""Dropout that fades away towards the end of training (RealMLP; Holzmueller et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from search_spaces.schedules import flat_cosine


@keras.saving.register_keras_serializable(package="tamiz")
class FadingDropout(keras.layers.Layer):
    """Dropout whose rate is constant for the first half of training and then falls to 0 along half a cosine.

    The step is counted in a weight of the layer: it is part of a trial's state, so a resumed one drops as much as it
    would have.

    Args:
        rate: Share of the inputs dropped at first, in [0, 1).
        total_steps: Steps of the whole training.
        seed: Of the noise; None draws one.

    Shapes:
        Input of any shape; output the same.
    """

    def __init__(self, rate: float, *, total_steps: int, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate is {rate}: expected a share in [0, 1)")
        if int(total_steps) < 1:
            raise ValueError(f"total_steps is {total_steps}: expected at least 1")
        self.rate, self.total_steps, self.seed = float(rate), int(total_steps), seed
        self._noise = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Any) -> None:
        """Creates the count of steps."""
        del input_shape
        self.step = self.add_weight(
            name="step",
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            # Replicas train in step, and one of them counts.
            aggregation="only_first_replica",
        )
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Returns `x` with some of it dropped and the rest scaled up; `x` itself outside training."""
        if not training or not self.rate:
            return x
        rate = self.rate * flat_cosine(ops.convert_to_tensor(self.step) / self.total_steps)
        self.step.assign_add(1.0)
        kept = keras.random.uniform(ops.shape(x), seed=self._noise) >= rate
        return x * ops.cast(ops.cast(kept, "float32") / (1.0 - rate), x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "rate": self.rate, "total_steps": self.total_steps, "seed": self.seed}
