"""The column that says how much each row counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import numbers_of, parse_numbers, plain_array, require_column
from pipelines.errors import DataError
from pipelines.splits import Split


def row_weights(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Return the weight of every row, finite and at least 0, of shape ``(num_rows,)``.

    Args:
        table: The rows.
        name: The column of weights.

    Raises:
        DataError: The column is absent, holds something else than numbers, a missing, infinite or negative weight, or
            only zeros.
    """
    array = plain_array(table, require_column(table, name, role="weight column"))
    numbers = parse_numbers(array) if array.type == pa.string() else array
    if numbers.type not in (pa.int64(), pa.float64(), pa.bool_(), pa.null()):
        raise DataError(f"Expected numbers in the weight column {name!r}, received {array.type}; give another column.")
    wrong = np.asarray(numbers.is_null().to_numpy(zero_copy_only=False), bool)
    _refuse(wrong, array, name, what="a weight in every row", found="that hold none")
    weights = numbers_of(numbers)
    _refuse(~np.isfinite(weights), array, name, what="finite weights", found="that are infinite")
    _refuse(weights < 0, array, name, what="weights of at least 0", found="below 0")
    if not weights.any():
        raise DataError(
            f"Expected weights above 0 in the column {name!r}, but all {len(weights):,} are 0, so that no row would "
            f"count; give another column, or leave --weight out."
        )
    return weights


def check_split_weights(weights: NDArray[np.float64], splits: NDArray[np.int8], name: str) -> None:
    """Refuse a split in which no row counts.

    Args:
        weights: What ``row_weights`` returned.
        splits: ``Split`` values of shape ``(num_rows,)``.
        name: The column of weights.

    Raises:
        DataError: All weights of a split are 0.
    """
    for split in Split:
        if not weights[splits == split].any():
            raise DataError(
                f"Expected rows that count in training, validation and test, but all weights {name!r} of the "
                f"{split.name.lower()} rows are 0; weigh more rows, or give other shares or another seed."
            )


def check_fold_weights(weights: NDArray[np.float64], folds: NDArray[np.int8], name: str) -> None:
    """Refuse folds of which one holds out no row that counts.

    Args:
        weights: What ``row_weights`` returned.
        folds: The fold of every row from 0, of shape ``(num_rows,)``; below 0 for rows that are in none.
        name: The column of weights.

    Raises:
        DataError: All weights of a fold are 0.
    """
    num_folds = int(folds.max(initial=-1)) + 1
    totals = np.bincount(folds[folds >= 0], weights=weights[folds >= 0], minlength=num_folds)
    if not totals.all():
        raise DataError(
            f"Expected rows that count in each of {num_folds} folds, but all weights {name!r} of fold "
            f"{int(np.argmin(totals)) + 1} are 0; ask for fewer folds, or for 1 to select on one validation part."
        )


def _refuse(wrong: NDArray[np.bool_], array: pa.Array, name: str, *, what: str, found: str) -> None:
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    raise DataError(
        f"Expected {what} of the column {name!r}, but there are {int(wrong.sum()):,} of {len(wrong):,} {found}, the "
        f"first {array[row].as_py()!r} in row {row + 1}; mend them or drop these rows."
    )
