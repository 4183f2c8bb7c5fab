"""Blocks of whole rows of a CSV file, parsed side by side.

A block ends at a line break outside quotes, which is known without parsing as long as quotes stand where RFC 4180 has
them: around whole fields, doubled within. Numbers are read as such where the blocks before had numbers, and as text
first where that does not work, so that a column gets the type that ``convert_text`` gives it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipelines.column_values import has_leading_zeros
from pipelines.sources.csv_file import convert_text

_QUOTE = ord('"')
_NUMBERS = (pa.int64(), pa.float64())
_COLUMN_NUMBER = re.compile(r"CSV column #(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFormat:
    """How the rows of a file are read.

    Attributes:
        names: All columns, in the order of the file.
        wanted: Those that are read.
        delimiter: One character.
        decimal: ``.`` or ``,``.
        missing: Texts that stand for a missing value, "" among them.
        text_columns: Columns that stay text.
    """

    names: tuple[str, ...]
    wanted: tuple[str, ...]
    delimiter: str
    decimal: str
    missing: pa.Array
    text_columns: Collection[str]


def end_of_rows(block: bytes, *, delimiter: str, is_last: bool) -> int | None:
    """Return where the last whole row of a block ends; 0 where none does, None where quotes do not tell.

    Args:
        block: Rows from the beginning of one; the last may be cut.
        delimiter: One character.
        is_last: Whether nothing follows.
    """
    newline = b"\n" if b"\n" in block else b"\r"
    if b'"' not in block:
        return len(block) if is_last else block.rfind(newline) + 1
    data = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(data == _QUOTE)
    if not _stand_around_fields(data, quotes, delimiter=delimiter):
        return None
    if is_last:
        return len(block) if len(quotes) % 2 == 0 else None
    end = len(block)
    while (end := block.rfind(newline, 0, end)) >= 0:
        before = int(np.searchsorted(quotes, end))
        if before % 2 == 0:
            return end + 1
        end = int(quotes[before - 1])  # the line break is inside this quote
    return 0


def end_of_first_row(block: bytes) -> int:
    """Return where the first row ends; the length of the block where it does not.

    Args:
        block: Rows from the beginning of one.
    """
    newline = b"\n" if b"\n" in block else b"\r"
    end = block.find(newline)
    while end >= 0 and block.count(b'"', 0, end) % 2:
        end = block.find(newline, end + 1)
    return end + 1 if end >= 0 else len(block)


def _stand_around_fields(data: np.ndarray, quotes: np.ndarray, *, delimiter: str) -> bool:
    """Whether every quote opens or closes a field, or is doubled within one."""
    borders = np.zeros(256, bool)
    borders[[ord(delimiter), ord("\n"), ord("\r"), _QUOTE]] = True
    opening, closing = quotes[::2], quotes[1::2]
    before, after = opening[opening > 0] - 1, closing[closing < len(data) - 1] + 1
    return bool(borders[data[before]].all() and borders[data[after]].all())


def parse_block(block: bytes, form: RowFormat, hints: Mapping[str, pa.DataType]) -> tuple[pa.Table, set[str]]:
    """Return the rows of a block, and the columns whose hint was wrong.

    Args:
        block: Whole rows.
        form: How they are read.
        hints: Column name to the type that it had in other blocks.

    Raises:
        ArrowInvalid: A row has other fields than the header.
    """
    numbers = {
        name: hints[name] for name in form.wanted if name not in form.text_columns and hints.get(name) in _NUMBERS
    }
    if not numbers:
        return _parsed_as_text(block, form), set()
    if _may_hold_codes(block, form.delimiter):
        texts = _read(block, form, dict.fromkeys(numbers, pa.string()), wanted=tuple(numbers))
        codes = {name for name in numbers if has_codes(texts.column(name))}
        if codes:
            return _parsed_as_text(block, form), codes
    try:
        table = _read(block, form, numbers, wanted=form.wanted)
    except pa.ArrowInvalid as error:
        found = _COLUMN_NUMBER.search(str(error))
        wrong = {form.names[int(found[1])]} if found and int(found[1]) < len(form.names) else set(numbers)
        return _parsed_as_text(block, form), wrong
    columns = {
        name: table.column(name)
        if name in numbers
        # Text in another block settles it.
        else _converted(table.column(name), name, form, is_text=hints.get(name) == pa.string())
        for name in form.wanted
    }
    return pa.table(columns), set()


def has_codes(text: pa.ChunkedArray) -> bool:
    """Return whether text that reads as numbers holds codes such as 007 or 0x1F.

    Args:
        text: A column of text.
    """
    first = pc.utf8_ltrim(pc.utf8_trim_whitespace(text), "+-")
    suspects = text.filter(pc.starts_with(first, "0"))
    if not len(suspects):
        return False
    suspects = pc.utf8_trim_whitespace(suspects)
    return has_leading_zeros(suspects) or bool(pc.any(pc.match_substring(suspects, "x", ignore_case=True)).as_py())


def _may_hold_codes(block: bytes, delimiter: str) -> bool:
    pattern = rf'(?:^|[\n\r"{re.escape(delimiter)}])[ \t]*[+-]?0[0-9xX]'
    return bool(pc.match_substring_regex(pa.array([block], pa.large_binary()), pattern)[0].as_py())


def _parsed_as_text(block: bytes, form: RowFormat) -> pa.Table:
    table = _read(block, form, {}, wanted=form.wanted)
    return pa.table({name: _converted(table.column(name), name, form) for name in form.wanted})


def _converted(
    column: pa.ChunkedArray, name: str, form: RowFormat, *, is_text: bool = False
) -> pa.ChunkedArray:
    keep_text = is_text or name in form.text_columns
    return convert_text(column, missing=form.missing, decimal=form.decimal, keep_text=keep_text)


def _read(
    block: bytes, form: RowFormat, types: Mapping[str, pa.DataType], *, wanted: tuple[str, ...]
) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(block),
        read_options=pyarrow.csv.ReadOptions(
            column_names=list(form.names), use_threads=False, block_size=max(len(block), 1)
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=b'"' in block),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: types.get(name, pa.string()) for name in form.names},
            null_values=form.missing.to_pylist(),
            include_columns=list(wanted),
            decimal_point=form.decimal,
        ),
    )
