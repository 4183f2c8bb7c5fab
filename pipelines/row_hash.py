"""A 64-bit identity for every row, the same whatever the order of rows, columns and batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import TIMESTAMP, is_bytes, numbers_of, stored_array
from pipelines.image_references import content_digests, is_image_file

# A date, and perhaps a time, without a zone: what a database or a CSV file makes of a timestamp.
_ISO_DATE = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?)?$"
_DATE_LENGTH = len("2024-01-31")
_MISSING = np.uint64(0x9E3779B97F4A7C15)
_PART_ROWS = 1 << 14
"""Rows that are mixed together: what is read and written again and again stays in the cache of a core."""


def hash_rows(table: pa.Table, *, columns: Sequence[str], seed: int = 0) -> NDArray[np.uint64]:
    """Hash the content of every row.

    Equal numbers hash equally whatever their type, and a date in ISO 8601 hashes as the timestamp that it stands for,
    so that the same rows from CSV, Parquet, a database and a DataFrame agree.

    Args:
        table: The rows.
        columns: Names of the columns that make a row what it is, in any order.
        seed: Another seed gives independent hashes.

    Returns:
        uint64 of shape ``(num_rows,)``.
    """
    return finish_sums(row_sums(table, columns=columns), seed=seed)


def row_sums(table: pa.Table, *, columns: Sequence[str]) -> NDArray[np.uint64]:
    """Return what the identity of every row is made of; sums over disjoint columns add up to the sum over all.

    Args:
        table: The rows.
        columns: Names of columns, in any order.

    Returns:
        uint64 of shape ``(num_rows,)``.
    """
    total = np.zeros(table.num_rows, np.uint64)
    names = pd.util.hash_array(np.array(list(columns), object), categorize=False)
    for name, name_hash in zip(columns, names, strict=True):
        # A sum does not depend on the order of the columns; the name keeps equal values of two columns apart.
        array = stored_array(table, name)
        if array.type in (pa.int64(), pa.float64()):
            _add_numbers(total, array, name_hash)
            continue
        if not pa.types.is_dictionary(array.type):
            hashes = hash_column(array)
            hashes ^= name_hash
            total += _mixed(hashes)
            continue
        # Different words are few: they are hashed, and their hashes are dealt out to the rows.
        words = mix(_hash_words(array.dictionary) ^ name_hash)
        places, words = _with_missing(array, words, missing=mix(np.array([_MISSING ^ name_hash]))[0])
        total += words[places]
    return total


def _add_numbers(total: NDArray[np.uint64], array: pa.Array, name_hash: np.uint64) -> None:
    """Add what a column of int64 or float64 is to the identities, a part at a time, without a copy of the column."""
    kind = np.int64 if array.type == pa.int64() else np.float64
    values = np.frombuffer(array.buffers()[1], kind, len(array), array.offset * 8) if len(array) else ()
    missing = np.asarray(array.is_null()) if array.null_count else None
    numbers, other = np.empty(_PART_ROWS, np.float64), np.empty(_PART_ROWS, np.uint64)
    for start in range(0, len(array), _PART_ROWS):
        place = slice(start, start + _PART_ROWS)
        part = numbers[: len(values[place])]
        part[:] = values[place]
        hashes = _hash_numbers(part, other)
        if missing is not None:
            hashes[missing[place]] = _MISSING
        hashes ^= name_hash
        total[place] += _mixed(hashes, other)


def finish_sums(sums: NDArray[np.uint64], *, seed: int) -> NDArray[np.uint64]:
    """Return the identities of rows.

    Args:
        sums: What ``row_sums`` returned.
        seed: Another seed gives independent hashes.
    """
    return mix(sums ^ mix(np.array([seed % 2**64], np.uint64)))


def hash_column(array: pa.Array) -> NDArray[np.uint64]:
    """Hash every value of a column.

    Args:
        array: An array of a plain type, or a dictionary of text; of another type every value that is there hashes by
            its text.

    Returns:
        uint64 of shape ``(num_rows,)``.
    """
    if pa.types.is_dictionary(array.type):
        places, words = _with_missing(array, _hash_words(array.dictionary), missing=_MISSING)
        return np.asarray(words[places], dtype=np.uint64)
    if array.type == TIMESTAMP:
        ticks = array.cast(pa.int64())
        hashes = _mixed(np.array(ticks.fill_null(0) if ticks.null_count else ticks, np.int64).view(np.uint64))
    elif array.type in (pa.int64(), pa.float64(), pa.bool_(), pa.null()):
        hashes = _hash_numbers(numbers_of(array))
    else:
        hashes = _hash_text(array)
    if array.null_count:
        hashes[np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)] = _MISSING
    return hashes


def _hash_numbers(numbers: NDArray[np.float64], other: NDArray[np.uint64] | None = None) -> NDArray[np.uint64]:
    """Return the hashes of numbers of our own, which are overwritten; `other` as for ``_mixed``."""
    if not np.isfinite(numbers).all():
        np.nan_to_num(numbers, copy=False, nan=0.0)
    numbers += 0.0  # turns -0.0 into 0.0
    return _mixed(numbers.view(np.uint64), other)


def _with_missing(
    array: pa.DictionaryArray, words: NDArray[np.uint64], *, missing: np.uint64
) -> tuple[NDArray[np.integer], NDArray[np.uint64]]:
    """Return where each row finds its hash, and the hashes, that of a missing value behind those of the words."""
    words = np.append(words, missing)
    indices = array.indices
    if indices.null_count:
        indices = indices.cast(pa.int64()).fill_null(len(words) - 1)
    return np.asarray(indices), words


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread 64-bit integers evenly: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).

    Args:
        values: uint64 of any shape.
    """
    return _mixed(np.array(values, np.uint64))


def _mixed(values: NDArray[np.uint64], other: NDArray[np.uint64] | None = None) -> NDArray[np.uint64]:
    """Return values of our own, which are overwritten, mixed as ``mix`` does.

    `other` is room for a part of them; None makes some.
    """
    flat = values.reshape(-1)
    shifted = np.empty(min(flat.size, _PART_ROWS), np.uint64) if other is None else other
    for start in range(0, flat.size, _PART_ROWS):
        x = flat[start : start + _PART_ROWS]
        high = shifted[: x.size]
        x += np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            np.right_shift(x, np.uint64(shift), out=high)
            x ^= high
            x *= np.uint64(factor)
        np.right_shift(x, np.uint64(31), out=high)
        x ^= high
    return values


def _hash_text(array: pa.Array) -> NDArray[np.uint64]:
    if is_bytes(array.type) or is_image_file(array.type):
        return content_digests(array)
    if array.type != pa.string():
        array = pa.array([None if value is None else repr(value) for value in array.to_pylist()], pa.string())
    encoded = array.dictionary_encode()
    if not len(encoded.dictionary):
        return np.zeros(len(array), np.uint64)
    return np.asarray(_hash_words(encoded.dictionary)[np.asarray(encoded.indices.fill_null(0))], dtype=np.uint64)


def _hash_words(words: pa.Array) -> NDArray[np.uint64]:
    """Return the hashes of different texts."""
    if not len(words):
        return np.zeros(0, np.uint64)
    hashes = pd.util.hash_array(np.array(words.to_pylist(), object), categorize=False)
    if words.null_count:
        hashes[np.asarray(words.is_null())] = _MISSING
    if (pc.max(pc.binary_length(words)).as_py() or 0) < _DATE_LENGTH:
        return np.asarray(hashes)
    dates = np.asarray(pc.match_substring_regex(words, _ISO_DATE).fill_null(False).to_numpy(zero_copy_only=False), bool)
    if dates.any():
        hashes[dates] = _hash_dates(words.filter(pa.array(dates)), hashes[dates])
    return np.asarray(hashes)


def _hash_dates(text: pa.Array, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the hashes of timestamps for text that looks like one; 2020-02-31 is none, and keeps its hash."""
    words = text.to_pylist()
    try:
        return mix(np.array(words, "datetime64[us]").view(np.uint64))
    except ValueError:
        if len(words) == 1:
            return hashes
    middle = len(words) // 2
    return np.concatenate(
        [_hash_dates(text[:middle], hashes[:middle]), _hash_dates(text[middle:], hashes[middle:])]
    )
