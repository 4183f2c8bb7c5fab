"""Rows of one or several time series in their order: steps, gaps, and steps that are irregular."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import plain_array, require_column, text_of
from pipelines.errors import DataError
from pipelines.instants import MICROSECONDS, Instants, instants, time_text

REGULAR_SHARE = 0.95
"""Share of the steps that must have one length; below it windows count rows and not time."""

_UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """How the steps of the series are spaced.

    Attributes:
        step: The usual step in words, such as ``1 day``, ``3 months`` or ``10`` for numbers.
        per_cycle: Steps of a day, week or year that such steps are known to have, the shortest cycle first.
        is_regular: Whether nearly all steps are of that length.
        num_series: Number of series.
        shortest: Rows of the shortest series.
        longest: Rows of the longest series.
        num_gaps: Places where steps are missing; of irregular series none.
        num_missing: Steps that are missing in them.
        largest_gap: Place and size of the largest gap in words; empty without a gap.
        share_regular: Share of the steps that have the usual length, in [0, 1].
    """

    step: str
    per_cycle: tuple[int, ...]
    is_regular: bool
    num_series: int
    shortest: int
    longest: int
    num_gaps: int
    num_missing: int
    largest_gap: str
    share_regular: float

    def sentences(self) -> list[str]:
        """Return what a person should know, in sentences."""
        series = "One series" if self.num_series == 1 else f"{self.num_series:,} series"
        lengths = dict.fromkeys([self.shortest, self.longest])
        found = [f"{series} of {' to '.join(f'{length:,}' for length in lengths)} rows in steps of {self.step}."]
        if not self.is_regular:
            found.append(
                f"The steps are irregular: {self.share_regular:.1%} of them are {self.step}, so that windows count "
                "rows and not time."
            )
        elif self.num_gaps:
            gaps = "1 gap" if self.num_gaps == 1 else f"{self.num_gaps:,} gaps"
            steps = "1 step is missing" if self.num_missing == 1 else f"{self.num_missing:,} steps are missing"
            found.append(f"{gaps}: {steps}, most of them {self.largest_gap}; no window reaches over a gap.")
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OrderedSeries:
    """Rows sorted by series, then by time.

    Attributes:
        order: Row numbers in that order, ``(num_rows,)``.
        times: When they happened, in that order: int64 microseconds, or numbers.
        series: Number of the series of each, from 0, in that order.
        names: The series by number, as text; one empty name where there is no column of series.
        run: Number of the unbroken run of each, in that order: another series or a gap begins another run.
        report: How the steps are spaced.
    """

    order: NDArray[np.intp]
    times: Instants
    series: NDArray[np.int64]
    names: tuple[str, ...]
    run: NDArray[np.int64]
    report: StepReport


def order_series(table: pa.Table, *, time_column: str, series_id: str | None = None) -> OrderedSeries:
    """Put rows in the order of their series and times.

    Args:
        table: The rows.
        time_column: When each happened: dates, or numbers.
        series_id: Which series each belongs to; None for one series.

    Raises:
        DataError: A column is absent or lacks a value, or a series has two rows of one time.
    """
    times = instants(table, time_column)
    series, names = _series_of(table, series_id)
    order = np.lexsort((times, series))
    sorted_times, sorted_series = times[order], series[order]
    same = sorted_series[1:] == sorted_series[:-1]
    twice = np.flatnonzero(same & (sorted_times[1:] == sorted_times[:-1]))
    if twice.size:
        place = int(twice[0])
        rows = sorted(int(row) + 1 for row in order[place : place + 2])
        whose = f" of series {names[int(sorted_series[place])]!r}" if series_id else ""
        hint = "" if series_id else "; name the column that tells series apart (--series-id)"
        raise DataError(
            f"Expected each time once in a series, but {twice.size:,} rows repeat one, the first "
            f"{time_text(sorted_times[place])}{whose} in the rows {rows[0]} and {rows[1]}{hint}, or aggregate them."
        )
    run, report = _spacing(sorted_times, sorted_series, names)
    return OrderedSeries(
        order=order, times=sorted_times, series=sorted_series, names=names, run=run, report=report
    )


def _series_of(table: pa.Table, series_id: str | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if series_id is None:
        return np.zeros(table.num_rows, np.int64), ("",)
    array = plain_array(table, require_column(table, series_id, role="series column"))
    if array.null_count:
        row = int(np.flatnonzero(np.asarray(array.is_null()))[0])
        raise DataError(
            f"Expected the name of a series in every row of {series_id!r}, but {array.null_count:,} are missing, the "
            f"first in row {row + 1}; mend or drop these rows."
        )
    encoded = text_of(array).dictionary_encode()
    return np.asarray(encoded.indices).astype(np.int64), tuple(encoded.dictionary.to_pylist())


def _spacing(
    times: Instants, series: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[NDArray[np.int64], StepReport]:
    """Return the unbroken runs, and how the steps are spaced."""
    same = series[1:] == series[:-1]
    gaps, step, per_cycle = _in_steps(times, same)
    inside = gaps[same]
    share = float((inside == 1).mean()) if inside.size else 1.0
    is_regular = share >= REGULAR_SHARE
    broken = ~same | (is_regular & (gaps != 1))
    run = np.concatenate([[0], np.cumsum(broken)]).astype(np.int64)
    sizes = np.bincount(series)
    holes = np.flatnonzero(same & (gaps != 1)) if is_regular else np.array([], np.int64)
    missing = np.maximum(np.round(gaps[holes]).astype(np.int64) - 1, 0)
    largest = ""
    if holes.size:
        place = int(holes[np.argmax(missing)])
        whose = f" of series {names[int(series[place])]!r}" if len(names) > 1 else ""
        largest = f"after {time_text(times[place])}{whose}"
    report = StepReport(
        step=step,
        per_cycle=per_cycle,
        is_regular=is_regular,
        num_series=len(sizes),
        shortest=int(sizes.min()),
        longest=int(sizes.max()),
        num_gaps=int(holes.size),
        num_missing=int(missing.sum()),
        largest_gap=largest,
        share_regular=share,
    )
    return run, report


def _in_steps(
    times: Instants, same: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], str, tuple[int, ...]]:
    """Return the distance of neighbours in usual steps, that step in words, and the cycles that it divides."""
    distances = np.diff(times)
    usual = _most_frequent(distances[same])
    gaps = distances / usual
    if times.dtype != np.int64:
        return gaps, f"{usual:g}", ()
    if same.any() and (gaps[same] == 1).mean() < REGULAR_SHARE:
        months = _in_months(times.astype(np.int64))
        if months is not None:
            between = np.diff(months)
            usual_months = int(_most_frequent(between[same]))
            per_year = (12 // usual_months,) if 12 % usual_months == 0 and usual_months < 12 else ()
            return between / usual_months, _counted(usual_months, "month"), per_year
    seconds = usual / MICROSECONDS
    unit, length = next(((u, n) for u, n in _UNITS if seconds >= n and seconds % n == 0), ("second", 1))
    per_cycle = [int(cycle / seconds) for cycle in (86_400, 604_800) if seconds < cycle and cycle % seconds == 0]
    if unit == "week" and seconds == length:
        per_cycle = [52]
    return gaps, _counted(seconds / length, unit), tuple(per_cycle)


def _in_months(times: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return months since 1970 where all dates are of one day of the month, or all the last day of theirs."""
    days = times.astype("datetime64[us]").astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    day = (days - months).astype(np.int64)
    is_last = (days + np.timedelta64(1, "D")).astype("datetime64[M]") > months
    if (day == day[0]).all() or is_last.all():
        return np.asarray(months.astype(np.int64))
    return None


def _most_frequent(distances: NDArray[np.generic]) -> float:
    if not distances.size:
        return 1.0
    values, counts = np.unique(distances, return_counts=True)
    return float(values[np.argmax(counts)])


def _counted(number: float, unit: str) -> str:
    return f"1 {unit}" if number == 1 else f"{number:g} {unit}s"
