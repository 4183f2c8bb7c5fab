"""tf.train.Example messages without TensorFlow.

All at once where they are of the usual form, else by protobuf's own parser, told what the message looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.sources.example_wire import OtherFormError, list_contents, read_features

_PACKAGE = "tamiz.example"
# Field numbers of tensorflow/core/example/{example,feature}.proto.
_LISTS = {"bytes_list": ("BytesList", 1, "TYPE_BYTES"), "float_list": ("FloatList", 2, "TYPE_FLOAT"),
          "int64_list": ("Int64List", 3, "TYPE_INT64")}  # fmt: skip
KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


@lru_cache(maxsize=1)
def example_class() -> Any:
    """Return the message class of tf.train.Example, in a pool of its own beside TensorFlow's."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tamiz/example.proto", package=_PACKAGE, syntax="proto3")

    def message(name: str) -> Any:
        return file.message_type.add(name=name)

    def add(parent: Any, name: str, number: int, kind: str, *, repeated: bool = False) -> Any:
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        known = {"label": label, "number": number, "name": name}
        if kind.startswith("TYPE_"):
            return parent.field.add(type=field.Type.Value(kind), **known)
        return parent.field.add(type=field.TYPE_MESSAGE, type_name=f".{_PACKAGE}.{kind}", **known)

    for kind, _, type_ in _LISTS.values():
        add(message(kind), "value", 1, type_, repeated=True)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for name, (kind, number, _) in _LISTS.items():
        add(feature, name, number, kind).oneof_index = 0
    features = message("Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, "TYPE_STRING")
    add(entry, "value", 2, "Feature")
    add(features, "feature", 1, "Features.FeatureEntry", repeated=True)
    add(message("Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureValues:
    """One feature of some messages.

    Attributes:
        kinds: Its kind in each message, a place in ``KINDS`` from 1; 0 where it is absent; ``(num_messages,)``.
        column: Its values; None where they are of several kinds, or no message says of which.
    """

    kinds: NDArray[np.uint8]
    column: pa.Array | None


def parse_examples(records: Sequence[bytes]) -> dict[str, FeatureValues]:
    """Return the features of messages by name.

    Args:
        records: Serialized messages, at least one.

    Raises:
        ValueError: A record is no such message; its number is the error's argument.
    """
    try:
        return _side_by_side(records)
    except OtherFormError:
        return _one_by_one(records)


def _side_by_side(records: Sequence[bytes]) -> dict[str, FeatureValues]:
    data, features = read_features(records)
    columns = {}
    for name, lists in features.items():
        kinds = np.zeros(len(records), np.uint8)
        kinds[lists.rows] = lists.kinds
        kind = _only_kind(kinds)
        if kind is None:
            columns[name] = FeatureValues(kinds=kinds, column=None)
            continue
        values, list_counts = list_contents(data, lists, kind)
        counts = np.zeros(len(records), np.int64)
        counts[lists.rows] = list_counts
        if counts.max() <= 1:
            places = np.where(counts == 1, np.cumsum(counts) - 1, 0)
            column = _plain(kind, values).take(pa.array(places, mask=counts == 0))
        else:
            offsets = np.append(0, np.cumsum(counts))
            column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _plain(kind, values))
        columns[name] = FeatureValues(kinds=kinds, column=column)
    return columns


def _only_kind(kinds: NDArray[np.uint8]) -> str | None:
    found = np.unique(kinds[kinds > 0])
    return list(KINDS)[int(found[0]) - 1] if len(found) == 1 else None


def _one_by_one(records: Sequence[bytes]) -> dict[str, FeatureValues]:
    from google.protobuf.message import DecodeError

    message = example_class()()
    places = {kind: place for place, kind in enumerate(KINDS, 1)}
    kinds: dict[str, NDArray[np.uint8]] = {}
    values: dict[str, list[Any]] = {}
    for number, record in enumerate(records):
        try:
            message.ParseFromString(record)
        except DecodeError as error:
            raise ValueError(number) from error
        for name, feature in message.features.feature.items():
            if name not in kinds:
                kinds[name], values[name] = np.zeros(len(records), np.uint8), [()] * len(records)
            kind = feature.WhichOneof("kind")
            if kind:
                kinds[name][number], values[name][number] = places[kind], list(getattr(feature, kind).value)
    columns = {}
    for name, found in kinds.items():
        only = _only_kind(found)
        columns[name] = FeatureValues(kinds=found, column=None if only is None else column_of(only, values[name]))
    return columns


def column_of(kind: str, values: Sequence[Any]) -> pa.Array:
    """Return the values of a feature as a column; one value a row is plain, several are lists, none is missing.

    Args:
        kind: ``bytes_list``, ``float_list`` or ``int64_list``.
        values: The list of each row.
    """
    if max(map(len, values), default=0) <= 1:
        return _plain(kind, [value[0] if value else None for value in values])
    flat = _plain(kind, [item for value in values for item in value])
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _plain(kind: str, values: Sequence[Any] | pa.Array) -> pa.Array:
    type_ = {"int64_list": pa.int64(), "float_list": pa.float32(), "bytes_list": pa.binary()}[kind]
    array = values if isinstance(values, pa.Array) else pa.array(values, type_)
    if kind == "int64_list":
        return array
    if kind == "float_list":
        return shortest_doubles(array)
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        return array  # bytes that are no text; no table reads them


def shortest_doubles(array: pa.Array) -> pa.Array:
    """Return float32 numbers as the float64 of their shortest decimals: 0.1 and not 0.10000000149.

    The format stores float32 whatever was written; both readings round to the same float32, and this one is the number
    that other sources of the same rows hold, so that they have one hash.

    Args:
        array: float32 of shape ``(num_rows,)``.
    """
    return array.cast(pa.string()).cast(pa.float64())
