"""Categorical columns of few values as columns of zeros and ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from search_spaces.embedding_rule import NUM_BUCKETS


@keras.saving.register_keras_serializable(package="tamiz")
class OneHotColumns(keras.layers.Layer):
    """Every categorical column as one column for each of its ids but 0: a missing value is all zeros.

    Args:
        cardinalities: Number of ids of every column, buckets 0 (missing) and 1 (rare or unseen) included.
        signed: Whether a column of two values becomes a single one, -1 or 1, and 0 where it is missing, rare or unseen
            (Holzmueller et al., NeurIPS 2024).

    Shapes:
        Input (batch, num_columns) int32; output (batch, sum of `widths`).
    """

    def __init__(self, cardinalities: Sequence[int], *, signed: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cardinalities, self.signed = tuple(int(number) for number in cardinalities), bool(signed)
        if not self.cardinalities or min(self.cardinalities) < NUM_BUCKETS:
            raise ValueError(f"cardinalities are {self.cardinalities}: expected at least {NUM_BUCKETS} a column")

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns that each column becomes."""
        return tuple(1 if self._is_signed(number) else number - 1 for number in self.cardinalities)

    def _is_signed(self, cardinality: int) -> bool:
        return self.signed and cardinality == NUM_BUCKETS + 2

    def call(self, ids: Any) -> Any:
        """Returns the columns of all columns side by side."""
        # One comparison for the whole table: column `owner` of the ids against the id that a column stands for.
        owners = np.repeat(np.arange(len(self.widths)), self.widths)
        stands_for = np.concatenate([np.arange(1, width + 1) for width in self.widths])
        single = np.array([self._is_signed(self.cardinalities[owner]) for owner in owners])
        own = ops.take(ids, owners, axis=1)
        hot = ops.cast(own == np.where(single, NUM_BUCKETS + 1, stands_for).astype("int32"), self.compute_dtype)
        if not single.any():
            return hot
        cold = ops.cast((own == NUM_BUCKETS) & single, self.compute_dtype)
        return hot - cold

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, sum of widths)``."""
        return (input_shape[0], sum(self.widths))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "cardinalities": self.cardinalities, "signed": self.signed}
