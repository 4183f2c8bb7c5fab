"""What is to be predicted, guessed from the target column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.column_values import (
    TIMESTAMP,
    has_leading_zeros,
    is_whole,
    num_distinct,
    numbers_of,
    parse_numbers,
    plain_array,
    require_column,
)
from pipelines.errors import DataError
from pipelines.raw_columns import class_labels
from pipelines.schema import TargetSpec, Task

MIN_ROWS = 20
# One row of each class for training, one for validation, one for the test.
MIN_ROWS_PER_CLASS = 3
MAX_CLASSES = 1_000
_MAX_INTEGER_CLASSES = 20
_MIN_ROWS_PER_INTEGER_CLASS = 5
_TABLE_TASKS = (Task.BINARY, Task.MULTICLASS, Task.REGRESSION)


def drop_rows_without_target(table: pa.Table, target: str) -> tuple[pa.Table, str | None]:
    """Return the rows whose target is known, and a note that counts the others (None when there are none).

    Args:
        table: The rows.
        target: Name of the target column.

    Raises:
        DataError: The table has no such column, or no row with a target.
    """
    array = plain_array(table, require_column(table, target, role="target column"))
    if array.null_count == 0:
        return table, None
    if array.null_count == len(array):
        raise DataError(f"The target {target!r} is missing in all {len(array):,} rows; give another target.")
    note = f"{array.null_count:,} of {len(array):,} rows have no {target!r} and were left out."
    return table.filter(pc.is_valid(array)), note


def infer_target(table: pa.Table, target: str, *, task: Task | None = None) -> TargetSpec:
    """Say what is to be predicted.

    Text, booleans and two values are classes; so are whole numbers of at most 20 values, each in 5 rows on average.
    Other numbers are a regression. Rows without a target are left out of the count.

    Args:
        table: The rows.
        target: Name of the target column.
        task: The task, when the user states it.

    Raises:
        DataError: The column is absent, constant, all missing, of an unfit type or does not allow the task; there are
            fewer than 20 rows, a class of fewer than 3 rows, or more than 1,000 classes.
    """
    drop_rows_without_target(table, target)  # refuses a target that is absent or missing in all rows
    whole = plain_array(table, target)
    _check_rows(whole.drop_null(), target)
    if task not in (None, *_TABLE_TASKS):
        raise DataError(f"Expected one of {', '.join(_TABLE_TASKS)} as the task of a table, received {task}.")
    array = _as_numbers(whole, target, task=task).drop_null()
    distinct = num_distinct(array)
    if distinct < 2:
        value = class_labels(array.slice(0, 1))[0].as_py()
        raise DataError(
            f"Expected at least two different values of the target {target!r}, received {value!r} in all "
            f"{len(array):,} rows; give another target."
        )
    guess, reason = _guess_task(array, distinct)
    if task is not None and task is not guess:
        guess, reason = task, f"the user chose {task} (the values alone suggest {guess}: {reason})"
    if guess is Task.REGRESSION:
        return _regression(array, target, reason=reason)
    return _classification(array, target, task=guess, reason=reason)


def with_quantiles(target: TargetSpec, quantiles: tuple[float, ...]) -> TargetSpec:
    """Return the target as that of a quantile regression.

    Args:
        target: What is predicted.
        quantiles: The levels, rising; () leaves the target as it is.

    Raises:
        DataError: The target is not one number.
    """
    if not quantiles:
        return target
    if target.task is not Task.REGRESSION or target.columns:
        what = f"that of {len(target.columns)} columns" if target.columns else f"the target {target.name!r}"
        raise DataError(
            f"Quantiles and intervals are those of one number, but {what} is that of a {target.task} task "
            f"({target.reason}); leave --quantiles and --interval out, or give --task regression where it is a number."
        )
    reason = f"{target.reason}; at the quantiles {', '.join(map(str, quantiles))}"
    return replace(target, quantiles=quantiles, reason=reason)


def _check_rows(array: pa.Array, target: str) -> None:
    if len(array) < MIN_ROWS:
        raise DataError(
            f"Expected at least {MIN_ROWS} rows with a value of {target!r}, received {len(array)}; give more data."
        )
    if array.type not in (pa.bool_(), pa.int64(), pa.float64(), pa.string()):
        what = "dates" if array.type == TIMESTAMP else str(array.type)
        raise DataError(f"Expected numbers, text or booleans in the target {target!r}, received {what}.")


def _as_numbers(array: pa.Array, target: str, *, task: Task | None) -> pa.Array:
    """Return text that holds numbers only as numbers; codes with leading zeros stay text."""
    if array.type == pa.float64():
        _check_finite(array, target)
    if array.type != pa.string():
        return array
    numbers = parse_numbers(array)
    wrong = numbers.null_count - array.null_count
    if wrong == 0 and (task is Task.REGRESSION or not has_leading_zeros(array)):
        _check_finite(numbers, target)
        return numbers
    if wrong and (task is Task.REGRESSION or (task is None and wrong <= 0.1 * (len(array) - array.null_count))):
        row = int(np.flatnonzero(pc.and_(numbers.is_null(), array.is_valid()))[0])
        raise DataError(
            f"Expected numbers in the target {target!r}, but {wrong:,} of {len(array) - array.null_count:,} values "
            f"are none, the first {array[row].as_py()!r} in row {row + 1}; mend them, read them as missing "
            "(--missing), or say that they are classes (--task multiclass)."
        )
    return array


def _check_finite(array: pa.Array, target: str) -> None:
    infinite = np.isinf(numbers_of(array))
    if infinite.any():
        raise DataError(
            f"Expected finite numbers in the target {target!r}, but {int(infinite.sum()):,} are infinite, the first "
            f"in row {int(np.flatnonzero(infinite)[0]) + 1}; mend or drop these rows."
        )


def _guess_task(array: pa.Array, distinct: int) -> tuple[Task, str]:
    if distinct == 2:
        return Task.BINARY, "2 distinct values"
    if array.type == pa.string():
        return Task.MULTICLASS, f"text with {distinct:,} distinct values"
    rows_per_value = len(array) / distinct
    facts = f"{distinct:,} distinct values in {len(array):,} rows"
    if not is_whole(array):
        return Task.REGRESSION, f"numbers with decimals, {facts}"
    if distinct <= _MAX_INTEGER_CLASSES and rows_per_value >= _MIN_ROWS_PER_INTEGER_CLASS:
        return Task.MULTICLASS, f"whole numbers, {facts}"
    return Task.REGRESSION, f"whole numbers, {facts}"


def _regression(array: pa.Array, target: str, *, reason: str) -> TargetSpec:
    if array.type == pa.string():
        raise DataError(f"Expected numbers in the target {target!r} for a regression, received text.")
    return TargetSpec(target, task=Task.REGRESSION, reason=reason)


def _classification(array: pa.Array, target: str, *, task: Task, reason: str) -> TargetSpec:
    counts = pc.value_counts(array)
    values, sizes = counts.field("values"), np.asarray(counts.field("counts"))
    if task is Task.BINARY and len(values) != 2:
        raise DataError(
            f"Expected 2 classes in the target {target!r} for a binary task, received {len(values):,}; "
            "use --task multiclass."
        )
    if len(values) > MAX_CLASSES:
        kind = "text" if array.type == pa.string() else "number"
        raise DataError(
            f"Expected at most {MAX_CLASSES:,} classes in the target {target!r}, received {len(values):,} distinct "
            f"{kind} values in {len(array):,} rows, too few rows a class to learn from; give another target"
            f"{' or merge classes' if kind == 'text' else ' or use --task regression'}."
        )
    # Sorted before the labels become text: 9 comes before 10.
    order = np.asarray(pc.array_sort_indices(values))
    labels = class_labels(values.take(pa.array(order))).to_pylist()
    rarest = int(np.argmin(sizes[order]))
    if sizes[order][rarest] < MIN_ROWS_PER_CLASS:
        _refuse_rare_class(labels[rarest], int(sizes[order][rarest]), target, numeric=array.type != pa.string())
    return TargetSpec(target, task=task, classes=tuple(labels), reason=reason)


def _refuse_rare_class(label: str, size: int, target: str, *, numeric: bool) -> None:
    regression = ", or use --task regression" if numeric else ""
    raise DataError(
        f"Expected at least {MIN_ROWS_PER_CLASS} rows of every class, one for training, validation and test each, "
        f"but class {label!r} of {target!r} has {'a single row' if size == 1 else f'{size} rows'}; "
        f"add rows of it, drop it or merge it with another{regression}."
    )
