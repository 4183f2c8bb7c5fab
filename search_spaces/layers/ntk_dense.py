"""A dense layer that starts fitted to the rows it will see (RealMLP; Holzmueller et al., NeurIPS 2024)."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras import ops

from search_spaces.layers.learned import Array, LearnedLayer

NUM_MIXED = 5
"""Rows that the start of a bias is mixed of ("he+5")."""


@keras.saving.register_keras_serializable(package="tamiz")
class NtkDense(LearnedLayer):
    """``x W / sqrt(num_features) + b``, the neural tangent parametrisation.

    The matrix starts normal, with every column rescaled so that its unit has a standard deviation of 1 over the rows
    that `learn` is shown; the bias starts as minus a random mixture of the unit's value on `NUM_MIXED` rows, which puts
    the bends of the activations where the rows are (Steinwart, 2019). Without rows the matrix keeps its normal start
    and the bias is 0. Both are trained afterwards.

    Args:
        units: Width of the output.
        seed: Of the mixtures; None draws one.

    Shapes:
        Input (batch, num_features); output (batch, units).
    """

    def __init__(self, units: int, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if int(units) < 1:
            raise ValueError(f"units is {units}: expected at least 1")
        self.units = int(units)
        # Python's generator, which Keras draws the seeds of its own layers from.
        self.seed = random.randint(1, 10**9) if seed is None else int(seed)

    def build(self, input_shape: Any) -> None:
        """Creates the matrix ``(num_features, units)`` and the bias ``(units,)``."""
        shape = (int(input_shape[-1]), self.units)
        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0)
        )
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        self.built = True

    def learn(self, rows: Array, target: Array | None = None) -> None:
        """Rescales the matrix and places the bias; the same rows lead to the same start.

        Args:
            rows: (num_rows, num_features).
            target: Not used.
        """
        del target
        kernel = np.asarray(self.kernel, np.float32)
        values = np.asarray(rows, np.float32) @ kernel / np.sqrt(np.float32(len(kernel)))
        spread = values.std(axis=0)
        # A unit that is the same on all rows has no scale to be brought to.
        scale = np.where(spread > 1e-12, 1.0 / np.maximum(spread, 1e-12), 1.0)
        rng = np.random.default_rng(self.seed)
        chosen = rng.integers(0, len(values), (NUM_MIXED, self.units))
        shares = rng.exponential(size=(NUM_MIXED, self.units))
        mixture = (shares / shares.sum(axis=0) * values[chosen, np.arange(self.units)]).sum(axis=0)
        self.kernel.assign(kernel * scale)
        self.bias.assign(-mixture * scale)

    def call(self, x: Any) -> Any:
        """Returns the values of the units."""
        dtype = self.compute_dtype
        factor = ops.cast(self.kernel.shape[0] ** -0.5, dtype)
        product = ops.matmul(ops.cast(x, dtype), ops.cast(self.kernel, dtype))
        return product * factor + ops.cast(self.bias, dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, units)``."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "units": self.units, "seed": self.seed}
