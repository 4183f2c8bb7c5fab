"""Branches that are left out at random while training (stochastic depth; Huang et al., ECCV 2016)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tamiz")
class StochasticDepth(keras.layers.Layer):
    """Leaves a residual branch out for a share of the rows of a batch, and scales it up for the others.

    Args:
        rate: Share of the rows without the branch, in [0, 1).
        seed: Of the choice; None draws one.

    Shapes:
        Input (batch, ...); output the same.
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate is {rate}: expected a share in [0, 1)")
        self.rate, self.seed = float(rate), seed
        self._noise = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Any) -> None:
        """There are no weights but the state of the noise."""
        del input_shape
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Returns `x` without some of its rows' branches; `x` itself outside training."""
        if not training or not self.rate:
            return x
        shape = (ops.shape(x)[0], *(1 for _ in x.shape[1:]))
        kept = keras.random.uniform(shape, seed=self._noise) >= self.rate
        return x * ops.cast(ops.cast(kept, "float32") / (1.0 - self.rate), x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
