"""How much a column tells of the target, as one number from 0 (nothing) to 1 (all of it)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from pipelines.column_values import numbers_of, text_of

_MIN_ROWS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """The association of a column with the target.

    Attributes:
        measure: ``Spearman`` (numbers with numbers, its absolute value), ``correlation ratio`` (numbers with
            categories) or ``Cramér's V`` (categories with categories, corrected for bias: Bergsma, 2013).
        value: In [0, 1].
    """

    measure: str
    value: float


def association(
    column: pa.Array, target: pa.Array, *, column_is_number: bool, target_is_number: bool
) -> Association | None:
    """Return the association of two columns over the rows in which both are known; None where nothing can be said.

    Args:
        column: An array of a plain type.
        target: Another of the same length.
        column_is_number: Whether the order of its values means something.
        target_is_number: The same of the target.
    """
    known = np.asarray(column.is_valid()) & np.asarray(target.is_valid())
    if int(known.sum()) < _MIN_ROWS:
        return None
    column, target = column.filter(pa.array(known)), target.filter(pa.array(known))
    if column_is_number and target_is_number:
        x, y = stats.rankdata(numbers_of(column)), stats.rankdata(numbers_of(target))
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            return None
        return Association(measure="Spearman", value=abs(float(np.corrcoef(x, y)[0, 1])))
    if column_is_number or target_is_number:
        numbers, categories = (column, target) if column_is_number else (target, column)
        return _ratio(numbers_of(numbers), _codes(categories))
    return _cramer(_codes(column), _codes(target))


def _codes(array: pa.Array) -> NDArray[np.int64]:
    return np.asarray(text_of(array).dictionary_encode().indices, np.int64)


def _ratio(numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> Association | None:
    """Return the share of the numbers' spread that lies between the categories, as a root.

    Ranks take the place of the numbers: one huge value would decide alone.
    """
    ranks = stats.rankdata(numbers)
    total = float(np.sum((ranks - ranks.mean()) ** 2))
    counts = np.bincount(codes)
    # With a category for each row or so, any numbers would be explained.
    if total == 0 or np.count_nonzero(counts) > len(codes) / 2:
        return None
    means = np.bincount(codes, weights=ranks) / np.maximum(counts, 1)
    between = float(np.sum(counts * (means - ranks.mean()) ** 2))
    return Association(measure="correlation ratio", value=float(np.sqrt(min(between / total, 1.0))))


def _cramer(first: NDArray[np.int64], second: NDArray[np.int64]) -> Association | None:
    rows, columns = int(first.max()) + 1, int(second.max()) + 1
    if min(rows, columns) < 2 or rows * columns > 1_000_000:
        return None
    table = np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns)
    size = len(first)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / size
    phi = float(np.sum((table - expected) ** 2 / expected)) / size
    phi = max(0.0, phi - (rows - 1) * (columns - 1) / (size - 1))
    limit = min(rows - (rows - 1) ** 2 / (size - 1), columns - (columns - 1) ** 2 / (size - 1)) - 1
    return Association(measure="Cramér's V", value=float(np.sqrt(min(phi / limit, 1.0)))) if limit > 0 else None
