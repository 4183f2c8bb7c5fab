"""Embeddings of all categorical columns of a table in one look-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="tamiz")
class CategoricalEmbedding(keras.layers.Layer):
    """Embeds every categorical column of a table and lays the vectors side by side.

    All columns share one matrix with an offset for each, so that a table of thirty columns costs one gather and one
    optimizer update rather than thirty. Rows 0 (missing) and 1 (other) of every column start at zero: a bucket that
    training never met then adds nothing instead of noise.

    Args:
        cardinalities: Number of ids of every column, buckets 0 and 1 included.
        size: Length of each column's vector.
        stddev: Of the other rows at the start; None for ``1 / sqrt(size)``, with which a vector has length 1.

    Shapes:
        Input (batch, num_columns) int32 with ids in [0, cardinality); output (batch, num_columns * size).
    """

    def __init__(
        self, cardinalities: Sequence[int], *, size: int, stddev: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cardinalities = tuple(int(c) for c in cardinalities)
        self.size = int(size)
        if not self.cardinalities or min(self.cardinalities) < 1:
            raise ValueError(f"cardinalities are {self.cardinalities}: expected one positive number a column")
        if self.size < 1:
            raise ValueError(f"size is {self.size}: expected at least 1")
        self.stddev = self.size**-0.5 if stddev is None else float(stddev)

    def build(self, input_shape: Any) -> None:
        """Creates the shared matrix, ``(sum of cardinalities, size)``."""
        del input_shape
        offsets = np.cumsum((0, *self.cardinalities[:-1]))
        self._offsets = np.asarray(offsets, "int32")
        blank = np.zeros((sum(self.cardinalities), 1), "float32")
        for offset, cardinality in zip(offsets, self.cardinalities, strict=True):
            blank[offset + 2 : offset + cardinality] = 1.0
        draw = keras.initializers.RandomNormal(stddev=self.stddev)
        self.matrix = self.add_weight(
            name="matrix",
            shape=(sum(self.cardinalities), self.size),
            initializer=lambda shape, dtype=None: draw(shape, dtype) * ops.cast(blank, dtype or "float32"),
        )
        self.built = True

    def call(self, ids: Any) -> Any:
        """Returns the vectors of all columns side by side."""
        vectors = ops.take(self.matrix, ids + self._offsets, axis=0)
        return ops.reshape(vectors, (-1, len(self.cardinalities) * self.size))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """Returns ``(batch, num_columns * size)``."""
        return (input_shape[0], len(self.cardinalities) * self.size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        return {**super().get_config(), "cardinalities": self.cardinalities, "size": self.size, "stddev": self.stddev}
