"""Bodies that hold one nested list of numbers, read without a Python object for each of them. No TensorFlow here.

An image is thousands of numbers: making each an object, and an array of the objects, takes ten times as long as
reading the digits. simdjson reads them into one buffer. Only bodies of a plain layout come this way, ``instances`` or
``inputs`` as a list and perhaps a signature's name; whatever is unusual in them, right or wrong, is left to the
parser that knows TensorFlow Serving's rules and words. So this way answers what that one would, or nothing.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any, final

import numpy as np
import simdjson
from numpy.typing import NDArray

from tf_serving.server import tensor_types as types
from tf_serving.server.json_tensors import MAX_QUICK_RANK, RANGES, REALS

QUICK_NUMBERS_BYTES = 2_048
"""Shorter bodies are faster with an object for each number."""

_SPACE = rb"[ \t\r\n]*"
_NAME = rb'"signature_name"' + _SPACE + rb":" + _SPACE + rb'"([ !#-\[\]-~]*)"'
_BEFORE = re.compile(
    rb"%b\{%b(?:%b%b,%b)?\"(?:(instances)|inputs)\"%b:%b(?=\[)"
    % (_SPACE, _SPACE, _NAME, _SPACE, _SPACE, _SPACE, _SPACE)
)
_AFTER = re.compile(rb"\]%b(?:,%b%b%b)?\}%b\Z" % (_SPACE, _SPACE, _NAME, _SPACE, _SPACE))
_LONGEST_END = 512
_OF_NUMBERS = b"0123456789+-.eE \t\r\n"
_EXACT = float(2**53)
"""From here on a double does not tell two neighbouring whole numbers apart."""


@final
class NumberDocument:
    """A body whose one value is a list of numbers, or of lists of them.

    Args:
        values: What simdjson read.
        shape: That the lists have if none is empty, ``(rows, ...)``.
        row_format: Whether they are ``instances``, not ``inputs``.
        signature_name: That the body asks for, or "".
    """

    __slots__ = ("_shape", "_values", "row_format", "signature_name")

    def __init__(self, values: Any, shape: tuple[int, ...], *, row_format: bool, signature_name: str) -> None:
        self._values = values
        self._shape = shape
        self.row_format = row_format
        self.signature_name = signature_name

    def array(self, dtype: int, *, max_rows: int, max_depth: int) -> NDArray[Any] | None:
        """Return the numbers as a tensor, or None where the rules for values one by one are to decide.

        Args:
            dtype: Number of the type.
            max_rows: Most instances.
            max_depth: Deepest nesting.
        """
        shape = self._shape
        if len(shape) > max_depth or (self.row_format and shape[0] > max_rows):
            return None
        if dtype in REALS:
            flat = self._flat("d", shape)
            # Greater whole numbers round once here, and elsewhere on the way to an int64 and again to a float.
            if flat is None or not -_EXACT < flat.min() <= flat.max() < _EXACT:
                return None
        elif dtype in RANGES:
            flat = self._flat("u" if dtype == types.UINT64 else "i", shape)
            low, high = RANGES[dtype]
            if flat is None or int(flat.min()) < low or int(flat.max()) >= high:
                return None
        else:
            return None
        return flat.astype(types.NUMPY[dtype], copy=False).reshape(shape)

    def _flat(self, kind: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
        try:
            buffer = self._values.as_buffer(of_type=kind)
        except (TypeError, ValueError, IndexError, RuntimeError):  # another kind of number
            return None
        flat: NDArray[Any] = np.frombuffer(buffer, dtype={"d": np.float64, "i": np.int64, "u": np.uint64}[kind])
        return flat if len(flat) == prod(shape) else None


def read_numbers(body: bytes) -> NumberDocument | None:
    """Return what a body of the plain layout holds; None for every other one.

    Args:
        body: Of a predict request.
    """
    before = _BEFORE.match(body)
    if before is None:
        return None
    start, end = before.end(), body.rfind(b"]") + 1
    after = _AFTER.match(body, end - 1) if len(body) - end <= _LONGEST_END else None
    if after is None or (before[1] is not None and after[1] is not None):
        return None
    content = body[start:end]
    shape = _shape(content.translate(None, _OF_NUMBERS))
    if shape is None:
        return None
    try:
        values = simdjson.Parser().parse(content)
    except (ValueError, RuntimeError, MemoryError):
        return None
    name = before[1] or after[1] or b""
    return NumberDocument(values, shape, row_format=before[2] is not None, signature_name=name.decode())


def _shape(skeleton: bytes) -> tuple[int, ...] | None:
    """Return the shape of lists, of which brackets and commas are given; None where they are ragged or not lists.

    A list of one element and an empty one look the same; how many numbers there are tells them apart.
    """
    rank = len(skeleton) - len(skeleton.lstrip(b"["))
    if not 0 < rank <= MAX_QUICK_RANK:
        return None
    sizes = []
    part = b""
    for level in range(rank):
        # The first list of this level begins behind the brackets of those around it.
        begin = rank - 1 - level
        end = skeleton.find(b"]" * (level + 1), begin)
        found = skeleton[begin : end + level + 1]
        size = (len(found) - 1) // (len(part) + 1)
        if found != b"[%b]" % b",".join([part] * size):
            return None
        sizes.append(size)
        part = found
    return tuple(reversed(sizes)) if part == skeleton else None
