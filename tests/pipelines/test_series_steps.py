"""What is said of the steps of series: their length, gaps, irregular ones, and rows that repeat a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.seasonality import find_period, seasonal_lag
from pipelines.series_steps import order_series


def days(frequency: str, periods: int) -> pa.Table:
    return pa.table({"day": pd.date_range("2021-01-31", periods=periods, freq=frequency).as_unit("us").to_numpy()})


@pytest.mark.parametrize(
    ("frequency", "step", "per_cycle"),
    [
        ("D", "1 day", (7,)),
        ("h", "1 hour", (24, 168)),
        ("15min", "15 minutes", (96, 672)),
        ("W", "1 week", (52,)),
        ("ME", "1 month", (12,)),
        ("MS", "1 month", (12,)),
        ("QE", "3 months", (4,)),
        ("YE", "12 months", ()),
    ],
)
def test_steps_have_the_length_that_people_give_them(frequency: str, step: str, per_cycle: tuple[int, ...]) -> None:
    report = order_series(days(frequency, 60), time_column="day").report
    assert (report.step, report.per_cycle, report.is_regular, report.num_gaps) == (step, per_cycle, True, 0)


def test_steps_may_be_shorter_than_a_second() -> None:
    table = pa.table({"day": [f"2021-01-01T00:00:{tick // 10:02}.{tick % 10}" for tick in range(200)]})
    report = order_series(table, time_column="day").report
    assert (report.step, report.is_regular, report.num_gaps) == ("0.1 seconds", True, 0)


def test_gaps_are_counted_and_the_largest_is_named() -> None:
    table = pa.table({"day": pd.date_range("2021-01-01", periods=100).drop(["2021-02-03", "2021-02-04", "2021-03-01"])})
    report = order_series(table, time_column="day").report
    assert report.sentences()[1] == (
        "2 gaps: 3 steps are missing, most of them after 2021-02-02T00:00:00; no window reaches over a gap."
    )


def test_working_days_are_irregular_steps() -> None:
    ordered = order_series(days("B", 100), time_column="day")
    assert not ordered.report.is_regular
    assert "80.8% of them are 1 day, so that windows count rows and not time" in ordered.report.sentences()[1]
    assert ordered.run.max() == 0


def test_rows_that_repeat_a_time_are_refused_with_their_places() -> None:
    table = pa.table({"day": ["2021-01-01", "2021-01-02", "2021-01-02"], "shop": ["a", "a", "a"]})
    with pytest.raises(DataError, match=r"1 rows repeat one, the first 2021-01-02T00:00:00 of series 'a' in the rows"):
        order_series(table, time_column="day", series_id="shop")
    with pytest.raises(DataError, match=r"in the rows 2 and 3; name the column that tells series apart \(--series"):
        order_series(table, time_column="day")
    with pytest.raises(DataError, match="the name of a series in every row of 'shop', but 1 are missing, the first"):
        order_series(table.set_column(1, "shop", pa.array(["a", None, "a"])), time_column="day", series_id="shop")


@pytest.mark.parametrize("period", [5, 7, 12])
def test_a_season_is_found(period: int) -> None:
    steps = np.arange(300)
    noise = np.random.default_rng(period).normal(size=300)
    values = 3 * np.sin(2 * np.pi * steps / period) + 0.02 * steps + 0.3 * noise
    values[40:44] = np.nan
    assert find_period([values, values[:100]], horizon=6) == period


def test_a_random_walk_has_no_season() -> None:
    walk = np.random.default_rng(0).normal(size=400).cumsum()
    assert find_period([walk], horizon=7, likely=(7,)) == 1
    assert find_period([], horizon=7) == find_period([np.full(90, np.nan)], horizon=7) == 1


def test_the_season_is_repeated_over_the_horizon() -> None:
    assert [seasonal_lag(step, 7) for step in (1, 6, 7, 8, 14, 15)] == [7, 2, 1, 7, 1, 7]
    assert [seasonal_lag(step, 1) for step in (1, 2, 3)] == [1, 1, 1]
