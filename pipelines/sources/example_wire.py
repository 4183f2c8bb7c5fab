"""tf.train.Example messages of the usual form, read side by side.

The wire format (protobuf.dev/programming-guides/encoding) of messages that hold a map of features, each of one list:
all messages take a step together, from one feature to the next, and what is read of each is a vector over them.
Whatever else the format allows, such as lists in several pieces, is left to protobuf's own parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_FIELD_1, _FIELD_2 = 0x0A, 0x12
_MAX_NAME = 256
_SHORT_BYTES = 64
"""Texts that are shorter on average are moved byte by byte, all at once; longer ones a text at a time."""

_Places = NDArray[np.int64]


class OtherFormError(ValueError):
    """Some message is not of the usual form, or is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """The lists of one feature.

    Attributes:
        rows: Which message each is in, ``(num_lists,)``, rising.
        kinds: The number of its field in the feature: 1 of bytes, 2 of float, 3 of int64; ``(num_lists,)``.
        starts: Where the content of the list begins, ``(num_lists,)``.
        ends: Where it ends.
    """

    rows: _Places
    kinds: NDArray[np.uint8]
    starts: _Places
    ends: _Places


@dataclass(frozen=True, slots=True, kw_only=True)
class _Messages:
    """Messages one after the other, and some bytes behind them that nothing reads."""

    data: NDArray[np.uint8]
    starts: _Places
    ends: _Places

    def lengths_at(self, places: _Places) -> tuple[_Places, _Places]:
        """Return the varints at some places, of up to 4 bytes, and where what follows begins."""
        values, shift, going = np.zeros_like(places), 0, np.ones(len(places), bool)
        places = places.copy()
        while going.any():
            if shift > 21:
                raise OtherFormError
            byte = self.data[places].astype(np.int64)
            values += np.where(going, (byte & 127) << shift, 0)
            places += going
            going &= byte > 127
            shift += 7
        return values, places

    def field_at(self, places: _Places, ends: _Places, *, number: int | None = None) -> tuple[_Places, _Places]:
        """Return where the content of a field of some length begins and ends, which must be within `ends`."""
        if number is not None and (self.data[places] != number).any():
            raise OtherFormError
        lengths, starts = self.lengths_at(places + 1)
        if (starts + lengths > ends).any():
            raise OtherFormError
        return starts, starts + lengths


def read_features(records: Sequence[bytes]) -> tuple[NDArray[np.uint8], dict[str, Lists]]:
    """Return the bytes of messages, one after the other, and by name where the lists of each feature are.

    Args:
        records: Serialized messages, at least one.

    Raises:
        OtherFormError: Some message is not of the usual form, or is none.
    """
    ends = np.cumsum([len(record) for record in records])
    data = np.frombuffer(b"".join(records) + bytes(16), np.uint8)
    messages = _Messages(data=data, starts=np.append(0, ends[:-1]), ends=ends)
    # An empty message is one without features.
    rows = np.flatnonzero(messages.ends > messages.starts)
    places, stops = messages.field_at(messages.starts[rows], messages.ends[rows], number=_FIELD_1)
    if (stops != messages.ends[rows]).any():
        raise OtherFormError
    found: dict[str, list[Lists]] = {}
    while (going := places < stops).any():
        rows, places, stops = rows[going], places[going], stops[going]
        starts, after = messages.field_at(places, stops, number=_FIELD_1)
        for name, lists in _entries(messages, rows, starts, after).items():
            found.setdefault(name, []).append(lists)
        places = after
    return data, {name: _in_order(parts) for name, parts in found.items()}


def _entries(messages: _Messages, rows: _Places, starts: _Places, ends: _Places) -> dict[str, Lists]:
    """Return the lists of one entry of each map, by name."""
    names, name_ends = messages.field_at(starts, ends, number=_FIELD_1)
    features, feature_ends = messages.field_at(name_ends, ends, number=_FIELD_2)
    if (feature_ends != ends).any():
        raise OtherFormError
    kinds = np.zeros(len(rows), np.uint8)
    list_starts, list_ends = features.copy(), feature_ends.copy()
    has_kind = np.flatnonzero(features < feature_ends)
    if has_kind.size:
        tags = messages.data[features[has_kind]]
        if (((tags & 7) != 2) | (tags >> 3 < 1) | (tags >> 3 > 3)).any():
            raise OtherFormError
        inner, inner_ends = messages.field_at(features[has_kind], feature_ends[has_kind])
        if (inner_ends != feature_ends[has_kind]).any():
            raise OtherFormError
        kinds[has_kind], list_starts[has_kind], list_ends[has_kind] = tags >> 3, inner, inner_ends
    return {
        name: Lists(rows=rows[of], kinds=kinds[of], starts=list_starts[of], ends=list_ends[of])
        for name, of in _by_name(messages.data, names, name_ends).items()
    }


def _by_name(data: NDArray[np.uint8], starts: _Places, ends: _Places) -> dict[str, _Places]:
    """Return which of some names are the same: text to places among them."""
    lengths = ends - starts
    longest = int(lengths.max())
    if longest > _MAX_NAME:
        raise OtherFormError
    columns = np.arange(longest)
    inside = columns < lengths[:, np.newaxis]
    letters = np.where(inside, data[np.minimum(starts[:, np.newaxis] + columns, len(data) - 1)], 0).astype(np.uint8)
    found, waiting = {}, np.arange(len(starts))
    while waiting.size:
        first = waiting[0]
        same = (lengths[waiting] == lengths[first]) & (letters[waiting] == letters[first]).all(axis=1)
        try:
            name = letters[first, : lengths[first]].tobytes().decode()
        except UnicodeDecodeError as error:
            raise OtherFormError from error
        found[name], waiting = waiting[same], waiting[~same]
    return found


def _in_order(parts: Sequence[Lists]) -> Lists:
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    if (rows[1:] == rows[:-1]).any():  # the last of several entries of a name counts, says the format
        raise OtherFormError
    kinds, starts, ends = (
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("kinds", "starts", "ends")
    )
    return Lists(rows=rows, kinds=kinds, starts=starts, ends=ends)


def list_contents(data: NDArray[np.uint8], lists: Lists, kind: str) -> tuple[pa.Array, _Places]:
    """Return all values of a feature one after another, and how many each list has.

    Args:
        data: All bytes.
        lists: Where the lists are, all of one kind.
        kind: ``bytes_list``, ``float_list`` or ``int64_list``.

    Returns:
        binary, float32 or int64 values, and counts ``(num_lists,)``.

    Raises:
        OtherFormError: A list is in several pieces, or holds several texts.
    """
    counts = np.zeros(len(lists.rows), np.int64)
    full = np.flatnonzero(lists.starts < lists.ends)
    messages = _Messages(data=data, starts=lists.starts, ends=lists.ends)
    starts, ends = messages.field_at(lists.starts[full], lists.ends[full], number=_FIELD_1)
    if (ends != lists.ends[full]).any():
        raise OtherFormError
    lengths = ends - starts
    if kind == "bytes_list":
        counts[full] = 1
        return _texts(data, starts, lengths), counts
    content = data[_stretches(starts, lengths)]
    if kind == "float_list":
        if (lengths % 4).any():
            raise OtherFormError
        counts[full] = lengths // 4
        return pa.array(content.view("<f4")), counts
    last, stops = content < 128, np.cumsum(lengths)
    if not last[stops[lengths > 0] - 1].all():
        raise OtherFormError
    counts[full] = np.diff(np.append(0, np.cumsum(last))[np.append(0, stops)])
    return pa.array(_varints(content, last)), counts


def _stretches(starts: _Places, lengths: _Places) -> _Places:
    """Return the places of all bytes of some stretches."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _texts(data: NDArray[np.uint8], starts: _Places, lengths: _Places) -> pa.Array:
    if lengths.sum() > _SHORT_BYTES * max(1, len(lengths)):
        content = data.tobytes()
        return pa.array([content[i : i + n] for i, n in zip(starts.tolist(), lengths.tolist(), strict=True)])
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    flat = data[_stretches(starts, lengths)]
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(flat)])


def _varints(content: NDArray[np.uint8], last: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of varints that follow each other; negative ones have ten bytes."""
    if not len(content):
        return np.zeros(0, np.int64)
    begins = np.flatnonzero(np.append(True, last[:-1]))
    place = np.arange(len(content)) - np.repeat(begins, np.diff(np.append(begins, len(content))))
    if place.max() > 9:
        raise OtherFormError
    parts = (content & 127).astype(np.uint64) << (np.uint64(7) * place.astype(np.uint64))
    return np.bitwise_or.reduceat(parts, begins).view(np.int64)
