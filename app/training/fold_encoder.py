"""The encoding that the networks of one fold read, for raw rows: what the fold learned, in the shape of all rows'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.encoder import Encoder
from pipelines.preprocessing import OTHER_ID, PreprocessingState


@final
class FoldEncoder(tf.Module):
    """Encodes raw columns as a fold's training rows taught it, for networks as wide as all rows ask for.

    Args:
        state: What the training rows of the fold taught.
        shape: What all rows taught, whose columns and ids the networks take.
        alive: Called before each batch of `encode_in_batches`.
    """

    def __init__(
        self, state: PreprocessingState, shape: PreprocessingState, *, alive: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self.encoder = Encoder(state, alive=alive)
        self._places, self._limits = _places(state, shape), np.asarray(shape.cardinalities, np.int32)

    def __call__(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Encodes a batch in the graph; as `Encoder`, in the shape of all rows' encoding."""
        encoded = self.encoder(raw)
        # What the fold does not have is taken from a column of zeros behind the others.
        numeric = tf.gather(tf.pad(encoded["numeric"], [[0, 0], [0, 1]]), self._places, axis=1)
        ids = encoded["categorical"]
        return {"numeric": numeric, "categorical": tf.where(ids < self._limits, ids, OTHER_ID)}

    def encode_in_batches(self, raw: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Encodes whole columns; as `Encoder`, in the shape of all rows' encoding."""
        encoded = self.encoder.encode_in_batches(raw)
        return in_shape(encoded, places=self._places, limits=self._limits)


def in_shape(
    encoded: Mapping[str, NDArray[Any]], *, places: NDArray[np.int32], limits: NDArray[np.int32]
) -> dict[str, NDArray[Any]]:
    """Returns rows with the columns and ids of another encoding: zeros for columns, "other" for ids it lacks.

    Args:
        encoded: ``numeric`` (num_rows, num_numeric) and ``categorical`` (num_rows, num_categorical).
        places: Column of `encoded` for each column wanted; its width where it has none.
        limits: Ids of each categorical column.
    """
    numeric = np.pad(encoded["numeric"], [(0, 0), (0, 1)])[:, places]
    ids = encoded["categorical"]
    return {"numeric": numeric, "categorical": np.where(ids < limits, ids, OTHER_ID).astype(ids.dtype)}


def _places(state: PreprocessingState, shape: PreprocessingState) -> NDArray[np.int32]:
    there = {name: place for place, name in enumerate(state.numeric_names)}
    return np.array([there.get(name, len(there)) for name in shape.numeric_names], np.int32)


def shaping(state: PreprocessingState, shape: PreprocessingState) -> dict[str, NDArray[np.int32]]:
    """Returns the arguments of `in_shape` that bring what `state` encodes to the shape of `shape`."""
    return {"places": _places(state, shape), "limits": np.asarray(shape.cardinalities, np.int32)}
