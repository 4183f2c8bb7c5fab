"""Blocks of whole rows of a CSV file, parsed side by side.

Numbers are read as such where the blocks before had numbers, and as text first where that does not work, so that a
column gets the type that ``convert_text`` gives it. Text of few different values is a dictionary, so that what is asked
of every value is asked of every different one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipelines.column_values import has_leading_zeros, is_dictionary_of_text
from pipelines.sources.csv_file import convert_text

_NUMBERS = (pa.int64(), pa.float64())
_NARROW = (*_NUMBERS, pa.bool_())
_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
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


def parse_block(
    block: bytes, form: RowFormat, hints: Mapping[str, pa.DataType], *, may_hold_codes: bool = True
) -> tuple[pa.Table, set[str]]:
    """Return the rows of a block, and the columns whose hint was wrong.

    Args:
        block: Whole rows.
        form: How they are read.
        hints: Column name to the type that it had in other blocks.
        may_hold_codes: False where no field begins with a zero before another digit or an x.

    Raises:
        ArrowInvalid: A row has other fields than the header.
    """
    settled = {
        name: hints[name] for name in form.wanted if name not in form.text_columns and hints.get(name) in _NARROW
    }
    if not settled:
        return _parsed_as_text(block, form), set()
    numbers = tuple(name for name, kind in settled.items() if kind in _NUMBERS)
    if numbers and may_hold_codes:
        texts = _read(block, form, dict.fromkeys(numbers, pa.string()), wanted=numbers)
        codes = {name for name in numbers if has_codes(texts.column(name))}
        if codes:
            return _parsed_as_text(block, form), codes
    try:
        table = _read(block, form, settled, wanted=form.wanted)
    except pa.ArrowInvalid as error:
        found = _COLUMN_NUMBER.search(str(error))
        wrong = {form.names[int(found[1])]} if found and int(found[1]) < len(form.names) else set(settled)
        return _parsed_as_text(block, form), wrong
    columns = {}
    for name in form.wanted:
        column = table.column(name)
        if is_dictionary_of_text(hints.get(name, pa.null())):
            # To read text and look its values up afterwards takes half of what Arrow's reader takes for a dictionary.
            column = _without_missing_words(_one_chunk(column).dictionary_encode(), form.missing)
        elif name not in settled:
            # Text in another block settles it.
            column = _converted(column, name, form, stays_text=hints.get(name) == pa.string())
        columns[name] = column
    return pa.table(columns), set()


def _without_missing_words(column: pa.DictionaryArray, missing: pa.Array) -> pa.ChunkedArray:
    """Return a dictionary of text without blanks around it, null where it stands for a missing value."""
    words = pc.utf8_trim_whitespace(column.dictionary)
    absent = pc.is_in(words, missing)
    if pc.any(absent).as_py() or not words.equals(column.dictionary):
        words = pc.if_else(absent, pa.scalar(None, pa.string()), words).dictionary_encode()
        column = pa.DictionaryArray.from_arrays(words.indices.take(column.indices), words.dictionary)
    return pa.chunked_array([column])


def is_text(kind: pa.DataType | None) -> bool:
    """Whether the type of a column of a block is that of text.

    Args:
        kind: The type; None where it is not known.
    """
    return kind is not None and (kind == pa.string() or is_dictionary_of_text(kind))


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


def _parsed_as_text(block: bytes, form: RowFormat) -> pa.Table:
    table = _read(block, form, {}, wanted=form.wanted)
    return pa.table({name: _converted(table.column(name), name, form) for name in form.wanted})


def _converted(column: pa.ChunkedArray, name: str, form: RowFormat, *, stays_text: bool = False) -> pa.ChunkedArray:
    keep_text = stays_text or name in form.text_columns
    converted = convert_text(column, missing=form.missing, decimal=form.decimal, keep_text=keep_text)
    if stays_text or converted.type != pa.string():
        return converted
    words = converted.combine_chunks().dictionary_encode()
    # Where most values differ, a dictionary costs more than it saves.
    is_short = 2 * len(words.dictionary) <= len(words)
    return pa.chunked_array([words]) if is_short else converted


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
            true_values=_TRUE,
            false_values=_FALSE,
            include_columns=list(wanted),
            decimal_point=form.decimal,
        ),
    )


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
