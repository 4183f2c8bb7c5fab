"""A table as the exported model takes it: one array a column, float32 or UTF-8 bytes (R4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import (
    TIMESTAMP,
    has_leading_zeros,
    is_bytes,
    numbers_of,
    parse_numbers,
    plain_array,
    require_column,
    text_of,
    truth_of,
)
from pipelines.errors import DataError, list_names
from pipelines.image_references import file_contents, is_image_file
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task

RawColumns = dict[str, NDArray[np.generic]]


def raw_columns(table: pa.Table, schema: DatasetSchema) -> RawColumns:
    """Return the used features as the arrays that the encoder and the exported signature take.

    The table may lack the target and have more columns than the schema.

    Args:
        table: The rows.
        schema: Which columns are used, and how.

    Returns:
        Column name to float32 of shape ``(num_rows,)`` with NaN for missing, or to an object array of UTF-8 bytes of
        shape ``(num_rows,)`` with ``b""`` for missing.

    Raises:
        DataError: A used column is absent, or a numeric one holds something that is no number.
    """
    return {feature.name: raw_column(table, feature) for feature in schema.used_features}


def raw_column(table: pa.Table, feature: FeatureSpec) -> NDArray[np.generic]:
    """Return one feature as the array that the encoder takes; see ``raw_columns``.

    Args:
        table: The rows.
        feature: The column.

    Raises:
        DataError: The column is absent, or it should be numeric and holds something that is no number.
    """
    require_column(table, feature.name, role="column")
    array = plain_array(table, feature.name)
    if feature.kind is FeatureKind.IMAGE:
        return _image_bytes(array, feature)
    if feature.raw_type is RawType.STRING:
        return text_bytes(_truth_words(array) if feature.truths else array)
    if feature.kind is FeatureKind.BOOLEAN:
        array = _checked(array, truth_of(array), feature=feature, expected="true or false")
    elif array.type == pa.string():
        array = _checked(array, parse_numbers(array), feature=feature, expected="a number")
    elif array.type not in (pa.int64(), pa.float64(), pa.bool_(), pa.null()):
        raise DataError(
            f"Expected numbers in column {feature.name!r}, received {array.type}; "
            "give the column the type that it had when the model was trained."
        )
    with np.errstate(over="ignore"):  # beyond float32 a number becomes infinite, which the encoder clips
        return numbers_of(array).astype(np.float32)


def with_optional_columns(table: pa.Table, schema: DatasetSchema) -> pa.Table:
    """Return rows with the optional features that they lack as missing; for rows that may leave columns out.

    Rows that lack a feature which is not optional are returned as they are: the message about it names what they have.

    Args:
        table: The rows.
        schema: Which columns are used, and which of them may be left out.
    """
    absent = [feature for feature in schema.used_features if feature.name not in table.column_names]
    if all(feature.optional for feature in absent):
        for feature in absent:
            table = table.append_column(feature.name, pa.nulls(table.num_rows))
    return table


def text_bytes(array: pa.Array) -> NDArray[np.generic]:
    """Return a column as an object array of UTF-8 bytes of shape ``(num_rows,)``, ``b""`` for missing.

    Args:
        array: An array of a plain type.
    """
    if array.type == pa.null():
        array = array.cast(pa.string())
    return np.asarray(pc.fill_null(text_of(array), "").cast(pa.binary()).to_numpy(zero_copy_only=False), dtype=object)


def _image_bytes(array: pa.Array, feature: FeatureSpec) -> NDArray[np.generic]:
    if is_image_file(array.type):
        return file_contents(array)
    if not is_bytes(array.type):
        raise DataError(
            f"Expected encoded images in column {feature.name!r}, received {array.type}; give the paths of images in "
            "the folder of the table, or their bytes."
        )
    return np.asarray(array.fill_null(b"").to_numpy(zero_copy_only=False), dtype=object)


def _truth_words(array: pa.Array) -> pa.Array:
    """Return truths of any type as the words true and false; what is no truth stays the text that it is."""
    if array.type == TIMESTAMP:
        return array
    return pc.coalesce(text_of(truth_of(array)), text_of(array))


def encode_target(table: pa.Table, target: TargetSpec) -> NDArray[np.int32] | NDArray[np.float64]:
    """Return the target as class ids or as numbers.

    Args:
        table: Rows whose target is known; see ``drop_rows_without_target``.
        target: What is predicted.

    Returns:
        int32 class ids in [0, num_classes) of shape ``(num_rows,)``, or float64 values of the same shape. Several
        targets have a column each: ``(num_rows, num_targets)`` values, or 0 and 1 of labels.

    Raises:
        DataError: The column is absent, a value is missing, no number, or a class that is not known.
    """
    if target.columns:
        stacked: NDArray[Any] = np.stack([encode_target(table, one) for one in single_targets(target)], axis=1)
        return stacked
    require_column(table, target.name, role="target column")
    array = plain_array(table, target.name)
    if array.null_count:
        row = int(np.flatnonzero(np.asarray(pc.is_null(array)))[0])
        raise DataError(
            f"Expected a value of the target {target.name!r} in every row, but {array.null_count:,} "
            f"are missing, the first in row {row + 1}; drop these rows."
        )
    if target.task is Task.REGRESSION:
        return _regression_values(array, target)
    labels = class_labels(array)
    ids = pc.index_in(labels, value_set=pa.array(target.classes, pa.string()))
    if ids.null_count:
        row = int(np.flatnonzero(np.asarray(pc.is_null(ids)))[0])
        raise DataError(
            f"Expected one of the classes {list_names(target.classes)} in the target {target.name!r}, "
            f"received {labels[row].as_py()!r} in row {row + 1}; mend it or train again."
        )
    return np.asarray(ids, dtype=np.int32)


def single_targets(target: TargetSpec) -> tuple[TargetSpec, ...]:
    """Return each of several targets as a target of its own, a label as the two classes of its values."""
    if target.task is Task.MULTILABEL:
        pairs = zip(target.columns, target.label_values, strict=True)
        return tuple(TargetSpec(name, task=Task.BINARY, classes=pair) for name, pair in pairs)
    return tuple(TargetSpec(name, task=target.task) for name in target.names)


def class_labels(array: pa.Array) -> pa.Array:
    """Return the values of a target as the text of their class labels; whole numbers carry no ``.0``.

    Args:
        array: An array of a plain type. Text that holds numbers only, leading zeros aside, counts as numbers.
    """
    if array.type != pa.string():
        return text_of(array)
    encoded = array.dictionary_encode()  # there are few classes, and each is looked at once
    labels = encoded.dictionary
    if not has_leading_zeros(labels):
        numbers = parse_numbers(labels)
        labels = labels if numbers.null_count else text_of(numbers)
    return labels.take(encoded.indices)


def _regression_values(array: pa.Array, target: TargetSpec) -> NDArray[np.float64]:
    values = numbers_of(array) if array.type != pa.timestamp("us") else np.full(len(array), np.nan)
    wrong = ~np.isfinite(values)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"Expected a finite number in every row of the target {target.name!r}, received "
            f"{array[row].as_py()!r} in row {row + 1} ({int(wrong.sum()):,} such rows); mend or drop them."
        )
    return values


def _checked(array: pa.Array, parsed: pa.Array, *, feature: FeatureSpec, expected: str) -> pa.Array:
    wrong = np.asarray(pc.and_(pc.is_null(parsed), pc.is_valid(array)).to_numpy(zero_copy_only=False), dtype=bool)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"Expected {expected} in column {feature.name!r}, received {array[row].as_py()!r} in row {row + 1} "
            f"({int(wrong.sum()):,} such rows); mend them or leave them empty."
        )
    return parsed
