"""TensorProto to numpy and back, without a Python step for each element where the wire allows it.

Packed floats and doubles are the bytes of the array, so they are written as wire format in one piece, and what stands
before them is kept: it says the type and the shape only.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2

from tf_serving.server import tensor_types as types
from tf_serving.server.status import invalid

MAX_FILLED_BYTES = 64 << 20
"""Largest tensor that is made of fewer values than it has elements."""

_FIELDS = {
    types.FLOAT: "float_val",
    types.DOUBLE: "double_val",
    types.INT32: "int_val",
    types.UINT8: "int_val",
    types.INT16: "int_val",
    types.INT8: "int_val",
    types.UINT16: "int_val",
    types.STRING: "string_val",
    types.INT64: "int64_val",
    types.BOOL: "bool_val",
    types.HALF: "half_val",
    types.BFLOAT16: "half_val",
    types.UINT32: "uint32_val",
    types.UINT64: "uint64_val",
    types.COMPLEX64: "scomplex_val",
    types.COMPLEX128: "dcomplex_val",
}
FIXED_FIELDS = {types.FLOAT: 5, types.DOUBLE: 6, types.COMPLEX64: 9, types.COMPLEX128: 12}
"""Numbers of the fields of TensorProto whose packed form is the bytes of the array, whatever they are."""
# And where this is so for the values that there are.
_PACKED = {**FIXED_FIELDS, types.BOOL: 11}


def from_proto(proto: Any, alias: str) -> NDArray[Any]:
    """Return a tensor of a request.

    Args:
        proto: TensorProto.
        alias: Name of the input, for the message.

    Raises:
        ServingError: INVALID_ARGUMENT where type, shape and values do not go together.
    """
    dtype, told = types.NUMPY.get(proto.dtype), proto.tensor_shape
    shape = [dimension.size for dimension in told.dim]
    if dtype is None or told.unknown_rank or len(shape) > 32 or (shape and min(shape) < 0):
        raise invalid(f"tensor parsing error: {alias}")
    size = math.prod(shape)
    content = proto.tensor_content  # a copy each time it is asked for
    if content:
        if proto.dtype == types.STRING:
            return _text_content(content, size, alias).reshape(shape)
        if len(content) != size * dtype.itemsize:
            raise invalid(f"tensor parsing error: {alias}")
        return np.frombuffer(content, dtype=dtype).reshape(shape)
    return _typed_values(proto, dtype, size, alias).reshape(shape)


def _typed_values(proto: Any, dtype: np.dtype[Any], size: int, alias: str) -> NDArray[Any]:
    values = getattr(proto, _FIELDS[proto.dtype])
    array: NDArray[Any]
    if proto.dtype == types.STRING:
        array = np.empty(len(values), dtype=object)
        array[:] = values
    elif proto.dtype in (types.HALF, types.BFLOAT16):
        array = np.array(values, dtype=np.int64).astype(np.uint16).view(dtype)
    elif proto.dtype in (types.COMPLEX64, types.COMPLEX128):
        half = np.float32 if proto.dtype == types.COMPLEX64 else np.float64
        if len(values) % 2:
            raise invalid(f"tensor parsing error: {alias}")
        array = np.array(values, dtype=half).view(dtype)
    elif dtype.itemsize < 4 and dtype.kind in "iu":
        array = np.array(values, dtype=np.int64).astype(dtype)
    else:
        array = np.array(values, dtype=dtype)
    if len(array) == size:
        return array
    if size * dtype.itemsize > MAX_FILLED_BYTES:
        raise invalid(f"tensor parsing error: {alias}")
    if len(array) > size:
        return array[:size]
    # The last value stands for all that are left out; none at all is zero.
    filled = np.full(size, array[-1] if len(array) else (b"" if proto.dtype == types.STRING else 0), dtype=dtype)
    filled[: len(array)] = array
    return filled


def _text_content(content: bytes, size: int, alias: str) -> NDArray[Any]:
    """Read string tensors in binary form: all lengths as varints, then all bytes."""
    lengths: list[int] = []
    position = 0
    try:
        while len(lengths) < size:
            length, position = read_varint(content, position)
            lengths.append(length)
    except IndexError:
        raise invalid(f"tensor parsing error: {alias}") from None
    if position + sum(lengths) != len(content):
        raise invalid(f"tensor parsing error: {alias}")
    array = np.empty(size, dtype=object)
    for index, length in enumerate(lengths):
        array[index] = content[position : position + length]
        position += length
    return array


def fill_proto(proto: Any, array: NDArray[Any], *, as_content: bool = False) -> None:
    """Write a tensor into an empty TensorProto.

    Args:
        proto: TensorProto.
        array: Numbers, bool, or object array of bytes.
        as_content: Numbers as ``tensor_content`` instead of the typed field.
    """
    array = np.asarray(array)
    number = types.number_of(array.dtype)
    proto.dtype = number
    _fill_shape(proto.tensor_shape, array.shape)
    if number == types.STRING:
        proto.string_val.extend(
            value if isinstance(value, bytes) else str(value).encode() for value in array.reshape(-1).tolist()
        )
    elif as_content:
        proto.tensor_content = array.tobytes()
    elif number in _PACKED:
        content = array.tobytes()
        proto.MergeFromString(bytes([_PACKED[number] << 3 | 2]) + _varint(len(content)) + content)
    elif number in (types.HALF, types.BFLOAT16):
        proto.half_val.extend(np.ascontiguousarray(array).reshape(-1).view(np.uint16).tolist())
    else:
        getattr(proto, _FIELDS[number]).extend(array.reshape(-1).tolist())


def _fill_shape(proto: Any, shape: tuple[int, ...]) -> None:
    # Touched even where there are no dimensions: a scalar has a shape.
    proto.SetInParent()
    for size in shape:
        proto.dim.add().size = size


def output_entry(alias: str, array: NDArray[Any], *, as_content: bool = False) -> bytes:
    """Return an output as PredictResponse has it on the wire, an entry of its map from names to tensors.

    Args:
        alias: Of the output.
        array: As in ``fill_proto``.
        as_content: Likewise.
    """
    array = np.asarray(array)
    number = types.number_of(array.dtype)
    if number in _PACKED and not as_content:
        content = array.tobytes()
        return _entry_head(alias, number, array.shape, len(content)) + content
    proto = tensor_pb2.TensorProto()
    fill_proto(proto, array, as_content=as_content)
    content = proto.SerializeToString()
    return _in_entry(alias, content, len(content))


@lru_cache(maxsize=1024)
def _entry_head(alias: str, number: int, shape: tuple[int, ...], content_bytes: int) -> bytes:
    proto = tensor_pb2.TensorProto(dtype=number)
    _fill_shape(proto.tensor_shape, shape)
    head = proto.SerializeToString() + bytes([_PACKED[number] << 3 | 2]) + _varint(content_bytes)
    return _in_entry(alias, head, len(head) + content_bytes)


def _in_entry(alias: str, tensor: bytes, tensor_bytes: int) -> bytes:
    """Return the beginning of a tensor behind what an entry has before it."""
    name = alias.encode()
    entry = b"\x0a" + _varint(len(name)) + name + b"\x12" + _varint(tensor_bytes)
    return b"\x0a" + _varint(len(entry) + tensor_bytes) + entry + tensor


def read_varint(content: bytes, start: int) -> tuple[int, int]:
    """Return the number that stands at `start`, and where it ends.

    Raises:
        IndexError: The content ends within it.
    """
    value = shift = 0
    while True:
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
