"""Several target columns: labels that each hold or not, or several numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import plain_array, require_column
from pipelines.errors import DataError, list_names
from pipelines.raw_columns import encode_target
from pipelines.schema import TargetSpec, Task
from pipelines.target_inference import infer_target

MAX_TARGETS = 100
MIN_ROWS_PER_LABEL = 3

_RESERVED = ("probabilities", "prediction", "lower", "upper", "quantiles", "label")
_YES = ("1", "true", "t", "yes", "y")
_NO = ("0", "false", "f", "no", "n")


def target_columns(table: pa.Table, target: str) -> tuple[str, ...]:
    """Return the columns that a user's target names: one, or several with commas between them.

    Args:
        table: The rows.
        target: What the user gave; a column of that very name comes first.

    Raises:
        DataError: A column is absent, named twice or empty, or there is none to predict from.
    """
    names = _named_columns(table, target)
    if len(names) == table.num_columns:
        raise DataError(f"The data has no column besides the target {target!r}; add columns to predict it from.")
    return names


def _named_columns(table: pa.Table, target: str) -> tuple[str, ...]:
    if target in table.column_names or "," not in target:
        return (require_column(table, target, role="target column"),)
    names = tuple(name.strip() for name in target.split(","))
    for name in names:
        require_column(table, name, role="target column")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"The target names {twice!r} twice; name each column once.")
    if len(names) > MAX_TARGETS:
        raise DataError(f"Expected at most {MAX_TARGETS} target columns, received {len(names)}; name fewer.")
    reserved = [name for name in names if name in _RESERVED]
    if reserved:
        raise DataError(
            f"The target column {reserved[0]!r} has the name of an answer ({', '.join(_RESERVED)}); rename the column."
        )
    return names


def infer_targets(table: pa.Table, names: tuple[str, ...], *, task: Task | None = None) -> TargetSpec:
    """Say what is predicted of one or several columns.

    Several columns of two values each are labels (multilabel); several of numbers are several regressions.

    Args:
        table: Rows whose targets are all known.
        names: What ``target_columns`` returned.
        task: The task, when the user states it.

    Raises:
        DataError: As ``infer_target``; or several columns are of different kinds, or have more than two classes.
    """
    if len(names) == 1:
        return infer_target(table, names[0], task=None if task is Task.MULTILABEL else task)
    each_task = {Task.MULTILABEL: Task.BINARY, Task.REGRESSION: Task.REGRESSION}.get(task) if task else None
    if task is not None and each_task is None:
        raise DataError(f"Expected multilabel or regression as the task of several targets, received {task}.")
    found = [infer_target(table, name, task=each_task) for name in names]
    tasks = {one.task for one in found}
    joined = ", ".join(names)
    if tasks == {Task.REGRESSION}:
        reason = f"{len(names)} columns of numbers"
        return TargetSpec(joined, task=Task.REGRESSION, reason=reason, columns=names)
    if tasks != {Task.BINARY}:
        kinds = "; ".join(f"{one.name}: {one.task} ({one.reason})" for one in found[:5])
        raise DataError(
            f"Expected several targets to be all numbers or all of two values, received {kinds}; predict the others "
            "in a search of their own, or give --task regression where all are numbers."
        )
    pairs = tuple(_no_and_yes(one.classes) for one in found)
    for name, (_, yes), one in zip(names, pairs, found, strict=True):
        count = _num_of(table, one, yes)
        if min(count, table.num_rows - count) < MIN_ROWS_PER_LABEL:
            raise DataError(
                f"Expected at least {MIN_ROWS_PER_LABEL} rows with and without the label {name!r}, received {count} "
                f"of {table.num_rows:,} with it; add rows of it or leave the label out."
            )
    reason = f"{len(names)} columns of two values each"
    return TargetSpec(
        joined, task=Task.MULTILABEL, classes=names, reason=reason, columns=names, label_values=pairs
    )


def known_targets(table: pa.Table, names: tuple[str, ...]) -> tuple[NDArray[np.bool_], str | None]:
    """Return a mask of the rows whose targets are all known, and a note that counts the others (None for none).

    Args:
        table: The rows; other columns than the targets are not looked at.
        names: The target columns.

    Raises:
        DataError: A target is missing in all rows, or no row has all of them.
    """
    known = np.ones(table.num_rows, bool)
    for name in names:
        array = plain_array(table, name)
        if table.num_rows and array.null_count == len(array):
            raise DataError(f"The target {name!r} is missing in all {len(array):,} rows; give another target.")
        known &= np.asarray(pc.is_valid(array).to_numpy(zero_copy_only=False), bool)
    if known.all():
        return known, None
    what = repr(names[0]) if len(names) == 1 else f"value in all of {list_names(names)}"
    if not known.any():
        raise DataError(f"Expected rows with a {what}, received none; name fewer targets.")
    return known, f"{int((~known).sum()):,} of {table.num_rows:,} rows have no {what} and were left out."


def _no_and_yes(classes: tuple[str, ...]) -> tuple[str, str]:
    """Return which of two values says that a label does not hold, and which that it does."""
    first, second = classes
    if first.lower() in _YES and second.lower() in _NO:
        return second, first
    return first, second


def _num_of(table: pa.Table, target: TargetSpec, label: str) -> int:
    return int((encode_target(table, target) == target.classes.index(label)).sum())
