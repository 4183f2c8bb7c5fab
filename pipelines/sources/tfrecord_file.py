"""TFRecord files of tf.train.Example, read without TensorFlow; both checksums of every record are compared.

A record is its length (8 bytes), the masked CRC-32C of the length (4), the message, and the masked CRC-32C of the
message (4), all little-endian.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, final

import numpy as np
import pyarrow as pa

from pipelines.errors import DataError
from pipelines.sources.crc32c import masked_crc32c, masked_crc32c_of, masked_crc32c_of_rows
from pipelines.sources.example_proto import KINDS, column_of, parse_examples
from pipelines.sources.file_format import Content, FileFormat, unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed, complete, wanted_columns
from pipelines.sources.stored_file import StoredFile

_HEADER = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_FOOTER = struct.Struct("<I")
_BATCH_RECORDS = 8_192
_BATCH_BYTES = 1 << 23
_MAX_RECORD = 1 << 30


@dataclass(frozen=True, slots=True)
class _Records:
    """Consecutive records, with the number and the offset of the first, and the offset of each."""

    data: list[bytes]
    first: int
    offsets: list[int]


@final
class TfRecordFormat(FileFormat):
    """Records with the same features; one that a record lacks, or whose list is empty, is missing there."""

    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table."""
        del options
        parts = []
        for content in contents:
            tables = list(example_tables(io.BytesIO(content.data), content.name))
            parts.append((content.name, _stacked(tables, content.name)))
        names = list(dict.fromkeys(name for _, table in parts for name in table.column_names))
        table = unite([(name, complete(table, names)) for name, table in parts])
        return Parsed(table=table, part_rows=tuple(table.num_rows for _, table in parts))

    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in order."""
        del options, chunk_rows
        known: list[str] = []
        with file.unpacked() as content:
            for table in example_tables(content, file.name):
                known = sorted({*known, *table.column_names})
                yield complete(table, wanted_columns(known, columns))


def example_tables(file: IO[bytes], name: str) -> Iterator[pa.Table]:
    """Yield the records of a TFRecord file as tables, their columns in the order of their names.

    Args:
        file: The file.
        name: Its name in messages.

    Raises:
        DataError: A checksum does not fit, the file is cut off, a record is no tf.train.Example, or a feature is of
            different kinds.
    """
    names, kinds = list(KINDS), dict[str, str]()
    for records in _batches(file, name):
        try:
            features = parse_examples(records.data)
        except ValueError as error:
            number = int(error.args[0])
            raise DataError(
                f"Expected a tf.train.Example in every record of {name!r}, but record {records.first + number + 1:,} "
                f"at byte {records.offsets[number]:,} is none."
            ) from error
        columns = {}
        for column in sorted(features):
            found = features[column]
            if column not in kinds and found.kinds.any():
                kinds[column] = names[found.kinds[found.kinds > 0][0] - 1]
            expected = names.index(kinds.get(column, names[0])) + 1
            other = np.flatnonzero((found.kinds > 0) & (found.kinds != expected))
            if other.size:
                number = int(other[0])
                raise DataError(
                    f"Expected {KINDS[kinds[column]]} values of the feature {column!r} in every record, as in "
                    f"those before, but record {records.first + number + 1:,} of {name!r} at byte "
                    f"{records.offsets[number]:,} has {KINDS[names[found.kinds[number] - 1]]}."
                )
            none = found.column is None
            columns[column] = column_of(names[expected - 1], [()] * len(records.data)) if none else found.column
        yield pa.table(columns)


def _stacked(tables: list[pa.Table], name: str) -> pa.Table:
    if not tables:
        raise DataError(f"Expected rows, but {name!r} holds no record.")
    names = sorted({column for table in tables for column in table.column_names})
    return unite([(name, complete(table, names)) for table in tables])


def _batches(file: IO[bytes], name: str) -> Iterator[_Records]:
    offset, number, block = 0, 0, b""
    wanted = _BATCH_BYTES
    while True:
        more = _exactly(file, max(0, wanted - len(block)))
        block += more
        if not block:
            return
        starts, ends = _whole_records(block)
        if not starts:
            # The checksum comes before the length is believed, for it says how much to read.
            wanted = _length_of_first(block, name, offset) + _HEADER.size + _FOOTER.size
            if len(block) < wanted and not more:
                raise _cut_off(name, offset)
            continue
        _check_lengths(block, starts, name, offset)
        records = [block[start + _HEADER.size : end] for start, end in zip(starts, ends, strict=True)]
        batch = _Records(records, number, [offset + start for start in starts])
        _check(batch, [_FOOTER.unpack_from(block, end)[0] for end in ends], name)
        yield batch
        read = ends[-1] + _FOOTER.size
        block, wanted = block[read:], _BATCH_BYTES
        offset, number = offset + read, number + len(records)


def _whole_records(block: bytes) -> tuple[list[int], list[int]]:
    """Return where the records begin that a block holds whole, and where their messages end, if lengths are right."""
    starts: list[int] = []
    ends: list[int] = []
    start, last, length_at = 0, len(block) - _HEADER.size, _LENGTH.unpack_from
    for _ in range(_BATCH_RECORDS):
        if start > last:
            break
        end = start + _HEADER.size + length_at(block, start)[0]
        if end + _FOOTER.size > len(block):
            break
        starts.append(start)
        ends.append(end)
        start = end + _FOOTER.size
    return starts, ends


def _length_of_first(block: bytes, name: str, offset: int) -> int:
    if len(block) < _HEADER.size:
        raise _cut_off(name, offset)
    length, crc = _HEADER.unpack_from(block)
    if length > _MAX_RECORD or masked_crc32c_of(block[: _LENGTH.size]) != crc:
        raise _damaged(name, offset, "its length")
    return int(length)


def _check_lengths(block: bytes, starts: list[int], name: str, offset: int) -> None:
    headers = np.frombuffer(block, np.uint8)[np.array(starts)[:, np.newaxis] + np.arange(_HEADER.size)]
    found = masked_crc32c_of_rows(headers[:, : _LENGTH.size])
    wrong = np.flatnonzero(found != np.ascontiguousarray(headers[:, _LENGTH.size :]).view("<u4")[:, 0])
    if wrong.size:
        raise _damaged(name, offset + starts[int(wrong[0])], "its length")


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    while data and len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _check(batch: _Records, expected: list[int], name: str) -> None:
    for number, crc in enumerate(masked_crc32c(batch.data).tolist()):
        if crc != expected[number]:
            raise _damaged(name, batch.offsets[number], f"record {batch.first + number + 1:,}")


def _damaged(name: str, offset: int, what: str) -> DataError:
    return DataError(
        f"Expected a whole TFRecord file, but in {name!r} the checksum of {what} at byte {offset:,} does not fit; the "
        "file is damaged or no TFRecord, fetch it again."
    )


def _cut_off(name: str, offset: int) -> DataError:
    return DataError(
        f"Expected a whole TFRecord file, but {name!r} is cut off in the record at byte {offset:,}; fetch it again."
    )
