"""Answers from an exported model, in chunks (TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tf_serving.signatures import SERVING_DEFAULT, call_signature

CHUNK_ROWS = 8192
"""Rows of one call; memory stays bounded and one traced graph serves all."""


@final
class SavedModelPredictor:
    """A loaded version of an exported model.

    Args:
        directory: The version directory, which holds ``saved_model.pb``.
    """

    def __init__(self, directory: Path) -> None:
        self._loaded = tf.saved_model.load(str(directory))
        self._signature = self._loaded.signatures[SERVING_DEFAULT]

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Returns the named outputs, each with ``num_rows`` rows; text as str.

        Args:
            columns: Raw columns in the order of the schema, each ``(num_rows,)``: float32 with NaN for missing, or
                bytes with b"" for missing.
        """
        num_rows = len(next(iter(columns.values())))
        parts: list[dict[str, NDArray[Any]]] = []
        for start in range(0, max(num_rows, 1), CHUNK_ROWS):
            chunk = {name: _tensor(column[start : start + CHUNK_ROWS]) for name, column in columns.items()}
            # Column names need not be valid, or even distinct, as TensorFlow's own argument names.
            answers = call_signature(self._signature, chunk)
            parts.append({name: tensor.numpy() for name, tensor in answers.items()})
        return {name: _as_text(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def _tensor(column: NDArray[Any]) -> tf.Tensor:
    return tf.constant(column, tf.string if column.dtype == object else tf.float32)


def _as_text(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != object:
        return array
    return np.array([value.decode() for value in array.reshape(-1)], dtype=object).reshape(array.shape)
