"""The few Arrow types that every source is brought to, and what can be read out of them.

After ``plain_table`` a column is int64, float64, bool, string, timestamp[us] without a zone, or null (all missing).
Any other type is one that no task of this program reads; it is carried along and dropped by the inference.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.errors import DataError, list_names, suggest_name

TIMESTAMP = pa.timestamp("us")
PLAIN_TYPES = (pa.int64(), pa.float64(), pa.bool_(), pa.string(), TIMESTAMP, pa.null())

# Codes such as 007 or zip codes such as 01234 look like integers but lose their meaning as numbers.
_LEADING_ZERO = r"^[+-]?0\d"
_LEADING_ZERO_INTEGER = r"^[+-]?0\d+$"
_NUMBER = r"^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf(?:inity)?))$"
_YES = pa.array(["true", "t", "yes", "y", "1", "1.0"])
_NO = pa.array(["false", "f", "no", "n", "0", "0.0"])


class TextForm(StrEnum):
    """How a column of text comes.

    Attributes:
        PLAIN: A string for each row.
        DICTIONARY: Different strings once, and the place of its own for each row, where the source has it that way.
    """

    PLAIN = "plain"
    DICTIONARY = "dictionary"


def plain_table(table: pa.Table, *, text: TextForm = TextForm.PLAIN) -> pa.Table:
    """Return the table with every column brought to a plain type, blanks stripped and NaN made null.

    Args:
        table: Any Arrow table with distinct column names.
        text: The form of text.
    """
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if is_dictionary_of_text(column.type):
            words = _stripped_words(column)
            columns[name] = words if text is TextForm.DICTIONARY else words.cast(pa.string()).combine_chunks()
        else:
            columns[name] = _plain(column, strip=True)
    return pa.table(columns) if columns else table


def plain_array(table: pa.Table, name: str) -> pa.Array:
    """Return one column as a single array of a plain type.

    Args:
        table: The table.
        name: Name of a column.

    Raises:
        DataError: The table has no such column.
    """
    return _plain(table.column(require_column(table, name)), strip=False)


def stored_array(table: pa.Table, name: str) -> pa.Array:
    """Return one column as a single array of a plain type, or of a dictionary of text where it is stored as one.

    Args:
        table: The table.
        name: Name of a column.

    Raises:
        DataError: The table has no such column.
    """
    column = table.column(require_column(table, name))
    if is_dictionary_of_text(column.type):
        array = column.unify_dictionaries().combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if not isinstance(array, pa.ChunkedArray):
            return array
    return plain_array(table, name)


def is_dictionary_of_text(kind: pa.DataType) -> bool:
    """Whether a type holds different texts once, and for each row the place of its own.

    Args:
        kind: An Arrow type.
    """
    return bool(pa.types.is_dictionary(kind) and kind.value_type == pa.string())


def require_column(table: pa.Table, name: str, *, role: str = "column") -> str:
    """Return the name when the table has it.

    Args:
        table: The table.
        name: Name of a column.
        role: What the column is for, for the message.

    Raises:
        DataError: The table has no such column; the nearest name is offered.
    """
    # `column_names` is made anew for each who asks: of a wide table that took longer than all else.
    if not table.schema.get_all_field_indices(name):
        raise DataError(
            f"The data has no {role} {name!r}.{suggest_name(name, table.column_names)} "
            f"Its columns are {list_names(table.column_names)}."
        )
    return name


def _plain(column: pa.ChunkedArray | pa.Array, *, strip: bool) -> pa.Array:
    array = column
    if isinstance(column, pa.ChunkedArray):  # one chunk is taken as it is: to combine would copy it
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # combine_chunks of no chunks, or of more than 2 GB of text
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array.type, pa.BaseExtensionType) and array.type.extension_name == "arrow.uuid":
        return _text_of_uuids(array)
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _plain_text(array.cast(pa.string()), strip=strip)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
        return _nan_to_null(array)
    if pa.types.is_integer(kind) and kind != pa.int64():
        return array.cast(pa.int64()) if kind != pa.uint64() else _from_uint64(array)
    return _plain_time(array)


def _text_of_uuids(array: pa.ExtensionArray) -> pa.Array:
    """Return UUIDs, which databases and Parquet keep as 16 bytes, as people and other files write them."""
    texts = [None if value is None else str(UUID(bytes=value)) for value in array.storage.to_pylist()]
    return pa.array(texts, pa.string())


def _plain_time(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_timestamp(kind):
        # With a zone the stored integers are UTC already; dropping the zone keeps them.
        instants = array.cast(pa.timestamp(kind.unit))
        return (_floored(instants, "microsecond") if kind.unit == "ns" else instants).cast(TIMESTAMP, safe=False)
    if pa.types.is_date(kind):
        return array.cast(pa.timestamp("s")).cast(TIMESTAMP)
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        ticks_per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pc.divide(array.cast(width).cast(pa.float64()), ticks_per_second)
    return array


def _stripped_words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = []
    for chunk in column.chunks:
        words = _plain_text(chunk.dictionary, strip=True)
        if not words.equals(chunk.dictionary):
            words = words.dictionary_encode()
            chunk = pa.DictionaryArray.from_arrays(words.indices.take(chunk.indices), words.dictionary)
        chunks.append(chunk)
    return pa.chunked_array(chunks, column.type)


def _plain_text(array: pa.Array, *, strip: bool) -> pa.Array:
    if not strip:
        return array
    array = pc.utf8_trim_whitespace(array)
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)


def _nan_to_null(array: pa.Array) -> pa.Array:
    nan = pc.is_nan(array)
    return pc.if_else(nan, pa.scalar(None, pa.float64()), array) if pc.any(nan).as_py() else array


def _from_uint64(array: pa.Array) -> pa.Array:
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid:
        return array.cast(pa.float64(), safe=False)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type holds bytes that need not be text, such as encoded images.

    Args:
        kind: An Arrow type.
    """
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def has_bytes(kind: pa.DataType) -> bool:
    """Whether a type is a record with ``bytes`` in it, as other libraries keep images with the names of their files.

    Args:
        kind: An Arrow type.
    """
    return pa.types.is_struct(kind) and any(field.name == "bytes" and is_bytes(field.type) for field in kind)


def parse_numbers(text: pa.Array) -> pa.Array:
    """Return text as float64, null where it is missing or no number.

    Accepts what people write: ``1``, ``-1.5``, ``.5``, ``1e-3``, ``inf``. Thousands separators, hexadecimal digits
    and underscores are no numbers.

    Args:
        text: A string array of shape ``(num_rows,)``.
    """
    try:
        return _nan_to_null(text.cast(pa.float64()))
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(text, _NUMBER)
        return pc.if_else(number, text, pa.scalar(None, pa.string())).cast(pa.float64())


def has_leading_zeros(text: pa.Array) -> bool:
    """Whether some value is an integer with leading zeros, a code rather than a number.

    Args:
        text: A string array of shape ``(num_rows,)``.
    """
    suspects = pc.match_substring_regex(text, _LEADING_ZERO)
    if not pc.any(suspects).as_py():
        return False
    return bool(pc.any(pc.match_substring_regex(text.filter(suspects), _LEADING_ZERO_INTEGER)).as_py())


def is_whole(array: pa.Array) -> bool:
    """Whether every value that is there is a whole number of at most 2**53.

    Args:
        array: An int64 or float64 array.
    """
    if array.type == pa.int64():
        return True
    values = present_numbers(array)
    return bool(values.size) and bool(np.all((values == np.rint(values)) & (np.abs(values) <= 2.0**53)))


def present_numbers(array: pa.Array) -> NDArray[np.float64]:
    """Return the values that are not missing, as float64.

    Args:
        array: An int64, float64 or bool array.
    """
    return np.asarray(array.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def numbers_of(array: pa.Array) -> NDArray[np.float64]:
    """Return a column as float64 of shape ``(num_rows,)``, NaN where a value is missing or no number.

    Args:
        array: An array of a plain type other than timestamp.
    """
    if array.type == pa.string():
        array = parse_numbers(array)
    elif array.type in (pa.bool_(), pa.int64(), pa.null()):
        # Beyond 2**53 an integer is rounded, which Arrow calls unsafe.
        array = array.cast(pa.float64(), safe=False)
    return np.array(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def truth_of(array: pa.Array) -> pa.Array:
    """Return a column as bool, null where a value is missing or neither true nor false.

    Args:
        array: An array of a plain type other than timestamp. Text may be true/false, yes/no, t/f, y/n or 1/0.
    """
    if array.type == pa.bool_():
        return array
    if array.type == pa.null():
        return array.cast(pa.bool_())
    if array.type == pa.string():
        lower = pc.utf8_lower(array)
        yes, no = pc.is_in(lower, _YES), pc.is_in(lower, _NO)
    else:
        yes, no = pc.equal(array, 1), pc.equal(array, 0)
    return pc.if_else(pc.or_(yes, no), yes, pa.scalar(None, pa.bool_()))


def spelled_truths(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
    """Return text as bool where every value that is there is the word true or false in any case; else None.

    Args:
        text: A string array of shape ``(num_rows,)``.
    """
    lower = pc.utf8_lower(text)
    is_true = pc.equal(lower, "true")
    return is_true if pc.all(pc.or_(is_true, pc.equal(lower, "false"))).as_py() else None


def text_of(array: pa.Array) -> pa.Array:
    """Return a column as text: whole numbers without ``.0``, booleans as true/false, timestamps as ISO 8601.

    Args:
        array: An array of a plain type.
    """
    if array.type == pa.string():
        return array
    if array.type == TIMESTAMP:
        return pc.strftime(_floored(array, "second").cast(pa.timestamp("s")), "%Y-%m-%dT%H:%M:%S")
    if array.type == pa.float64():
        if is_whole(array):
            return array.cast(pa.int64()).cast(pa.string())
        values = [None if value is None else repr(value).removesuffix(".0") for value in array.to_pylist()]
        return pa.array(values, pa.string())
    return array.cast(pa.string())


def _floored(instants: pa.Array, unit: str) -> pa.Array:
    """Cut the fraction off as a clock does; Arrow's cast cuts towards 1970, a second late for what came before."""
    return pc.floor_temporal(instants, unit=unit)


def num_distinct(array: pa.Array) -> int:
    """Return how many different values a column has, missing ones left out.

    Args:
        array: Any array that Arrow can count.
    """
    if array.type == pa.null():
        return 0
    return int(pc.count_distinct(array, mode="only_valid").as_py())


def take_rows(array: pa.Array, rows: NDArray[np.bool_] | None) -> pa.Array:
    """Return the marked rows of a column, all of them for None.

    Args:
        array: The column.
        rows: Mask of shape ``(num_rows,)``.
    """
    return array if rows is None else array.filter(pa.array(rows))
