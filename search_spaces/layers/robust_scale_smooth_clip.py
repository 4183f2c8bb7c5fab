"""Numbers scaled by their middle half and clipped without a corner (RealMLP; Holzmueller et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from search_spaces.layers.learned import Array, LearnedLayer, without_missing

MAX_CLIPPED = 3.0
"""What the output stays below in magnitude."""


@keras.saving.register_keras_serializable(package="tamiz")
class RobustScaleSmoothClip(LearnedLayer):
    """Subtracts the median, divides by the interquartile range, and clips by ``z / sqrt(1 + (z / 3)^2)``.

    Where the interquartile range is 0, half the whole range is divided by; where that is 0 too, the column becomes 0.
    A missing value (NaN) becomes 0, the median.

    Median and factor are learned by `adapt` or `learn`, or given; until then they are 0 and 1. They are weights: saved
    with the model, and not in the configuration.

    Args:
        median: (num_features,); None to learn.
        factor: (num_features,), what is multiplied by; None to learn.

    Shapes:
        Input (batch, num_features) float; output the same.
    """

    def __init__(
        self,
        *,
        median: Sequence[float] | Array | None = None,
        factor: Sequence[float] | Array | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (median is None) != (factor is None):
            raise ValueError("expected both median and factor, or neither; received one of the two")
        self._given = None if median is None else np.asarray([median, factor], np.float32)

    def build(self, input_shape: Any) -> None:
        """Creates median and factor ``(num_features,)``."""
        num_features = int(input_shape[-1])
        start = np.array([[0.0], [1.0]], np.float32).repeat(num_features, axis=1)
        if self._given is not None:
            if self._given.shape != start.shape:
                raise ValueError(
                    f"median and factor are those of {self._given.shape[-1]} columns: expected {num_features}, as the "
                    f"input has"
                )
            start = self._given
        self.median, self.factor = (
            self.add_weight(
                name=name,
                shape=(num_features,),
                initializer=lambda shape, dtype=None, row=row: ops.cast(ops.reshape(row, shape), dtype or "float32"),
                trainable=False,
                autocast=False,
                dtype="float32",
            )
            for name, row in zip(("median", "factor"), start, strict=True)
        )
        self.built = True

    def learn(self, rows: Array, target: Array | None = None) -> None:
        """Learns median and factor.

        Args:
            rows: (num_rows, num_features).
            target: Not used.
        """
        del target
        medians, factors = np.zeros((2, *self.median.shape), np.float32)
        for column, values in enumerate(np.asarray(rows).T):
            known = without_missing(values)
            if known.size:
                lowest, first, medians[column], third, highest = np.quantile(known, [0.0, 0.25, 0.5, 0.75, 1.0])
                spread = third - first or 0.5 * (highest - lowest)
                # What float32 cannot divide by is the noise of a constant.
                factors[column] = 1.0 / spread if spread > 1e-30 else 0.0
        self.median.assign(medians)
        self.factor.assign(factors)

    def call(self, x: Any) -> Any:
        """Returns the scaled and clipped numbers."""
        x = ops.cast(x, "float32")
        scaled = ops.where(ops.isnan(x), 0.0, (x - self.median) * self.factor)
        clipped = scaled / ops.sqrt(1.0 + ops.square(scaled / MAX_CLIPPED))
        return ops.cast(clipped, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build a layer of the same shapes; median and factor are weights."""
        return dict(super().get_config())
