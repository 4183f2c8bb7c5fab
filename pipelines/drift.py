"""Whether new rows still look like the training rows, column by column, against the stored profile.

A column drifts when chance does not explain the difference (p below 0.05, corrected for the number of columns) and the
difference is large enough to matter (PSI or the distance of the distributions at least 0.1); with many rows the first
alone would fire on differences of no consequence. Numbers are compared in the bins of the profile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
    if table.num_rows < MIN_ROWS:
        return []
    found = []
    for column in profile:
        if column.name not in table.column_names:
            continue
        array = plain_array(table, column.name)
        num_known = round(num_rows * (1 - column.missing_share))
        compare = _of_numbers if column.histogram_counts else _of_categories
        drift = compare(array, column, num_known)
        if drift is not None:
            found.append(drift)
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


def _of_numbers(array: pa.Array, column: ColumnProfile, num_known: int) -> ColumnDrift | None:
    if pa.types.is_timestamp(array.type):
        return None
    values = numbers_of(array)
    values = values[np.isfinite(values)]
    known = np.asarray(column.histogram_counts, np.float64)
    if values.size == 0 or known.sum() == 0 or num_known == 0:
        return None
    # What lies outside of the profile's range is in the bin at its end.
    edges = np.asarray(column.histogram_edges)
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, known.size - 1)
    counts = np.bincount(bins, minlength=known.size)
    expected, found = known / known.sum(), counts / counts.sum()
    distance = float(np.abs(np.cumsum(expected) - np.cumsum(found)).max())
    # Kolmogorov's limit for two samples; bins hide some of the distance, which makes it cautious.
    size = num_known * values.size / (num_known + values.size)
    p = float(stats.kstwobign.sf(np.sqrt(size) * distance))
    return ColumnDrift(column=column.name, test="KS", p=p, distance=distance, psi=stability_index(expected, found))


def _of_categories(array: pa.Array, column: ColumnProfile, num_known: int) -> ColumnDrift | None:
    listed = dict(column.top_values)
    if not listed or num_known == 0 or sum(listed.values()) < 0.5 * num_known:
        return None  # of a column with very many values the profile knows too little
    counts = _counts(array)
    total = sum(counts.values())
    if total == 0:
        return None
    names = list(listed)
    new = sum(count for name, count in counts.items() if name not in listed)
    known = np.array([*listed.values(), max(num_known - sum(listed.values()), 0)], np.float64)
    found = np.array([*(counts.get(name, 0) for name in names), new], np.float64)
    expected_shares, found_shares = known / known.sum(), found / total
    complete = known[-1] == 0
    return ColumnDrift(
        column=column.name,
        test="chi-square",
        p=_chi_square(known, found),
        distance=float(np.abs(expected_shares - found_shares).sum() / 2),
        psi=stability_index(expected_shares, found_shares),
        new_share=new / total if complete else 0.0,
    )


def _counts(array: pa.Array) -> Mapping[str, int]:
    counts = pc.value_counts(array.drop_null())
    labels = text_of(counts.field("values")).to_pylist()
    return dict(zip(labels, counts.field("counts").to_pylist(), strict=True))


def _chi_square(known: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return the p-value of one distribution behind two samples; rare categories are counted together."""
    total = known.sum() + found.sum()
    rare = (known + found) * min(known.sum(), found.sum()) / total < _MIN_EXPECTED
    table = np.stack([known, found])
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
