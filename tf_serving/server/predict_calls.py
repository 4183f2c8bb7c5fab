"""What a PredictRequest asks for, read from its bytes (imports its proto).

A client sends the same request again and again with other numbers. Where the numbers lie in it is remembered, so that
the next request with the same bytes around them is not parsed: its numbers are read where they came, without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from tensorflow_serving.apis import predict_pb2

from tf_serving.server import tensor_types as types
from tf_serving.server.status import ServingError
from tf_serving.server.tensor_protos import FIXED_FIELDS, from_proto, read_varint

Arrays = dict[str, NDArray[Any]]

MAX_LAYOUTS = 256
_KEY_BYTES = 16
"""As many bytes at the beginning of a request tell it from most others; a name stands there, never a number."""
_MAX_AROUND = 4_096
# Field numbers of PredictRequest, of an entry of its map, and of TensorProto.
_INPUTS, _KEY, _VALUE, _CONTENT = 2, 1, 2, 4
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Spec(NamedTuple):
    """Which version and signature of which model; "" and None where the request does not say."""

    name: str
    version: int | None
    label: str | None
    signature_name: str


def spec_of(proto: Any) -> Spec:
    """Return what a ModelSpec says."""
    choice = proto.WhichOneof("version_choice")
    return Spec(
        proto.name,
        proto.version.value if choice == "version" else None,
        proto.version_label if choice == "version_label" else None,
        proto.signature_name,
    )


class PredictCall(NamedTuple):
    """What a PredictRequest asks for.

    Attributes:
        spec: None where the request has none.
        output_filter: Aliases.
        inputs: Returns the tensors by alias; raises ServingError INVALID_ARGUMENT.
    """

    spec: Spec | None
    output_filter: tuple[str, ...]
    inputs: Callable[[], Arrays]


def predict_call(request: Any) -> PredictCall:
    """Return what a PredictRequest asks for."""
    tensors = request.inputs
    return PredictCall(
        spec_of(request.model_spec) if request.HasField("model_spec") else None,
        tuple(request.output_filter),
        lambda: {alias: from_proto(tensors[alias], alias) for alias in tensors},
    )


class _Numbers(NamedTuple):
    """A tensor whose numbers are the bytes from ``start`` to ``end`` of a request."""

    alias: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    start: int
    end: int


@final
class _Layout:
    """Where the numbers of a request lie, and the bytes around them."""

    __slots__ = ("_around", "_filter", "_numbers", "_only", "_spec")

    def __init__(self, content: bytes, call: PredictCall, numbers: list[_Numbers]) -> None:
        self._spec, self._filter, self._numbers = call.spec, call.output_filter, numbers
        starts, ends = [0, *(found.end for found in numbers)], [*(found.start for found in numbers), len(content)]
        self._around = [(start, end, content[start:end]) for start, end in zip(starts, ends, strict=True)]
        self._only = numbers[0] if len(numbers) == 1 else None

    def read(self, content: bytes) -> PredictCall | None:
        """Return the call of a request of the same length, or None where other bytes differ than those of numbers."""
        for start, end, expected in self._around:
            if content[start:end] != expected:
                return None
        return PredictCall(self._spec, self._filter, lambda: self._arrays(content))

    def _arrays(self, content: bytes) -> Arrays:
        only = self._only
        if only is not None:
            return {only.alias: np.frombuffer(content, only.dtype, only.size, only.start).reshape(only.shape)}
        return {
            alias: np.frombuffer(content, dtype, size, start).reshape(shape)
            for alias, dtype, shape, size, start, _ in self._numbers
        }


@final
class PredictReader:
    """Reads PredictRequests and remembers their layouts."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, bytes], _Layout] = {}
        self._others: set[bytes] = set()

    def read(self, content: bytes) -> PredictCall:
        """Return what a request asks for.

        Args:
            content: The message.

        Raises:
            DecodeError: It is none.
        """
        beginning = content[:_KEY_BYTES]
        layout = self._layouts.get((len(content), beginning))
        if layout is not None:
            call = layout.read(content)
            if call is not None:
                return call
        request = predict_pb2.PredictRequest.FromString(content)
        call = predict_call(request)
        if beginning not in self._others:
            self._learn(content, beginning, request, call)
        return call

    def _learn(self, content: bytes, beginning: bytes, request: Any, call: PredictCall) -> None:
        numbers = _find_numbers(content, request.inputs)
        known: dict[Any, Any] | set[bytes] = self._others if numbers is None else self._layouts
        if len(known) >= MAX_LAYOUTS:
            known.clear()
        if numbers is None:
            self._others.add(beginning)
        else:
            self._layouts[len(content), beginning] = _Layout(content, call, numbers)


def _find_numbers(content: bytes, tensors: Mapping[str, Any]) -> list[_Numbers] | None:
    """Return where the numbers of all tensors lie, in their order; None where not all of them are plain bytes."""
    found: dict[str, _Numbers] = {}
    try:
        for number, start, end in _fields(content, 0, len(content)):
            if number != _INPUTS:
                continue
            entry = {part: (first, last) for part, first, last in _fields(content, start, end)}
            alias = content[slice(*entry[_KEY])].decode()
            if alias in found or alias not in tensors:  # to ask a map of messages for a key would make it
                return None
            numbers = _numbers_of(content, alias, tensors[alias], *entry[_VALUE])
            if numbers is None:
                return None
            found[alias] = numbers
    except (ValueError, KeyError, IndexError, ServingError):  # written in an unusual way, or wrong
        return None
    ordered = sorted(found.values(), key=lambda numbers: numbers.start)
    around = len(content) - sum(numbers.end - numbers.start for numbers in ordered)
    fits = len(found) == len(tensors) > 0 and ordered[0].start >= _KEY_BYTES and around <= _MAX_AROUND
    return ordered if fits else None


def _numbers_of(content: bytes, alias: str, proto: Any, start: int, end: int) -> _Numbers | None:
    fields = (_CONTENT, FIXED_FIELDS.get(proto.dtype))
    places = [(first, last) for number, first, last in _fields(content, start, end) if number in fields]
    if len(places) != 1 or proto.dtype not in types.NUMPY or proto.dtype == types.STRING:
        return None
    array = from_proto(proto, alias)
    first, last = places[0]
    # What the message says is what its bytes say: no element is left out, none is there twice.
    if not array.size or array.tobytes() != content[first:last]:
        return None
    return _Numbers(alias, array.dtype, array.shape, array.size, first, last)


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the fields of a message that have a length.

    Raises:
        ValueError: There are groups.
        IndexError: It ends within a field.
    """
    while start < end:
        tag, start = read_varint(content, start)
        kind = tag & 7
        if kind == _VARINT:
            _, start = read_varint(content, start)
        elif kind == _LENGTH:
            length, start = read_varint(content, start)
            yield tag >> 3, start, start + length
            start += length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            start += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("A group.")
