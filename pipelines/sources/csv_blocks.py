"""Blocks of whole rows of a CSV file, parsed side by side.

A block ends at a line break outside quotes, which is known without parsing as long as quotes stand where RFC 4180 has
them: around whole fields, doubled within. Numbers are read as such where the blocks before had numbers, and as text
first where that does not work, so that a column gets the type that ``convert_text`` gives it. Text of few different
values is a dictionary, so that what is asked of every value is asked of every different one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipelines.column_values import has_leading_zeros, is_dictionary_of_text
from pipelines.sources.csv_file import convert_text

_QUOTE = ord('"')
_NUMBERS = (pa.int64(), pa.float64())
_NARROW = (*_NUMBERS, pa.bool_())
_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
_CACHED_BYTES = 1 << 17
"""Bytes that are looked at together: what is found out of them stays in the cache of a core."""

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
    newline = "\n" if b"\n" in block else "\r"
    if b'"' not in block:
        return len(block) if is_last else block.rfind(newline.encode()) + 1
    quotes = _bits_of(block, '"')
    borders = quotes | _bits_of(block, delimiter) | _bits_of(block, "\n")
    if b"\r" in block:
        borders |= _bits_of(block, "\r")
    inside = _odd_so_far(quotes)
    if not _stand_around_fields(quotes, inside, borders, size=len(block)):
        return None
    if is_last:
        return None if _is_set(inside, len(block)) else len(block)
    end = block.rfind(newline.encode())
    if end >= 0 and _is_set(inside, end):
        outside = _bits_of(block, newline) & ~inside
        words = np.flatnonzero(outside)
        end = 64 * int(words[-1]) + int(outside[words[-1]]).bit_length() - 1 if words.size else -1
    return end + 1


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


def _bits_of(block: bytes, character: str) -> NDArray[np.uint64]:
    """Return a bit for each byte of a block, set where it is the character, and some bits that are not set behind."""
    bits = np.zeros(len(block) // 64 + 1, np.uint64)
    packed = bits.view(np.uint8)
    data = np.frombuffer(block, np.uint8)
    for start in range(0, len(block), _CACHED_BYTES):
        found = np.packbits(data[start : start + _CACHED_BYTES] == ord(character), bitorder="little")
        packed[start // 8 : start // 8 + len(found)] = found
    return bits


def _odd_so_far(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a bit for each, set where the number of set bits up to and with it is odd."""
    odd = bits.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        odd ^= odd << np.uint64(shift)
    # The last bit of a word says whether the word turns all that follow.
    turned = np.bitwise_xor.accumulate(odd >> np.uint64(63))
    odd[1:] ^= np.uint64(0) - turned[:-1]
    return odd


def _is_set(bits: NDArray[np.uint64], place: int) -> bool:
    return bool(int(bits[place // 64]) >> place % 64 & 1)


def _stand_around_fields(
    quotes: NDArray[np.uint64], inside: NDArray[np.uint64], borders: NDArray[np.uint64], *, size: int
) -> bool:
    """Whether every quote opens or closes a field, or is doubled within one."""
    one, last = np.uint64(1), np.uint64(63)
    before = borders << one
    before[1:] |= borders[:-1] >> last
    before[0] |= one
    after = borders >> one
    after[:-1] |= borders[1:] << last
    after[(size - 1) // 64] |= one << np.uint64((size - 1) % 64)
    return not (quotes & ((inside & ~before) | (~inside & ~after))).any()


def parse_block(block: bytes, form: RowFormat, hints: Mapping[str, pa.DataType]) -> tuple[pa.Table, set[str]]:
    """Return the rows of a block, and the columns whose hint was wrong.

    Args:
        block: Whole rows.
        form: How they are read.
        hints: Column name to the type that it had in other blocks.

    Raises:
        ArrowInvalid: A row has other fields than the header.
    """
    settled = {
        name: hints[name] for name in form.wanted if name not in form.text_columns and hints.get(name) in _NARROW
    }
    if not settled:
        return _parsed_as_text(block, form), set()
    numbers = tuple(name for name, kind in settled.items() if kind in _NUMBERS)
    if numbers and _may_hold_codes(block, form.delimiter):
        texts = _read(block, form, dict.fromkeys(numbers, pa.string()), wanted=numbers)
        codes = {name for name in numbers if has_codes(texts.column(name))}
        if codes:
            return _parsed_as_text(block, form), codes
    words = {name: hints[name] for name in form.wanted if is_dictionary_of_text(hints.get(name, pa.null()))}
    try:
        table = _read(block, form, settled | words, wanted=form.wanted)
    except pa.ArrowInvalid as error:
        found = _COLUMN_NUMBER.search(str(error))
        wrong = {form.names[int(found[1])]} if found and int(found[1]) < len(form.names) else set(settled)
        return _parsed_as_text(block, form), wrong
    columns = {}
    for name in form.wanted:
        column = table.column(name)
        if name in words:
            column = _without_missing_words(column, form.missing)
        elif name not in settled:
            # Text in another block settles it.
            column = _converted(column, name, form, stays_text=hints.get(name) == pa.string())
        columns[name] = column
    return pa.table(columns), set()


def _without_missing_words(column: pa.ChunkedArray, missing: pa.Array) -> pa.ChunkedArray:
    """Return a dictionary of text without blanks around it, null where it stands for a missing value."""
    chunks = []
    for chunk in column.chunks:
        words = pc.utf8_trim_whitespace(chunk.dictionary)
        absent = pc.is_in(words, missing)
        if pc.any(absent).as_py() or not words.equals(chunk.dictionary):
            words = pc.if_else(absent, pa.scalar(None, pa.string()), words).dictionary_encode()
            chunk = pa.DictionaryArray.from_arrays(words.indices.take(chunk.indices), words.dictionary)
        chunks.append(chunk)
    return pa.chunked_array(chunks, column.type)


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


def _may_hold_codes(block: bytes, delimiter: str) -> bool:
    """Return False where no field begins with a zero before another digit or an x."""
    data = np.frombuffer(b"\n\n" + block + b"\n", np.uint8)
    borders, signs = np.zeros(256, bool), np.zeros(256, bool)
    borders[[ord(delimiter), ord("\n"), ord("\r"), _QUOTE]] = signs[[ord(sign) for sign in "+- \t"]] = True
    digits = np.zeros(256, bool)
    digits[[ord(digit) for digit in "0123456789xX"]] = True
    for start in range(0, len(data) - 3, _CACHED_BYTES):
        # The two bytes before a zero are looked at, and the one behind it: roughly all, and closely what is left.
        part = data[start : start + _CACHED_BYTES + 3]
        before = part[1:-2]
        suspects = before <= ord("-")
        if delimiter > "-":
            suspects |= before == ord(delimiter)
        suspects &= part[2:-1] == ord("0")
        suspects &= part[3:] >= ord("0")
        places = np.flatnonzero(suspects)
        places = places[digits[part[places + 3]]]
        nearest, next_to_it = part[places + 1], part[places]
        # Before a sign or a blank, a date as 2024-01-31 has a digit, and a number nothing.
        if (borders[nearest] | (signs[nearest] & (borders | signs)[next_to_it])).any():
            return True
    return False


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
