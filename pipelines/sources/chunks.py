"""A file as a stream of tables: memory stays bounded however long the file is.

For rows that an existing schema reads. The types of a CSV file's columns are found chunk by chunk here; the schema
makes of them what it made of the whole column in training.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.sources import reader_of
from pipelines.sources.csv_file import (
    BYTE_ORDER_MARKS,
    SAMPLE_BYTES,
    SAMPLE_ROWS,
    column_names_of,
    convert_text,
    recognise_decimal,
    recognise_delimiter,
    refuse_binary,
    sample_lines,
    wrong_encoding,
)
from pipelines.sources.memory import plain_source
from pipelines.sources.options import ReadOptions
from pipelines.sources.parquet_file import parse_parquet
from pipelines.sources.stored_bytes import require_file

_READ_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 22
"""No row of a CSV file may be longer than this."""
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive rows of a file.

    Attributes:
        table: The rows; columns of plain types.
        first_row: Number of the first of them, from 0.
    """

    table: pa.Table
    first_row: int


def read_chunks(
    path: Path, *, options: ReadOptions, chunk_rows: int, columns: Collection[str] | None = None
) -> Iterator[Chunk]:
    """Yield the rows of a file in order.

    Args:
        path: A .csv, .tsv, .txt (each also .gz) or .parquet file.
        options: How to read it; what is left open is recognised as for a file that is read at once.
        chunk_rows: Rows of a chunk at most.
        columns: Columns to read; None for all. Where one of them is absent, all are read.

    Raises:
        DataError: The file is absent, no table, or broken somewhere.
    """
    require_file(path)
    options = options.named(str(path))
    read = _parquet if reader_of(path) is parse_parquet else _csv
    row = 0
    for table in read(path, options, columns=columns, chunk_rows=chunk_rows):
        for start in range(0, table.num_rows, chunk_rows):
            part = table.slice(start, chunk_rows)
            yield Chunk(plain_source(part, options.name), row)
            row += part.num_rows
    if row == 0:
        raise DataError(f"Expected rows, but {options.name!r} has a header and no row below it.")


def _parquet(
    path: Path, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
            wanted = _wanted(names, columns)
            for batch in file.iter_batches(batch_size=chunk_rows, columns=wanted):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
        raise DataError(f"Expected a Parquet file, but {options.name!r} cannot be read as one ({reason}).") from error


def _csv(path: Path, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int) -> Iterator[pa.Table]:
    del chunk_rows  # Arrow cuts a CSV file by bytes
    encoding = _encoding_of(path, options)
    with ExitStack() as stack:
        text = _Utf8Stream(stack.enter_context(_opened(path)), encoding, options)
        sample = sample_lines(text.peek(SAMPLE_BYTES + 1))
        if not sample:
            raise DataError(f"Expected a table, but {options.name!r} is empty; give a header and rows.")
        delimiter = options.delimiter or recognise_delimiter(sample)
        rows = [row for row in csv.reader(sample, delimiter=delimiter) if row][:SAMPLE_ROWS]
        decimal = options.decimal or recognise_decimal(rows[1:], delimiter)
        names, _ = column_names_of(rows[0], options)
        missing = pa.array(sorted(set(options.missing_values) | {""}))
        num_rows, last = 0, ""
        for batch in _batches(text, names, delimiter=delimiter, columns=columns, options=options):
            num_rows += batch.num_rows
            last = (batch.column(batch.num_columns - 1)[-1].as_py() or "") if batch.num_rows else last
            if batch.num_rows:
                yield pa.table(
                    {
                        name: convert_text(
                            pa.chunked_array([batch.column(name)]),
                            missing=missing,
                            decimal=decimal,
                            keep_text=name in options.text_columns,
                        )
                        for name in batch.schema.names
                    }
                )
        if text.num_quotes % 2 and ("\n" in last or "\r" in last):
            raise DataError(
                f"Expected every quote in {options.name!r} to be closed, but the last one is not; close it."
            )


def _batches(
    text: _Utf8Stream, names: list[str], *, delimiter: str, columns: Collection[str] | None, options: ReadOptions
) -> Iterator[pa.RecordBatch]:
    wanted = _wanted(names, columns)
    row = 0
    try:
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(text, mode="r"),
            # One thread: the message on a broken row then knows its number.
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, skip_rows_after_names=1, block_size=_BLOCK_BYTES, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), include_columns=wanted
            ),
        )
        for batch in reader:
            yield batch
            row += batch.num_rows
    except pa.ArrowInvalid as error:
        reason = str(error).split("\n", maxsplit=1)[0].removeprefix("CSV parse error: ").rstrip(".")
        raise DataError(
            f"{options.name!r} cannot be read as CSV after row {row:,} ({reason[:200]}); look for an unclosed quote, a "
            "row with other fields than the header, or another delimiter."
        ) from error


def _wanted(names: list[str], columns: Collection[str] | None) -> list[str]:
    if columns is None or not set(columns) <= set(names):
        return names  # a column is absent: the message about it names those that are there
    return [name for name in names if name in columns]


def _opened(path: Path) -> IO[bytes]:
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == _GZIP_MAGIC
        return gzip.open(path) if is_gzip else path.open("rb")  # type: ignore[return-value]  # read alike
    except OSError as error:
        raise DataError(f"The file {str(path)!r} cannot be read ({error.strerror}).") from error


def _read(file: IO[bytes], size: int, name: str) -> bytes:
    try:
        return file.read(size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"Expected a complete gzip file, but {name!r} is cut off or broken ({error}); fetch it again."
        ) from error


def _encoding_of(path: Path, options: ReadOptions) -> str:
    """Return the encoding; the whole file is looked at, because its last line may be the first that is not ASCII."""
    with _opened(path) as file:
        block = _read(file, _READ_BYTES, options.name)
        if not block.strip():
            raise DataError(
                f"Expected a table, but the file {str(path)!r} is empty; give a file with a header and rows."
            )
        marked = next((name for mark, name in BYTE_ORDER_MARKS if block.startswith(mark)), None)
        if options.encoding or marked:
            return _known_encoding(options.encoding or marked or "")
        refuse_binary(block, options)
        decoder = codecs.getincrementaldecoder("utf-8")()
        is_ascii = True
        try:
            while block:
                decoder.decode(block)
                is_ascii = is_ascii and block.isascii()
                block = _read(file, _READ_BYTES, options.name)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            # As for a file that is read at once: valid sequences before the bad byte say that it is damaged UTF-8.
            if not is_ascii or not bytes(error.object[: error.start]).isascii():
                raise DataError(wrong_encoding(error.object, "utf-8", error, options)) from error
            return "cp1252"
    return "utf-8"


def _known_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise DataError(
            f"Expected the name of an encoding such as utf-8, cp1252 or utf-16, received {name!r}."
        ) from error


class _Utf8Stream(io.RawIOBase):
    """The bytes of a file as UTF-8, without byte order mark and without empty lines above the header."""

    def __init__(self, file: IO[bytes], encoding: str, options: ReadOptions) -> None:
        super().__init__()
        self._file, self._encoding, self._options = file, encoding, options
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._ended = False
        self.num_quotes = 0
        while not self._ready and not self._ended:
            self._fill()
            self._ready = self._ready.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")

    def readable(self) -> bool:
        """Return whether it can be read."""
        return True

    def peek(self, size: int) -> bytes:
        """Return up to `size` bytes that a later read returns again."""
        while len(self._ready) < size and not self._ended:
            self._fill()
        return self._ready[:size]

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        if size < 0:
            size = _READ_BYTES
        while not self._ready and not self._ended:
            self._fill()
        content, self._ready = self._ready[:size], self._ready[size:]
        self.num_quotes += content.count(b'"')
        return content

    def _fill(self) -> None:
        block = _read(self._file, _READ_BYTES, self._options.name)
        self._ended = not block
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            message = wrong_encoding(error.object, self._encoding, error, self._options)
            raise DataError(message) from error
        if "\0" in text:
            raise DataError(
                f"Expected text, but {self._options.name!r} holds NUL characters; it is not a CSV file in "
                f"{self._encoding}."
            )
        self._ready += text.encode()
