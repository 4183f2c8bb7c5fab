"""Values held inside the range of those that were seen in training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from search_spaces.layers.learned import Array, LearnedLayer


@keras.saving.register_keras_serializable(package="tamiz")
class TargetRange(LearnedLayer):
    """Clips the answers of a regression to the range of the training target; in training it lets everything pass.

    Gradients of a clipped loss would be zero where a network is most wrong. Until the range is learned there is none.

    Shapes:
        Input (batch, num_outputs); output the same.
    """

    def build(self, input_shape: Any) -> None:
        """Creates the bounds, ``(num_outputs,)`` each."""
        self.low, self.high = (
            self.add_weight(
                name=name,
                shape=(int(input_shape[-1]),),
                initializer=keras.initializers.Constant(bound),
                trainable=False,
                dtype="float32",
            )
            for name, bound in (("low", -np.inf), ("high", np.inf))
        )
        self.built = True

    def learn(self, rows: Array, target: Array | None = None) -> None:
        """Learns the bounds.

        Args:
            rows: Not used.
            target: (num_rows, num_outputs).

        Raises:
            ValueError: There is no target.
        """
        del rows
        if target is None:
            raise ValueError("the range of a target cannot be learned without it: expected batches of (rows, target)")
        self.low.assign(np.min(target, axis=0))
        self.high.assign(np.max(target, axis=0))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Returns the values inside the range; all of them in training."""
        return x if training else ops.clip(x, ops.cast(self.low, x.dtype), ops.cast(self.high, x.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape
