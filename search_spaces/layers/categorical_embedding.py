"""Embeddings of all categorical columns of a table in one look-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from search_spaces.embedding_rule import start_scale


@keras.saving.register_keras_serializable(package="tamiz")
class CategoricalEmbedding(keras.layers.Layer):
    """Embeds every categorical column of a table and lays the vectors side by side.

    All columns share one matrix with an offset for each, so that a table of thirty columns costs one gather and one
    optimizer update rather than thirty; what a column's vector is shorter than the longest is zero. Rows 0 (missing)
    and 1 (other) of every column start at zero.

    Args:
        cardinalities: Number of ids of every column, buckets 0 and 1 included.
        size: Length of the longest vector.
        lengths: Length of each column's vector, at most `size`; None for `size` everywhere.
        stddev: Of the other rows at the start; None for ``1 / sqrt(length)``, with which a vector has length 1.

    Shapes:
        Input (batch, num_columns) int32 with ids in [0, cardinality); output (batch, num_columns * size).
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        *,
        size: int,
        lengths: Sequence[int] | None = None,
        stddev: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cardinalities = tuple(int(c) for c in cardinalities)
        self.size = int(size)
        if not self.cardinalities or min(self.cardinalities) < 1:
            raise ValueError(f"cardinalities are {self.cardinalities}: expected one positive number a column")
        if self.size < 1:
            raise ValueError(f"size is {self.size}: expected at least 1")
        self.lengths = None if lengths is None else tuple(int(length) for length in lengths)
        columns = len(self.cardinalities)
        if self.lengths and (len(self.lengths) != columns or not 1 <= min(self.lengths) <= max(self.lengths) <= size):
            raise ValueError(f"lengths are {self.lengths}: expected one from 1 to {size} for each of {columns} columns")
        self.stddev = None if stddev is None else float(stddev)

    def build(self, input_shape: Any) -> None:
        """Creates the shared matrix, ``(sum of cardinalities, size)``."""
        del input_shape
        self._offsets = np.cumsum((0, *self.cardinalities[:-1])).astype("int32")
        lengths = self.lengths or (self.size,) * len(self.cardinalities)
        scale = start_scale(self.cardinalities, lengths, size=self.size, stddev=self.stddev)
        self._own = np.arange(self.size) < np.asarray(lengths)[:, np.newaxis]
        draw = keras.initializers.RandomNormal(stddev=1.0)
        self.matrix = self.add_weight(
            name="matrix",
            shape=scale.shape,
            initializer=lambda shape, dtype=None: draw(shape, dtype) * ops.cast(scale, dtype or "float32"),
        )
        self.built = True

    def call(self, ids: Any) -> Any:
        """Returns the vectors of all columns side by side."""
        vectors = ops.take(self.matrix, ids + self._offsets, axis=0)
        if not self._own.all():
            vectors = vectors * ops.cast(self._own, vectors.dtype)
        return ops.reshape(vectors, (-1, len(self.cardinalities) * self.size))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """Returns ``(batch, num_columns * size)``."""
        return (input_shape[0], len(self.cardinalities) * self.size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer."""
        own = {"cardinalities": self.cardinalities, "size": self.size, "lengths": self.lengths, "stddev": self.stddev}
        return {**super().get_config(), **own}
