"""Key columns of two tables, brought to one type so that equal keys are equal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.column_values import numbers_of, text_of


def alike(left: pa.Array, right: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return two key columns in one type: numbers where both are, else text.

    Args:
        left: Keys of a plain type.
        right: Keys of a plain type.
    """
    if left.type == right.type:
        return left, right
    numbers = (pa.int64(), pa.float64(), pa.bool_(), pa.null())
    if left.type in numbers and right.type in numbers:
        return _floats(left), _floats(right)
    return text_of(left), text_of(right)


def _floats(array: pa.Array) -> pa.Array:
    return pa.array(numbers_of(array), mask=np.asarray(array.is_null()))
