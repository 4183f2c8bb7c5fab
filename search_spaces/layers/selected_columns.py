"""Some columns of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="tamiz")
class SelectedColumns(keras.layers.Layer):
    """Takes some columns in a given order.

    Args:
        columns: Their positions, from 0.

    Shapes:
        Input (batch, num_columns); output (batch, len(columns)) of the same type.
    """

    def __init__(self, columns: Sequence[int], **kwargs: Any) -> None:
        # Ids are integers, which a float type would round.
        super().__init__(autocast=False, **kwargs)
        self.columns = tuple(int(column) for column in columns)
        if not self.columns or min(self.columns) < 0:
            raise ValueError(f"columns are {self.columns}: expected at least one position from 0")

    def call(self, x: Any) -> Any:
        """Returns the columns."""
        return ops.take(x, np.asarray(self.columns, "int32"), axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """Returns ``(batch, len(columns))``."""
        return (input_shape[0], len(self.columns))

    def compute_output_spec(self, x: Any) -> Any:
        """Returns the shape and type of the output."""
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "columns": self.columns}
