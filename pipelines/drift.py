"""Whether new rows still look like the training rows, column by column, against the stored profile.

A column drifts when chance does not explain the difference (p below 0.05, corrected for the number of columns) and the
difference is large enough to matter (PSI or the distance of the distributions at least 0.1); with many rows the first
alone would fire on differences of no consequence. Numbers are compared in the bins of the profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from pipelines.column_values import numbers_of, plain_array, text_of
from pipelines.data_report import ColumnProfile

MIN_ROWS = 500
"""With fewer new rows nothing is said."""
MAX_P = 0.05
MIN_EFFECT = 0.1
_FLOOR = 1e-4
_MIN_EXPECTED = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """How a column differs from its profile.

    Attributes:
        column: Name of the column.
        test: ``KS`` (numbers) or ``chi-square`` (categories).
        p: Probability of such a difference by chance, corrected for the number of columns (Holm), in [0, 1].
        distance: Largest difference of the cumulative shares (numbers) or total variation (categories), in [0, 1].
        psi: Population stability index; above 0.1 a shift, above 0.25 a large one.
        new_share: Share of the rows whose category the profile does not list, in [0, 1]; 0 for numbers.
    """

    column: str
    test: str
    p: float
    distance: float
    psi: float
    new_share: float = 0.0

    @property
    def drifts(self) -> bool:
        """Whether the difference is neither chance nor small."""
        return self.p < MAX_P and max(self.psi, self.distance) >= MIN_EFFECT


def find_drift(table: pa.Table, profile: Sequence[ColumnProfile], *, num_rows: int) -> list[ColumnDrift]:
    """Compare new rows with a profile; columns that the rows lack, or that cannot be compared, are left out.

    Args:
        table: The new rows.
        profile: Columns as they were in training.
        num_rows: Rows that the profile describes.

    Returns:
        The columns, the largest PSI first; none with fewer than `MIN_ROWS` new rows.
    """
    check = DriftCheck(profile, num_rows=num_rows)
    check.add(table)
    return check.found()


@final
class DriftCheck:
    """How rows that are looked at a part at a time differ from a profile.

    Args:
        profile: Columns as they were in training.
        num_rows: Rows that the profile describes.
    """

    def __init__(self, profile: Sequence[ColumnProfile], *, num_rows: int) -> None:
        self._num_rows = 0
        self._columns: dict[str, _Numbers | _Categories] = {}
        for column in profile:
            num_known = round(num_rows * (1 - column.missing_share))
            kind = _Numbers if column.histogram_counts else _Categories
            self._columns[column.name] = kind(column, num_known=num_known)

    def add(self, table: pa.Table) -> None:
        """Look at some rows; all parts have the same columns of the same types."""
        self._num_rows += table.num_rows
        present = set(table.column_names)
        for name, column in self._columns.items():
            if name in present:
                column.add(plain_array(table, name))

    def found(self) -> list[ColumnDrift]:
        """Return the columns, the largest PSI first; none with fewer than `MIN_ROWS` rows so far."""
        if self._num_rows < MIN_ROWS:
            return []
        found = [drift for column in self._columns.values() if (drift := column.drift()) is not None]
        corrected = holm([drift.p for drift in found])
        found = [replace(drift, p=float(p)) for drift, p in zip(found, corrected, strict=True)]
        return sorted(found, key=lambda drift: -drift.psi)


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Return p-values corrected for their number (Holm, 1979): the chance of any false alarm stays below the limit.

    Args:
        p_values: In [0, 1].
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def stability_index(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return the population stability index of two lists of shares; an empty bin counts as one in ten thousand rows.

    Args:
        expected: Shares in training, summing to 1.
        found: Shares in the new rows.
    """
    first, second = np.maximum(expected, _FLOOR), np.maximum(found, _FLOOR)
    return float(np.sum((second - first) * np.log(second / first)))


@final
class _Numbers:
    """New numbers in the bins of the profile."""

    def __init__(self, column: ColumnProfile, *, num_known: int) -> None:
        self._column, self._num_known = column, num_known
        self._known = np.asarray(column.histogram_counts, np.float64)
        self._edges = np.asarray(column.histogram_edges)
        self._counts = np.zeros(self._known.size, np.int64)

    def add(self, array: pa.Array) -> None:
        """Count values; dates are not compared."""
        if pa.types.is_timestamp(array.type):
            return
        values = numbers_of(array)
        values = values[np.isfinite(values)]
        # What lies outside of the profile's range is in the bin at its end.
        bins = np.clip(np.searchsorted(self._edges, values, side="right") - 1, 0, self._known.size - 1)
        self._counts += np.bincount(bins, minlength=self._known.size)

    def drift(self) -> ColumnDrift | None:
        """Return how they differ; None where nothing can be said."""
        num_values = int(self._counts.sum())
        if num_values == 0 or self._known.sum() == 0 or self._num_known == 0:
            return None
        expected, found = self._known / self._known.sum(), self._counts / num_values
        distance = float(np.abs(np.cumsum(expected) - np.cumsum(found)).max())
        # Kolmogorov's limit for two samples; bins hide some of the distance, which makes it cautious.
        size = self._num_known * num_values / (self._num_known + num_values)
        p = float(stats.kstwobign.sf(np.sqrt(size) * distance))
        psi = stability_index(expected, found)
        return ColumnDrift(column=self._column.name, test="KS", p=p, distance=distance, psi=psi)


@final
class _Categories:
    """New categories among those that the profile lists."""

    def __init__(self, column: ColumnProfile, *, num_known: int) -> None:
        self._name, self._listed, self._num_known = column.name, dict(column.top_values), num_known
        self._counts = dict.fromkeys(self._listed, 0)
        self._num_new = 0

    def add(self, array: pa.Array) -> None:
        """Count values."""
        counts = pc.value_counts(array.drop_null())
        labels = text_of(counts.field("values")).to_pylist()
        for label, rows in zip(labels, counts.field("counts").to_pylist(), strict=True):
            if label in self._counts:
                self._counts[label] += rows
            else:
                self._num_new += rows

    def drift(self) -> ColumnDrift | None:
        """Return how they differ; None where nothing can be said."""
        listed, total = list(self._listed.values()), sum(self._counts.values()) + self._num_new
        # Of a column with very many values the profile knows too little.
        if not listed or self._num_known == 0 or sum(listed) < 0.5 * self._num_known or total == 0:
            return None
        known = np.array([*listed, max(self._num_known - sum(listed), 0)], np.float64)
        found = np.array([*self._counts.values(), self._num_new], np.float64)
        expected_shares, found_shares = known / known.sum(), found / total
        is_complete = known[-1] == 0
        return ColumnDrift(
            column=self._name,
            test="chi-square",
            p=_chi_square(known, found),
            distance=float(np.abs(expected_shares - found_shares).sum() / 2),
            psi=stability_index(expected_shares, found_shares),
            new_share=self._num_new / total if is_complete else 0.0,
        )


def _chi_square(known: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return the p-value of one distribution behind two samples; rare categories are counted together."""
    total = known.sum() + found.sum()
    rare = (known + found) * min(known.sum(), found.sum()) / total < _MIN_EXPECTED
    table = np.stack([known, found])
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
