"""What can be said of a column in one pass and bounded memory: distinct values, frequent values, moments.

Each is exact up to its capacity, and parts that were looked at apart can be added up in any order.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@final
class DistinctCounter:
    """Number of distinct values, from the smallest of their hashes.

    Exact up to `capacity`; beyond, the standard error is ``1 / sqrt(capacity - 2)``, 0.4 % for the default (KMV: Bar-
    Yossef et al., 2002; the unbiased estimator is that of Beyer et al., 2007, equation 3).

    Args:
        capacity: Hashes that are kept, at least 3.
    """

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._capacity = capacity
        self._smallest = np.zeros(0, np.uint64)
        self._waiting: list[NDArray[np.uint64]] = []
        self._num_waiting = 0

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Add values.

        Args:
            hashes: Their hashes, spread evenly over 64 bits.
        """
        if len(self._smallest) == self._capacity:
            hashes = hashes[hashes < self._smallest[-1]]
        self._waiting.append(hashes)
        self._num_waiting += hashes.size
        if self._num_waiting > 4 * self._capacity:
            self._merge()

    def _merge(self) -> None:
        if self._num_waiting:
            # Sorted at once, for that is what costs; numpy.unique is slower, as it hashes.
            hashes = np.sort(np.concatenate([self._smallest, *self._waiting]))
            self._smallest = hashes[np.append(True, hashes[1:] != hashes[:-1])][: self._capacity]
        self._waiting, self._num_waiting = [], 0

    @property
    def is_exact(self) -> bool:
        """Whether every value is still known."""
        self._merge()
        return len(self._smallest) < self._capacity

    @property
    def count(self) -> int:
        """The number of distinct values."""
        if self.is_exact:
            return len(self._smallest)
        return round((self._capacity - 1) / (float(self._smallest[-1]) / 2.0**64))


@final
class FrequentValues:
    """The most frequent values with their numbers of rows.

    Exact as long as there are no more than `capacity` distinct ones; beyond, a count is too small by at most the number
    of rows over `capacity`, and every value above that is there (Misra and Gries, 1982; merged as in Agarwal et al.,
    2012, section 3).

    Args:
        capacity: Values that are kept.
    """

    def __init__(self, capacity: int = 20_000) -> None:
        self._capacity = capacity
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        self.most_missed = 0
        """By how much a count may be too small."""

    def add(self, array: pa.Array) -> None:
        """Add values; missing ones are left out."""
        counted = pc.value_counts(array.drop_null())
        self.add_counts(counted.field("values"), counted.field("counts"))

    def add_counts(self, values: pa.Array, rows: pa.Array) -> None:
        """Add values that are counted already.

        Args:
            values: Different values, none of them missing.
            rows: How many there are of each.
        """
        self._waiting.append(pa.table({"value": values, "rows": rows.cast(pa.int64())}))
        self._num_waiting += len(values)
        if self._num_waiting > 4 * self._capacity:
            self._merge()

    def counts(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """Return the values and their numbers of rows."""
        self._merge()
        if not self._waiting:
            return pa.array([], pa.string()), np.zeros(0, np.int64)
        (table,) = self._waiting
        return table.column("value").combine_chunks(), table.column("rows").to_numpy().astype(np.int64)

    def _merge(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).group_by("value").aggregate([("rows", "sum")])
        table = table.rename_columns({"value": "value", "rows_sum": "rows"})
        rows = table.column("rows").to_numpy()
        if len(rows) > self._capacity:
            spared = int(np.partition(rows, len(rows) - self._capacity - 1)[len(rows) - self._capacity - 1])
            table = pa.table({"value": table.column("value"), "rows": rows - spared})
            table = table.filter(pc.field("rows") > 0)
            self.most_missed += spared
        self._waiting, self._num_waiting = [table], table.num_rows


@final
class Moments:
    """Number, range, mean and deviation of numbers, as if they had been there at once (Chan et al., 1979)."""

    def __init__(self) -> None:
        self.num, self.mean, self._squares = 0, 0.0, 0.0
        self.min, self.max = math.inf, -math.inf
        self.is_whole = True

    def add(self, values: NDArray[np.float64]) -> None:
        """Add finite numbers."""
        if not values.size:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            num, mean = self.num + values.size, float(values.mean())
            difference = mean - self.mean
            self._squares += float(values.var()) * values.size + difference**2 * self.num * values.size / num
            self.mean += difference * values.size / num
        self.num = num
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))
        self.is_whole = self.is_whole and are_whole(values)

    @property
    def deviation(self) -> float:
        """The standard deviation over all of them."""
        return math.sqrt(self._squares / self.num) if self.num else 0.0


def are_whole(values: NDArray[np.float64]) -> bool:
    """Whether all numbers are whole and at most 2**53.

    Args:
        values: Finite numbers.
    """
    # Decimals show at once.
    return all(
        bool(np.all((some == np.rint(some)) & (np.abs(some) <= 2.0**53))) for some in (values[:256], values[256:])
    )
