"""tf.train.Example messages without TensorFlow: protobuf's own parser, told what the message looks like."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

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


def parse_examples(records: Sequence[bytes]) -> dict[str, list[tuple[str, Any]]]:
    """Return the features of messages: name to kind and values, a pair for each record, ``("", ())`` where absent.

    Args:
        records: Serialized messages.

    Raises:
        ValueError: A record is no such message; its number is the error's argument.
    """
    from google.protobuf.message import DecodeError

    message = example_class()()
    columns: dict[str, list[tuple[str, Any]]] = {}
    for number, record in enumerate(records):
        try:
            message.ParseFromString(record)
        except DecodeError as error:
            raise ValueError(number) from error
        for name, feature in message.features.feature.items():
            kind = feature.WhichOneof("kind")
            column = columns.setdefault(name, [("", ())] * number)
            column.append((kind, list(getattr(feature, kind).value)) if kind else ("", ()))
        for column in columns.values():
            if len(column) == number:
                column.append(("", ()))
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


def _plain(kind: str, values: list[Any]) -> pa.Array:
    if kind == "int64_list":
        return pa.array(values, pa.int64())
    if kind == "float_list":
        return shortest_doubles(pa.array(values, pa.float32()))
    binary = pa.array(values, pa.binary())
    try:
        return binary.cast(pa.string())
    except pa.ArrowInvalid:
        return binary  # bytes that are no text; no table reads them


def shortest_doubles(array: pa.Array) -> pa.Array:
    """Return float32 numbers as the float64 of their shortest decimals: 0.1 and not 0.10000000149.

    The format stores float32 whatever was written; both readings round to the same float32, and this one is the number
    that other sources of the same rows hold, so that they have one hash.

    Args:
        array: float32 of shape ``(num_rows,)``.
    """
    return array.cast(pa.string()).cast(pa.float64())
