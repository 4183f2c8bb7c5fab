"""A CSV file as a stream of tables: memory stays bounded however long the file is.

For rows that an existing schema reads. The types of a CSV file's columns are found chunk by chunk here; the schema
makes of them what it made of the whole column in training.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Collection, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.csv

from pipelines.errors import DataError
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
from pipelines.sources.file_format import first_line
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import wanted_columns
from pipelines.sources.stored_file import StoredFile

_READ_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 22
"""No row of a CSV file may be longer than this."""


def stream_csv(file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None) -> Iterator[pa.Table]:
    """Yield the rows of a CSV file in order, in tables of some megabytes.

    Args:
        file: The file.
        options: How to read it; what is left open is recognised as for a file that is read at once.
        columns: Columns to read; None for all. Where one of them is absent, all are read.

    Raises:
        DataError: The file is absent, no table, or broken somewhere.
    """
    options = options.named(file.name)
    encoding = _encoding_of(file, options)
    with file.unpacked() as content:
        text = _Utf8Stream(content, encoding, options)
        sample = sample_lines(text.peek(SAMPLE_BYTES + 1))
        if not sample:
            raise DataError(f"Expected a table, but {options.name!r} is empty; give a header and rows.")
        delimiter = options.delimiter or recognise_delimiter(sample)
        rows = [row for row in csv.reader(sample, delimiter=delimiter) if row][:SAMPLE_ROWS]
        decimal = options.decimal or recognise_decimal(rows[1:], delimiter)
        names, _ = column_names_of(rows[0], options)
        if len(rows) == 1 and len(text.peek(SAMPLE_BYTES + 1)) <= SAMPLE_BYTES:
            return  # Arrow wants a row
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
    wanted = wanted_columns(names, columns)
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
        reason = first_line(error).removeprefix("CSV parse error: ")
        raise DataError(
            f"{options.name!r} cannot be read as CSV after row {row:,} ({reason[:200]}); look for an unclosed quote, a "
            "row with other fields than the header, or another delimiter."
        ) from error


def _encoding_of(file: StoredFile, options: ReadOptions) -> str:
    """Return the encoding; the whole file is looked at, because its last line may be the first that is not ASCII."""
    with file.unpacked() as content:
        block = content.read(_READ_BYTES)
        if not block.strip():
            raise DataError(
                f"Expected a table, but the file {file.name!r} is empty; give a file with a header and rows."
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
                block = content.read(_READ_BYTES)
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
        block = self._file.read(_READ_BYTES)
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
