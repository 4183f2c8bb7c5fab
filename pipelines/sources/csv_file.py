"""CSV files: encoding, delimiter and decimal comma are recognised, types are found column by column.

All fields are read as text first and converted afterwards, so that the type of a column depends on all of its values
and never on where a block of the file happens to end.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipelines.column_values import has_leading_zeros, spelled_truths
from pipelines.errors import DataError
from pipelines.sources.file_format import Content, unite
from pipelines.sources.options import DELIMITERS, ReadOptions
from pipelines.sources.source import Parsed
from pipelines.sources.table_checks import check_column_names

SAMPLE_BYTES = 1 << 16
SAMPLE_ROWS = 200
_BLOCK_BYTES = 1 << 24
# Longest first: the mark of UTF-32 begins with the one of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC = {b"PAR1": "Parquet; name it .parquet", b"PK\x03\x04": "a zip archive or an Excel sheet; save it as CSV"}
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\x0b\x1a\x1b"))
_NAMES = {"\t": "tab", " ": "blank"}
_COMMA_NUMBER = re.compile(r"^\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*$")
_POINT_NUMBER = re.compile(r"^\s*[+-]?\d*\.\d+(?:[eE][+-]?\d+)?\s*$")


@dataclass(frozen=True, slots=True)
class _TextTable:
    """A CSV file whose fields are still text."""

    name: str
    table: pa.Table
    decimal: str
    notes: tuple[str, ...]


def parse_csv(contents: Iterable[Content], options: ReadOptions) -> Parsed:
    """Read CSV files as one table; the type of a column depends on its values in all of them.

    Args:
        contents: The files.
        options: How to read them; what is left open is recognised.

    Raises:
        DataError: A file is no text, not in the encoding, or no table.
    """
    texts = [_read_text(content, options.named(content.name)) for content in contents]
    table = unite([(text.name, text.table) for text in texts])
    # A decimal point is read as well where another file has commas.
    decimal = "," if any(text.decimal == "," for text in texts) else "."
    missing = pa.array(sorted(set(options.missing_values) | {""}))

    def convert(name: str) -> pa.ChunkedArray:
        keep_text = name in options.text_columns
        return convert_text(table.column(name), missing=missing, decimal=decimal, keep_text=keep_text)

    # Arrow computes without the interpreter's lock, so threads share the columns out.
    with ThreadPoolExecutor() as pool:
        columns = dict(zip(table.column_names, pool.map(convert, table.column_names), strict=True))
    notes = dict.fromkeys(note for text in texts for note in text.notes)
    rows = tuple(text.table.num_rows for text in texts)
    return Parsed(table=pa.table(columns), notes=tuple(notes), part_rows=rows)


def _read_text(content: Content, options: ReadOptions) -> _TextTable:
    text, encoding = _to_utf8(content.data, options)
    first_line = 1 + text.count(b"\n", 0, len(text) - len(text.lstrip(b"\r\n")))
    text = text.lstrip(b"\r\n")  # Arrow would take an empty line above the header for the header
    sample = sample_lines(text)
    if not sample:
        raise DataError(f"Expected a table, but {options.name!r} is empty; give a header and rows.")
    delimiter = options.delimiter or recognise_delimiter(sample)
    rows = [row for row in csv.reader(sample, delimiter=delimiter) if row][:SAMPLE_ROWS]
    decimal = options.decimal or recognise_decimal(rows[1:], delimiter)
    names, renamed = column_names_of(rows[0], options)
    if len(rows) == 1 and len(text) <= SAMPLE_BYTES:
        return _TextTable(options.name, _no_rows(names), decimal, ())  # Arrow wants a row
    try:
        table = _read_text_table(text, names, delimiter=delimiter)
    except pa.ArrowInvalid as error:
        raise DataError(
            _why_unreadable(text, error, delimiter=delimiter, name=options.name, line=first_line)
        ) from error
    _refuse_open_quote(text, table, name=options.name, line=first_line)
    notes = []
    if encoding not in ("utf-8", options.encoding):
        notes.append(f"Encoding recognised as {encoding}.")
    if options.delimiter is None and delimiter != ",":
        notes.append(f"Delimiter recognised as {_NAMES.get(delimiter, delimiter)!r}.")
    if options.decimal is None and decimal != ".":
        notes.append("Decimal comma recognised.")
    if renamed:
        notes.append(f"{renamed} column(s) without a name were named by their position.")
    return _TextTable(options.name, table, decimal, tuple(notes))


def _to_utf8(content: bytes, options: ReadOptions) -> tuple[bytes, str]:
    """Return the text as UTF-8 without a byte order mark, and the name of the encoding that it had."""
    marked = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    encoding = options.encoding or marked
    if encoding is None:
        refuse_binary(content, options)
        encoding = _recognise_encoding(content, options)
    try:
        text = content.decode(encoding)
    except LookupError as error:
        raise DataError(
            f"Expected the name of an encoding such as utf-8, cp1252 or utf-16, received {encoding!r}."
        ) from error
    except UnicodeError as error:
        raise DataError(wrong_encoding(content, encoding, error, options)) from error
    if "\0" in text:
        raise DataError(
            f"Expected text, but {options.name!r} holds NUL characters; it is not a CSV file in {encoding}."
        )
    plain = codecs.lookup(encoding).name == "utf-8"
    encoded = content if plain else text.removeprefix("\ufeff").encode("utf-8")
    return encoded.removeprefix(codecs.BOM_UTF8), "utf-8" if encoding == "utf-8-sig" else encoding


def refuse_binary(content: bytes, options: ReadOptions) -> None:
    """Refuse the beginning of a file that is no text.

    Args:
        content: The file, or its beginning.
        options: For the name.

    Raises:
        DataError: It is Parquet, an archive, or another binary format.
    """
    kind = next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)
    if kind:
        raise DataError(f"Expected a CSV file, but {options.name!r} is {kind}.")
    sample = content[:SAMPLE_BYTES]
    num_control = len(sample) - len(sample.translate(None, delete=_CONTROL))
    position = content.find(b"\0")
    if position >= 0 or num_control > 0.01 * len(sample):
        where = f"a NUL byte at offset {position:,}" if position >= 0 else f"{num_control:,} control characters"
        raise DataError(
            f"Expected a CSV file, but {options.name!r} is not text ({where}); convert it to CSV or Parquet."
        )


def _recognise_encoding(content: bytes, options: ReadOptions) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        # Valid UTF-8 sequences before the bad byte say that the file is UTF-8 and damaged, not of another encoding.
        if not content[: error.start].isascii():
            raise DataError(wrong_encoding(content, "utf-8", error, options)) from error
        return "cp1252"
    return "utf-8"


def wrong_encoding(content: bytes, encoding: str, error: UnicodeError, options: ReadOptions) -> str:
    """Return the message for bytes that are not in an encoding.

    Args:
        content: Where the bytes stand.
        encoding: Python's name of the encoding.
        error: Where decoding stopped.
        options: For the name.
    """
    where = ""
    if isinstance(error, UnicodeDecodeError):
        byte = content[error.start : error.start + 1].hex().upper()
        where = f", but byte 0x{byte} at offset {error.start:,} is none"
    return (
        f"Expected text in {encoding} in {options.name!r}{where}; name the right one with --encoding, such as cp1252."
    )


def sample_lines(text: bytes) -> list[str]:
    """Return the first lines, from which delimiter, decimal mark and column names are recognised.

    Args:
        text: UTF-8, the whole file or more than ``SAMPLE_BYTES`` of it.
    """
    sample = text[:SAMPLE_BYTES].decode("utf-8", errors="ignore")
    lines = io.StringIO(sample, newline="").read().splitlines(keepends=True)
    # The last line of a cut sample is half a line.
    return lines[:-1] if len(text) > SAMPLE_BYTES and len(lines) > 1 else lines


def recognise_delimiter(lines: list[str]) -> str:
    """Return the delimiter that cuts most lines into as many fields as the first one has.

    Args:
        lines: The first lines.
    """
    def score(delimiter: str) -> tuple[float, int]:
        rows = [row for row in csv.reader(lines[:SAMPLE_ROWS], delimiter=delimiter) if row]
        width = len(rows[0]) if rows else 1
        # Half a quoted field may end the sample, which is one row out of many.
        same = sum(len(row) == width for row in rows) / max(len(rows), 1)
        return (round(same, 1), width) if width > 1 else (0.0, 0)

    return max(DELIMITERS, key=score)


def recognise_decimal(rows: list[list[str]], delimiter: str) -> str:
    """Return the decimal mark that most numbers have.

    Args:
        rows: The first rows, without the header.
        delimiter: A comma between fields is none within numbers.
    """
    if delimiter == ",":
        return "."
    fields = [field for row in rows for field in row]
    commas = sum(bool(_COMMA_NUMBER.match(field)) for field in fields)
    points = sum(bool(_POINT_NUMBER.match(field)) for field in fields)
    return "," if commas > points else "."


def column_names_of(header: list[str], options: ReadOptions) -> tuple[list[str], int]:
    """Return the column names and how many of them were made up.

    Args:
        header: The first row.
        options: For the name.

    Raises:
        DataError: A name occurs twice.
    """
    stripped = [name.strip() for name in header]
    names = [name or f"column_{index + 1}" for index, name in enumerate(stripped)]
    check_column_names(names, options.name)
    return names, sum(not name for name in stripped)


def _no_rows(names: list[str]) -> pa.Table:
    return pa.schema([(name, pa.string()) for name in names]).empty_table()


def _read_text_table(text: bytes, names: list[str], *, delimiter: str) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows_after_names=1, block_size=_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in text),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _why_unreadable(text: bytes, error: Exception, *, delimiter: str, name: str, line: int) -> str:
    """Find the first row with too few or too many fields; Arrow's own message does not know its line."""
    reader = csv.reader(io.StringIO(text.decode("utf-8"), newline=""), delimiter=delimiter)
    width = len(next(reader))
    start = line + reader.line_num
    try:
        for row in reader:
            if row and len(row) != width:
                shown = delimiter.join(row)
                shown = shown if len(shown) <= 60 else shown[:57] + "..."
                return (
                    f"Expected {width} fields in every row of {name!r}, but line {start} has {len(row)}: {shown!r}; "
                    "mend this line, or name the delimiter with --delimiter."
                )
            start = line + reader.line_num
    except csv.Error as broken:
        error = broken
    reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
    return f"{name!r} cannot be read as CSV ({reason}); look for an unclosed quote or another delimiter."


def _refuse_open_quote(text: bytes, table: pa.Table, *, name: str, line: int) -> None:
    """Refuse a file whose last field swallowed all lines after a quote that is never closed; Arrow accepts it."""
    if table.num_rows == 0 or text.count(b'"') % 2 == 0:
        return
    last = table.column(table.num_columns - 1)[-1].as_py()
    if "\n" in last or "\r" in last:
        line += text.count(b"\n", 0, len(text) - len(last.encode("utf-8")))
        raise DataError(
            f"Expected every quote in {name!r} to be closed, but the one opened in line {line} is not; close it."
        )


def convert_text(column: pa.ChunkedArray, *, missing: pa.Array, decimal: str, keep_text: bool) -> pa.ChunkedArray:
    """Return a column of text as the narrowest of int64, float64, bool and string.

    Args:
        column: The fields as they stand in the file.
        missing: Texts that stand for a missing value.
        decimal: ``.`` or ``,``.
        keep_text: Whether it stays text whatever it looks like.
    """
    text = _without_missing(column, missing)
    if text.null_count == len(text):
        return text if keep_text else pa.chunked_array([pa.nulls(len(text))])
    if keep_text or has_leading_zeros(text):
        return text
    numbers = pc.replace_substring(text, ",", ".") if decimal == "," else text
    for type_ in (pa.int64(), pa.float64()):
        try:
            # A few values settle most columns; Arrow converts all of them before it reports a failure.
            numbers.slice(0, SAMPLE_ROWS).cast(type_)
            converted = numbers.cast(type_)
        except pa.ArrowInvalid:
            continue
        # Arrow reads 0x1F as an integer; people who write it mean a code.
        hexadecimal = type_ == pa.int64() and pc.any(pc.match_substring(numbers, "x", ignore_case=True)).as_py()
        return text if hexadecimal else converted
    truths = spelled_truths(text)
    return text if truths is None else truths


def _without_missing(column: pa.ChunkedArray, missing: pa.Array) -> pa.ChunkedArray:
    """Return text without blanks around it, null where it stands for a missing value."""
    words = column.unique()
    trimmed = pc.utf8_trim_whitespace(words)
    # Most columns have neither blanks nor gaps, which a look at the few different words tells.
    text = column if trimmed.equals(words) else pc.utf8_trim_whitespace(column)
    if not pc.any(pc.is_in(trimmed, missing)).as_py():
        return text
    return pc.if_else(pc.is_in(text, missing), pa.scalar(None, pa.string()), text)
