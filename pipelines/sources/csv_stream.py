"""A CSV file as a stream of tables: memory stays bounded however long the file is.

For rows that an existing schema reads. The types of a CSV file's columns are found chunk by chunk here; the schema
makes of them what it made of the whole column in training.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, final

import pyarrow as pa
import pyarrow.csv

from pipelines.errors import DataError
from pipelines.sources.csv_blocks import RowFormat, is_text, parse_block
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
from pipelines.sources.csv_scan import end_of_first_row, scan_rows
from pipelines.sources.file_format import first_line
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import wanted_columns
from pipelines.sources.stored_file import StoredFile

_READ_BYTES = 1 << 22
_BLOCK_BYTES = 1 << 22
_FIRST_BYTES = 1 << 20
"""The first block is read as text, for nothing is known of its types; a short one tells them as well."""

_MOST_BYTES = 1 << 26
"""Bytes after which a block without the end of a row is left to a reader that looks at every byte."""

_NUM_THREADS = 2
_ASCII_ALIKE = ("utf-8", "cp1252", "iso8859-1", "ascii")
"""Encodings in which ASCII stands for itself."""


def stream_csv(file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None) -> Iterator[pa.Table]:
    """Yield the rows of a CSV file in order, in tables of some megabytes; text may come in dictionaries.

    Args:
        file: The file.
        options: How to read it; what is left open is recognised as for a file that is read at once.
        columns: Columns to read; None for all. Where one of them is absent, all are read.

    Raises:
        DataError: The file is absent, no table, or broken somewhere.
    """
    options = options.named(file.name)
    with file.unpacked() as content:
        text = Utf8Stream(content, options)
        sample = sample_lines(text.peek(SAMPLE_BYTES + 1))
        if not sample:
            raise DataError(f"Expected a table, but {options.name!r} is empty; give a header and rows.")
        delimiter = options.delimiter or recognise_delimiter(sample)
        rows = [row for row in csv.reader(sample, delimiter=delimiter) if row][:SAMPLE_ROWS]
        names, _ = column_names_of(rows[0], options)
        if len(rows) == 1 and len(text.peek(SAMPLE_BYTES + 1)) <= SAMPLE_BYTES:
            return  # Arrow wants a row
        form = RowFormat(
            names=tuple(names),
            wanted=tuple(wanted_columns(names, columns)),
            delimiter=delimiter,
            decimal=options.decimal or recognise_decimal(rows[1:], delimiter),
            missing=pa.array(sorted(set(options.missing_values) | {""})),
            text_columns=options.text_columns,
        )
        yield from _side_by_side(text, form, options)


def _side_by_side(text: Utf8Stream, form: RowFormat, options: ReadOptions) -> Iterator[pa.Table]:
    """Yield the tables of blocks that threads parse; Arrow computes without the interpreter's lock."""
    hints: dict[str, pa.DataType] = {}
    wrong: set[str] = set()
    num_rows = 0
    waiting: deque[Future[tuple[pa.Table, set[str]]]] = deque()
    blocks = _Blocks(text, form)
    ended = False
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        while not ended or waiting:
            # The first block is waited for: the others are read by what it holds.
            while not ended and len(waiting) < (2 * _NUM_THREADS if hints else 1):
                block = blocks.next()
                ended = block is None
                if block:
                    known = {name: kind for name, kind in hints.items() if name not in wrong}
                    codes = blocks.may_hold_codes
                    waiting.append(pool.submit(parse_block, block, form, known, may_hold_codes=codes))
            if not waiting:
                break
            try:
                table, differing = waiting.popleft().result()
            except pa.ArrowInvalid as error:
                raise DataError(_why_broken(error, options.name, num_rows)) from error
            wrong |= differing
            for field in table.schema:
                if not is_text(hints.get(field.name)) and field.type != pa.null():
                    hints[field.name] = field.type
                    if field.type == pa.float64():
                        wrong.discard(field.name)
            num_rows += table.num_rows
            if table.num_rows:
                yield table
    if blocks.rest:
        rest = blocks.rest[end_of_first_row(blocks.rest) if blocks.has_header else 0 :]
        yield from _one_after_the_other(_Rest(rest, text), form, options, num_rows)


def _one_after_the_other(
    text: _Rest, form: RowFormat, options: ReadOptions, num_rows: int
) -> Iterator[pa.Table]:
    """Yield the tables of text whose quotes stand anywhere: only reading from the start tells where a row ends."""
    last = ""
    try:
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(text, mode="r"),
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(form.names), block_size=_BLOCK_BYTES, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(form.names, pa.string()), include_columns=list(form.wanted)
            ),
        )
        for batch in reader:
            num_rows += batch.num_rows
            if batch.num_rows:
                last = batch.column(batch.num_columns - 1)[-1].as_py() or ""
                yield pa.table(
                    {
                        name: convert_text(
                            pa.chunked_array([batch.column(name)]),
                            missing=form.missing,
                            decimal=form.decimal,
                            keep_text=name in form.text_columns,
                        )
                        for name in form.wanted
                    }
                )
    except pa.ArrowInvalid as error:
        raise DataError(_why_broken(error, options.name, num_rows)) from error
    if text.num_quotes % 2 and ("\n" in last or "\r" in last):
        raise DataError(f"Expected every quote in {options.name!r} to be closed, but the last one is not; close it.")


def _why_broken(error: Exception, name: str, num_rows: int) -> str:
    reason = first_line(error).removeprefix("CSV parse error: ")
    return (
        f"{name!r} cannot be read as CSV after row {num_rows:,} ({reason[:200]}); look for an unclosed quote, a "
        "row with other fields than the header, or another delimiter."
    )


def _known_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise DataError(
            f"Expected the name of an encoding such as utf-8, cp1252 or utf-16, received {name!r}."
        ) from error


@final
class _Blocks:
    """The text below the header in blocks of whole rows.

    Attributes:
        rest: What is left when quotes do not tell where rows end.
        may_hold_codes: Of the last block, False where no field begins with a zero before another digit or an x.
    """

    def __init__(self, text: Utf8Stream, form: RowFormat) -> None:
        self._text, self._form = text, form
        self._kept, self._header, self._ended = b"", True, False
        self.rest = b""
        self.may_hold_codes = True

    def next(self) -> bytes | None:
        """Return the next block, which may be empty; None at the end."""
        if self._ended:
            return None
        block = self._kept
        while True:
            more = self._text.read(min(_BLOCK_BYTES, _FIRST_BYTES) if self._header else _BLOCK_BYTES)
            block += more
            scan = scan_rows(block, delimiter=self._form.delimiter, is_last=not more)
            end, self.may_hold_codes = scan.end, scan.may_hold_codes
            if end is None or (not end and more and len(block) > _MOST_BYTES):
                self._ended, self.rest = True, block
                # Another reader finds the header itself, where it still stands above.
                return None
            if end or not more:
                self._ended, self._kept = not more, block[end:]
                start = end_of_first_row(block) if self._header else 0
                self._header = False
                return block[start:end]

    @property
    def has_header(self) -> bool:
        """Whether the header stands above the rest."""
        return self._header


@final
class _Rest(io.RawIOBase):
    """The text that begins with some bytes and goes on with a stream."""

    def __init__(self, begun: bytes, text: Utf8Stream) -> None:
        super().__init__()
        self._begun, self._text = begun, text
        self.num_quotes = 0

    def readable(self) -> bool:
        """Return whether it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        size = _READ_BYTES if size < 0 else size
        if self._begun:
            content, self._begun = self._begun[:size], self._begun[size:]
        else:
            content = self._text.read(size)
        self.num_quotes += content.count(b'"')
        return content


@final
class Utf8Stream:
    """The bytes of a file as UTF-8, without byte order mark and without empty lines above the header.

    Args:
        file: The bytes of the file.
        options: The encoding, if it is known, and the name for messages.

    Raises:
        DataError: The file is empty, or its beginning is no text.
    """

    def __init__(self, file: IO[bytes], options: ReadOptions) -> None:
        self._file, self._options = file, options
        block = file.read(_READ_BYTES)
        if not block.strip():
            raise DataError(
                f"Expected a table, but the file {options.name!r} is empty; give a file with a header and rows."
            )
        marked = next((name for mark, name in BYTE_ORDER_MARKS if block.startswith(mark)), None)
        self._is_known = bool(options.encoding or marked)
        self._encoding = _known_encoding(options.encoding or marked or "utf-8")
        if not self._is_known:
            refuse_binary(block[: 1 << 20], options)
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._is_ascii, self._ended = True, False
        self._ready = self._as_utf8(block).removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
        while not self._ready and not self._ended:
            self._fill()
            self._ready = self._ready.lstrip(b"\r\n")

    def peek(self, size: int) -> bytes:
        """Return up to `size` bytes that a later read returns again."""
        while len(self._ready) < size and not self._ended:
            self._fill()
        return self._ready[:size]

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, as many as are at hand; b"" only at the end."""
        self.peek(1)
        content, self._ready = self._ready[:size], self._ready[size:]
        return content

    def _fill(self) -> None:
        block = self._file.read(_READ_BYTES)
        self._ended = not block
        self._ready += self._as_utf8(block)

    def _as_utf8(self, block: bytes) -> bytes:
        if self._encoding in _ASCII_ALIKE and block.isascii() and not self._decoder.getstate()[0] and block:
            content = block
        else:
            content = self._decoded(block).encode()
        if b"\0" in content:
            raise DataError(
                f"Expected text, but {self._options.name!r} holds NUL characters; it is not a CSV file in "
                f"{self._encoding}."
            )
        return content

    def _decoded(self, block: bytes) -> str:
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # Valid sequences before the bad byte say that it is damaged UTF-8; plain ASCII says nothing yet.
            plain = self._is_ascii and bytes(error.object[: error.start]).isascii()
            if self._is_known or self._encoding != "utf-8" or not plain:
                message = wrong_encoding(error.object, self._encoding, error, self._options)
                raise DataError(message) from error
            self._encoding, block = "cp1252", bytes(error.object)
            self._decoder = codecs.getincrementaldecoder("cp1252")()
            return self._decoded(block)
        self._is_ascii = self._is_ascii and text.isascii()
        return text
