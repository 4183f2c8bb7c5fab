"""Windows of time series for forecasting, as rows of a table that any network for tables takes.

A window is ``context`` steps that are known and ``horizon`` steps that are to be forecast. As a row it has the lags of
the target and of all columns that are known only up to now, the values over the horizon of columns that are known
ahead, and the columns that never change within a series; its targets are the values of the next ``horizon`` steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import numbers_of, plain_array, require_column
from pipelines.errors import DataError
from pipelines.schema import checked_fields
from pipelines.series_steps import OrderedSeries, order_series

MAX_CELLS = 200_000_000
"""Values of a table of windows at most (1.6 GB)."""


class Reach(StrEnum):
    """Which rows a window may have.

    ``inside``: all of one split. ``back``: the steps to forecast are all of one split, and what is known of them may
    lie in earlier ones (or in the embargo), as it will when the model is used.
    """

    INSIDE = "inside"
    BACK = "back"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpec:
    """What windows are made of.

    Attributes:
        target: Column to forecast.
        time_column: Column that orders the steps.
        series_id: Column that tells series apart; "" for one series.
        context: Steps known, from 1.
        horizon: Steps to forecast, from 1.
        stride: Steps between the beginnings of two windows.
        period: Steps of a season; 1 for none.
        past: Columns of which the lags are used.
        known_future: Columns of which the values over the horizon are used.
        static: Columns that never change within a series; that of the series among them.
    """

    target: str
    time_column: str
    series_id: str = ""
    context: int
    horizon: int
    stride: int = 1
    period: int = 1
    past: tuple[str, ...] = ()
    known_future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Steps of a whole window."""
        return self.context + self.horizon

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of what is forecast, the next step first."""
        return tuple(ahead_name(self.target, step) for step in range(1, self.horizon + 1))

    @property
    def lagged(self) -> tuple[str, ...]:
        """The columns that lags are taken of, the target first."""
        return (self.target, *self.past)

    def sources(self) -> dict[str, str]:
        """Return the columns of a window that a model takes, each with the column that it comes from."""
        lags = {lag_name(name, lag): name for name in self.lagged for lag in range(1, self.context + 1)}
        ahead = {ahead_name(name, step): name for name in self.known_future for step in range(1, self.horizon + 1)}
        return {**dict(zip(self.static, self.static, strict=True)), **lags, **ahead}

    def told(self, name: str) -> str:
        """Return in words what a column of a window is.

        Args:
            name: One of ``sources``.
        """
        source = self.sources()[name]
        if name in self.static:
            return "the series" if name == self.series_id else "static: one value a series"
        number = name.rpartition("_")[2]
        steps = "1 step" if number == "1" else f"{number} steps"
        return f"{source}, known {steps} ahead" if source in self.known_future else f"{source}, lag of {steps}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown or missing.
        """
        values = checked_fields(cls, record)
        for name in ("past", "known_future", "static"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """The windows that fit into the series.

    Attributes:
        rows: Row numbers of the table, ``(num_windows, context + horizon)``, in the order of time.
        splits: ``Split`` of each, by its steps to forecast, ``(num_windows,)`` int8.
        over_boundary: Windows left out because they would cross from one split into another.
        over_gap: Windows left out because steps are missing inside.
    """

    rows: NDArray[np.intp]
    splits: NDArray[np.int8]
    over_boundary: int
    over_gap: int


def lag_name(column: str, lag: int) -> str:
    """Return the name of a value ``lag`` steps ago; lag 1 is the last one known."""
    return f"{column}_lag_{lag}"


def ahead_name(column: str, step: int) -> str:
    """Return the name of a value ``step`` steps ahead; step 1 is the next one."""
    return f"{column}_ahead_{step}"


def find_windows(
    ordered: OrderedSeries, splits: NDArray[np.int8], spec: WindowSpec, *, reach: Reach = Reach.INSIDE
) -> Windows:
    """Return the windows of all series that reach over no gap and no boundary between splits.

    Args:
        ordered: The rows in order.
        splits: ``Split`` of every row of the table in its own order, or ``LEFT_OUT``; rising with the time.
        spec: What windows are made of.
        reach: Which rows a window may have.
    """
    num_rows, length = len(ordered.order), spec.length
    begins = np.r_[True, ordered.series[1:] != ordered.series[:-1]] if num_rows else np.zeros(0, bool)
    place = np.arange(num_rows) - np.maximum.accumulate(np.where(begins, np.arange(num_rows), 0))
    first = np.flatnonzero(place % spec.stride == 0)
    first = first[first + length <= num_rows]
    last = first + length - 1
    first, last = (ends[ordered.series[first] == ordered.series[last]] for ends in (first, last))
    unbroken = ordered.run[first] == ordered.run[last]
    over_gap = int((~unbroken).sum())
    first, last = first[unbroken], last[unbroken]
    sorted_splits = splits[ordered.order]
    # Splits rise with the time, and a run of equal ones between equal ends is whole, but for rows of the embargo.
    start = first if reach is Reach.INSIDE else first + spec.context
    changes = np.concatenate([[0], np.cumsum(sorted_splits[1:] != sorted_splits[:-1])])
    good = (changes[start] == changes[last]) & (sorted_splits[last] >= 0)
    first = first[good]
    return Windows(
        rows=ordered.order[first[:, np.newaxis] + np.arange(length)],
        splits=sorted_splits[last[good]],
        over_boundary=int((~good).sum()),
        over_gap=over_gap,
    )


def latest_windows(ordered: OrderedSeries, known: NDArray[np.bool_], spec: WindowSpec) -> NDArray[np.intp]:
    """Return of each series the window whose context ends with its last known value.

    Args:
        ordered: The rows in order.
        known: Whether the target is known, of every row of the table in its own order.
        spec: What windows are made of.

    Returns:
        Row numbers ``(num_series, context + horizon)``; -1 for steps of the horizon that the table does not have.

    Raises:
        DataError: A series has no known value, or too few unbroken steps before its last one.
    """
    sorted_known = known[ordered.order]
    found = np.full((len(ordered.names), spec.length), -1, np.intp)
    for number, name in enumerate(ordered.names):
        places = np.flatnonzero(ordered.series == number)
        with_value = places[sorted_known[places]]
        last = int(with_value[-1]) if with_value.size else -1
        first = last - spec.context + 1
        if not with_value.size or first < places[0] or ordered.run[first] != ordered.run[last]:
            whose = f"series {name!r}" if spec.series_id else "the series"
            raise DataError(
                f"Expected {spec.context:,} steps without a gap up to the last known {spec.target!r} of {whose}, "
                f"received {with_value.size:,} known values in {places.size:,} rows; give more of its past."
            )
        ahead = min(int(places[-1]), last + spec.horizon)
        found[number, : spec.context] = ordered.order[first : last + 1]
        found[number, spec.context : spec.context + ahead - last] = ordered.order[last + 1 : ahead + 1]
    return found


def window_table(
    table: pa.Table, rows: NDArray[np.intp], spec: WindowSpec, *, with_targets: bool = True
) -> pa.Table:
    """Return one row a window.

    Args:
        table: The rows of the series.
        rows: Row numbers ``(num_windows, context + horizon)``; -1 where a step of the horizon is not there.
        spec: What windows are made of.
        with_targets: Whether the targets are wanted.

    Raises:
        DataError: A column is absent, or the windows are too many for the memory.
    """
    cells = len(rows) * (len(spec.sources()) + spec.horizon)
    if cells > MAX_CELLS:
        raise DataError(
            f"Expected windows of at most {MAX_CELLS:,} values together, but {len(rows):,} of them have {cells:,}; "
            f"leave some out (--stride {spec.stride * -(-cells // MAX_CELLS)}), or take a shorter context."
        )
    columns: dict[str, pa.Array] = {}

    def take(name: str, places: NDArray[np.intp]) -> pa.Array:
        array = plain_array(table, require_column(table, name))
        return array.take(pa.array(places, mask=places < 0))

    for name in spec.static:
        columns[name] = take(name, rows[:, spec.context - 1])
    for name in spec.lagged:
        for lag in range(1, spec.context + 1):
            columns[lag_name(name, lag)] = take(name, rows[:, spec.context - lag])
    for name in (*spec.known_future, *([spec.target] if with_targets else [])):
        for step in range(1, spec.horizon + 1):
            columns[ahead_name(name, step)] = take(name, rows[:, spec.context + step - 1])
    return pa.table(columns)


def check_static(table: pa.Table, ordered: OrderedSeries, names: tuple[str, ...]) -> None:
    """Refuse columns that are called static and change within a series.

    Args:
        table: The rows of the series.
        ordered: Their order.
        names: The columns.

    Raises:
        DataError: One changes.
    """
    same = ordered.series[1:] == ordered.series[:-1]
    for name in names:
        codes = plain_array(table, require_column(table, name, role="static column")).dictionary_encode().indices
        values = np.asarray(codes.fill_null(-1))[ordered.order]
        changed = np.flatnonzero(same & (values[1:] != values[:-1]))
        if changed.size:
            number = int(ordered.series[int(changed[0])])
            whose = f"series {ordered.names[number]!r}" if len(ordered.names) > 1 else "the series"
            raise DataError(
                f"Expected one value of the static column {name!r} in each series, but it changes within {whose}, "
                f"first in row {int(ordered.order[int(changed[0]) + 1]) + 1}; leave it out of --static."
            )


def series_values(table: pa.Table, ordered: OrderedSeries, column: str) -> list[NDArray[np.float64]]:
    """Return the values of each series in order, NaN where one is missing.

    Args:
        table: The rows.
        ordered: Their order.
        column: A column of numbers.
    """
    values = numbers_of(plain_array(table, column))[ordered.order]
    ends = np.flatnonzero(np.diff(ordered.series)) + 1
    return list(np.split(values, ends))


__all__ = [
    "MAX_CELLS",
    "OrderedSeries",
    "Reach",
    "WindowSpec",
    "Windows",
    "ahead_name",
    "check_static",
    "find_windows",
    "lag_name",
    "latest_windows",
    "order_series",
    "series_values",
    "window_table",
]
