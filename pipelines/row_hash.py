"""A 64-bit identity for every row, the same whatever the order of rows, columns and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import TIMESTAMP, is_bytes, numbers_of, plain_array

# A date, and perhaps a time, without a zone: what a database or a CSV file makes of a timestamp.
_ISO_DATE = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?)?$"
_MISSING = np.uint64(0x9E3779B97F4A7C15)


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
        total += mix(hash_column(plain_array(table, name)) ^ name_hash)
    return total


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
        array: An array of a plain type; of another type every value that is there hashes by its text.

    Returns:
        uint64 of shape ``(num_rows,)``.
    """
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if array.type == TIMESTAMP:
        hashes = mix(np.asarray(array.cast(pa.int64()).fill_null(0)).astype(np.int64).view(np.uint64))
    elif array.type in (pa.int64(), pa.float64(), pa.bool_(), pa.null()):
        # Adding zero turns -0.0 into 0.0.
        hashes = mix((np.nan_to_num(numbers_of(array), nan=0.0) + 0.0).view(np.uint64))
    else:
        hashes = _hash_text(array)
    return np.where(missing, _MISSING, hashes)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread 64-bit integers evenly: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).

    Args:
        values: uint64 of any shape.
    """
    x = values + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _hash_text(array: pa.Array) -> NDArray[np.uint64]:
    if is_bytes(array.type):
        return np.array([_hash_bytes(value.as_py()) for value in array], np.uint64)
    if array.type != pa.string():
        array = pa.array([None if value is None else repr(value) for value in array.to_pylist()], pa.string())
    encoded = array.dictionary_encode()
    words = np.array(encoded.dictionary.to_pylist(), object)
    if words.size == 0:
        return np.zeros(len(array), np.uint64)
    hashes = pd.util.hash_array(words, categorize=False)
    dates = np.asarray(pc.match_substring_regex(encoded.dictionary, _ISO_DATE).to_numpy(zero_copy_only=False), bool)
    if dates.any():
        hashes[dates] = _hash_dates(encoded.dictionary.filter(pa.array(dates)), hashes[dates])
    return np.asarray(hashes[np.asarray(encoded.indices.fill_null(0))], dtype=np.uint64)


def _hash_bytes(content: bytes | None) -> int:
    # Images by the million must not meet in one hash, which a checksum of 32 bits would let them.
    return int.from_bytes(hashlib.blake2b(content or b"", digest_size=8).digest(), "little")


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
