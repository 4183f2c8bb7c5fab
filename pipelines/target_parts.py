"""Which training rows may teach which others what a category's target is (numpy, no TensorFlow).

The rows are in parts. A part of a table without order learns from all other parts: folds, of rows, or of whole groups
where new rows are of new groups. A part of a table in time learns from the earlier parts alone, as in production
nothing is known of what comes (ordered target statistics; Prokhorenkova et al., CatBoost, 2018, section 3.2, by blocks
of time instead of by rows: between what is learned from and what is predicted there is as a rule some time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import plain_array
from pipelines.instants import instants
from pipelines.row_hash import hash_column
from pipelines.schema import DatasetSchema

NUM_FOLDS = 5
NUM_BLOCKS = 20
"""Blocks of time of about as many rows; nothing is known before the first."""

_SEED = 20_011


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that rows are in.

    Attributes:
        of_rows: Part of each row that teaches, ``(num_rows,)``.
        number: Number of parts, which is also the part of a row that belongs with none of them.
        in_order: Whether a part is taught by the earlier ones, rather than by all others.
        marks: Groups, as rising numbers, or the time that each block begins with; None where a row is by itself.
        parts: Part of each of ``marks``.
    """

    of_rows: NDArray[np.intp]
    number: int
    in_order: bool = False
    marks: NDArray[Any] | None = None
    parts: NDArray[np.intp] | None = None

    def teachers(self, part: int) -> NDArray[np.intp]:
        """Return the rows that a part may learn from."""
        return np.flatnonzero(self.of_rows < part if self.in_order else self.of_rows != part)

    def of(self, table: pa.Table, schema: DatasetSchema) -> NDArray[np.intp] | None:
        """Return the parts of training rows that do not teach; None where all others may teach them.

        Args:
            table: The rows.
            schema: What groups or orders them.

        Returns:
            Values up to ``number``, ``(num_rows,)``.
        """
        if self.marks is None or self.parts is None:
            return None
        if self.in_order:
            begun = np.searchsorted(self.marks, instants(table, str(schema.time_column)), side="right") - 1
            return np.asarray(self.parts[np.maximum(begun, 0)])
        groups, missing = _group_hashes(table, str(schema.group))
        places = np.minimum(np.searchsorted(self.marks, groups), len(self.marks) - 1)
        is_known = (self.marks[places] == groups) & ~missing
        return np.where(is_known, self.parts[places], self.number)


def parts_of(table: pa.Table, schema: DatasetSchema) -> Parts:
    """Return the parts of rows that teach.

    Args:
        table: The rows.
        schema: What groups or orders them. A column that the rows were stored without, by an earlier version, as
            their state knew none, neither groups nor orders them.
    """
    if schema.time_column in table.column_names:
        return _blocks(table, str(schema.time_column))
    if schema.group in table.column_names:
        return _group_folds(table, str(schema.group))
    return Parts(of_rows=_dealt(table.num_rows), number=NUM_FOLDS)


def _blocks(table: pa.Table, name: str) -> Parts:
    times = instants(table, name)
    # Rows of one time are in one block, so there may be fewer.
    begins = np.unique(np.sort(times)[np.arange(NUM_BLOCKS) * len(times) // NUM_BLOCKS])
    blocks = np.searchsorted(begins, times, side="right") - 1
    return Parts(
        of_rows=blocks, number=len(begins), in_order=True, marks=begins, parts=np.arange(len(begins), dtype=np.intp)
    )


def _group_folds(table: pa.Table, name: str) -> Parts:
    hashes, missing = _group_hashes(table, name)
    marks, groups = np.unique(hashes, return_inverse=True)
    groups = groups.reshape(-1)
    # One without a group is its own, as in the splits.
    groups[missing] = len(groups) + np.arange(missing.sum())
    folds = _dealt(int(groups.max()) + 1)
    return Parts(of_rows=folds[groups], number=NUM_FOLDS, marks=marks, parts=folds[: len(marks)])


def _group_hashes(table: pa.Table, name: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    array = plain_array(table, name)
    return hash_column(array), np.asarray(array.is_null().to_numpy(zero_copy_only=False), bool)


def _dealt(number: int) -> NDArray[np.intp]:
    return np.random.default_rng(_SEED).permutation(number) % NUM_FOLDS
