"""Names and numpy types of TensorFlow's data types, as numbers of types.proto. No TensorFlow here."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, STRING, COMPLEX64, INT64, BOOL = range(1, 11)
BFLOAT16, UINT16, COMPLEX128, HALF, UINT32, UINT64 = 14, 17, 18, 19, 22, 23

NAMES = {
    FLOAT: "float",
    DOUBLE: "double",
    INT32: "int32",
    UINT8: "uint8",
    INT16: "int16",
    INT8: "int8",
    STRING: "string",
    COMPLEX64: "complex64",
    INT64: "int64",
    BOOL: "bool",
    BFLOAT16: "bfloat16",
    UINT16: "uint16",
    COMPLEX128: "complex128",
    HALF: "half",
    UINT32: "uint32",
    UINT64: "uint64",
}

NUMPY: dict[int, np.dtype[Any]] = {
    FLOAT: np.dtype(np.float32),
    DOUBLE: np.dtype(np.float64),
    INT32: np.dtype(np.int32),
    UINT8: np.dtype(np.uint8),
    INT16: np.dtype(np.int16),
    INT8: np.dtype(np.int8),
    STRING: np.dtype(object),
    COMPLEX64: np.dtype(np.complex64),
    INT64: np.dtype(np.int64),
    BOOL: np.dtype(np.bool_),
    BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    UINT16: np.dtype(np.uint16),
    COMPLEX128: np.dtype(np.complex128),
    HALF: np.dtype(np.float16),
    UINT32: np.dtype(np.uint32),
    UINT64: np.dtype(np.uint64),
}

OF_NUMPY = {dtype: number for number, dtype in NUMPY.items()}


def type_name(dtype: int) -> str:
    """Return the name of a type as TensorFlow prints it."""
    return NAMES.get(dtype, f"unknown dtype enum ({dtype})")


def number_of(dtype: np.dtype[Any]) -> int:
    """Return the type's number; text of any numpy kind is a string."""
    return OF_NUMPY.get(dtype, STRING if dtype.kind in "OSU" else 0)
