"""JSON values to tensors, with the words of TensorFlow Serving for everything that does not fit. No TensorFlow here.

``to_array`` tries numpy on the whole nested list. Whatever numpy might take too kindly (booleans as numbers, text as
numbers) or refuse goes value by value through ``TensorBuilder``, which is the reference: it either builds the same
array or says what is wrong.
"""

from __future__ import annotations

import base64
import binascii
from array import array as packed_array
from itertools import chain
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from tf_serving.server import tensor_types as types
from tf_serving.server.json_text import dump
from tf_serving.server.status import Code, ServingError, invalid

RANGES = {
    types.INT8: (-(2**7), 2**7),
    types.INT16: (-(2**15), 2**15),
    types.INT32: (-(2**31), 2**31),
    types.UINT8: (0, 2**8),
    types.INT64: (-(2**63), 2**63),
    types.UINT32: (0, 2**32),
    types.UINT64: (0, 2**64),
}
REALS = (types.FLOAT, types.DOUBLE)
_CODES = {
    types.FLOAT: "f",
    types.DOUBLE: "d",
    types.INT8: "b",
    types.INT16: "h",
    types.INT32: "i",
    types.UINT8: "B",
    types.INT64: "q",
    types.UINT32: "I",
    types.UINT64: "Q",
}
MAX_QUICK_RANK = 8
"""Deeper nesting goes the slow way, where its depth is checked."""


def json_type(value: Any) -> str:
    """Return the kind of a JSON value in the words of TensorFlow Serving."""
    if value is None:
        return "Null"
    if value is True or value is False:
        return "True" if value else "False"
    kinds: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return kinds.get(type(value), "Number")


def is_base64(value: Any) -> bool:
    """Return whether a value is ``{"b64": text}`` and nothing else."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def decode_base64(value: Any) -> bytes:
    """Return the bytes of ``{"b64": text}``; padding may be left out.

    Raises:
        ServingError: It is another object, or no base64.
    """
    if not is_base64(value):
        raise invalid(f"JSON Value: {dump(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def to_array(value: Any, dtype: int, *, may_hold_booleans: bool) -> NDArray[Any]:
    """Return a JSON value as a tensor of its own nesting.

    Args:
        value: A scalar or nested lists.
        dtype: Number of the type.
        may_hold_booleans: Whether ``true`` or ``false`` occurs in the request; numpy would take them for numbers.

    Raises:
        ServingError: The lists are ragged or a value does not fit the type.
    """
    array = to_array_quickly(value, dtype, may_hold_booleans=may_hold_booleans)
    if array is not None:
        return array
    builder = TensorBuilder(dtype)
    builder.add(value)
    return builder.array()


def to_array_quickly(value: Any, dtype: int, *, may_hold_booleans: bool) -> NDArray[Any] | None:
    """Return what ``to_array`` does, or None where value by value has to say what is wrong."""
    if dtype == types.STRING:
        return _text_quickly(value)
    if (dtype not in REALS and dtype not in RANGES) or may_hold_booleans:
        return _booleans_quickly(value) if dtype == types.BOOL else None
    if type(value) is list and value:
        packed = _packed_quickly(value, dtype)
        if packed is not None:
            return packed
    try:
        array = np.array(value)
    except (ValueError, OverflowError, TypeError):
        return None
    if array.size == 0 or array.ndim > MAX_QUICK_RANK:
        return None
    kind = array.dtype.kind
    wanted = types.NUMPY[dtype]
    if dtype in REALS:
        if kind not in "fiu":
            return None
        with np.errstate(over="ignore"):
            return array.astype(wanted, copy=False)
    if kind not in "iu":
        return None
    low, high = RANGES[dtype]
    if int(array.min()) < low or int(array.max()) >= high:
        return None
    return array.astype(wanted, copy=False)


def _packed_quickly(values: list[Any], dtype: int) -> NDArray[Any] | None:
    """Return numbers, or equally many of them in each of several lists, as a tensor; None for whatever else there is.

    A few numbers take a tenth of the time they take NumPy, which has to find out first what they are.
    """
    wanted, code = types.NUMPY[dtype], _CODES[dtype]
    rows, shape = [values], None
    if type(values[0]) is list:
        rows, shape = values, (len(values), len(values[0]))
    try:
        if shape is not None and (not shape[1] or set(map(len, rows)) != {shape[1]}):
            return None
        # Whole numbers alone become floats in one step: on the way to a double a great one would be rounded before.
        is_whole = dtype in REALS and type(rows[0][0]) is int and float not in set(map(type, chain(*rows)))
        packed = packed_array("q" if is_whole else code)
        for row in rows:
            packed.fromlist(row)
    except (TypeError, IndexError, OverflowError):
        return None
    array: NDArray[Any] = np.frombuffer(packed, np.int64 if is_whole else wanted)
    array = array.astype(wanted) if is_whole else array
    return array if shape is None else array.reshape(shape)


def _booleans_quickly(value: Any) -> NDArray[Any] | None:
    try:
        array = np.array(value)
    except (ValueError, OverflowError, TypeError):
        return None
    return array if array.size and array.ndim <= MAX_QUICK_RANK and array.dtype.kind == "b" else None


def _text_quickly(value: Any) -> NDArray[Any] | None:
    if type(value) is str:
        return np.array(_encoded(value), dtype=object)
    if type(value) is not list or not value:
        return None
    try:
        # Fails for anything but text, in C.
        encoded = list(map(str.encode, value))
    except (TypeError, UnicodeEncodeError):
        return None
    array = np.empty(len(encoded), dtype=object)
    array[:] = encoded
    return array


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@final
class TensorBuilder:
    """Collects JSON values of one shape, one after another.

    Args:
        dtype: Number of the type.
    """

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._values: list[Any] = []
        self._shape: tuple[int, ...] | None = None
        self._num_items = 0
        self._size = 0

    def add(self, item: Any) -> None:
        """Add a value; its shape is the nesting of its first elements.

        Raises:
            ServingError: It is ragged, of another shape than the first one, or holds a value of another type.
        """
        shape = _shape_of(item)
        start = len(self._values)
        self._fill(item, 0, shape)
        size = len(self._values) - start
        if self._shape is None:
            self._shape, self._size = shape, size
        elif size != self._size:
            raise invalid(f"Expecting tensor size: {self._size} but got: {size}")
        elif shape != self._shape:
            raise invalid(f"Expecting shape {_shape_text(self._shape)} but got: {_shape_text(shape)}")
        self._num_items += 1

    def array(self) -> NDArray[Any]:
        """Return the one value."""
        return self._reshaped(self._shape or ())

    def batch(self) -> NDArray[Any]:
        """Return all values, ``(num_items, ...)``."""
        return self._reshaped((self._num_items, *(self._shape or ())))

    def _reshaped(self, shape: tuple[int, ...]) -> NDArray[Any]:
        flat = np.empty(len(self._values), dtype=types.NUMPY[self._dtype])
        with np.errstate(over="ignore"):
            flat[:] = self._values
        return flat.reshape(shape)

    def _fill(self, value: Any, level: int, shape: tuple[int, ...]) -> None:
        rank = len(shape)
        if type(value) is not list:
            if level != rank:
                raise invalid(
                    f"JSON Value: {dump(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {rank}"
                )
            self._values.append(self._converted(value))
            return
        if level >= rank:
            raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
            )
        for element in value:
            self._fill(element, level + 1, shape)

    def _converted(self, value: Any) -> Any:
        dtype = self._dtype
        kind = json_type(value)
        fits = False
        if dtype in REALS:
            fits = kind == "Number"
        elif dtype in RANGES:
            low, high = RANGES[dtype]
            fits = type(value) is int and low <= value < high
        elif dtype == types.BOOL:
            fits = kind in ("True", "False")
        elif dtype == types.STRING:
            if kind == "Object":
                return decode_base64(value)
            if kind == "String":
                return _encoded(value)
        elif kind != "Object":
            raise ServingError(
                Code.UNIMPLEMENTED, f"Conversion of JSON Value: {dump(value)} to type: {types.type_name(dtype)}"
            )
        if not fits:
            raise invalid(f"JSON Value: {dump(value)} Type: {kind} is not of expected type: {types.type_name(dtype)}")
        return value


def _shape_of(value: Any) -> tuple[int, ...]:
    shape = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
