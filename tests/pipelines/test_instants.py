"""When rows happened, and rows that an embargo leaves out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.instants import MICROSECONDS, check_not_ahead, instants, time_text
from pipelines.schema import TargetSpec, Task
from pipelines.splits import Split, assign_splits, cut_in_order
from pipelines.time_splits import LEFT_OUT, Embargo, embargoed


def of(*texts: str | None) -> np.ndarray:
    return instants(pa.table({"t": texts}), "t")


def test_a_zone_behind_a_date_counts() -> None:
    first, second, third = of("2024-05-01T12:00:00+02:00", "2024-05-01T10:30:00Z", "2024-05-01 06:00:00-0500")
    assert (second - first, third - first) == (30 * 60 * MICROSECONDS, 60 * 60 * MICROSECONDS)
    assert time_text(first) == "2024-05-01T10:00:00"
    assert time_text(np.float64(2.5)) == "2.5"
    assert time_text(of("2024-05-01T12:00:00.25")[0]) == "2024-05-01T12:00:00.250000"


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=20), st.sampled_from(["", "Z", "+02:00"]))
@settings(deadline=None, max_examples=40)
def test_text_is_the_instant_of_the_timestamp_to_the_microsecond(ticks: list[int], zone: str) -> None:
    times = pa.array(ticks).cast(pa.timestamp("us"))
    texts = [f"{np.datetime64(tick, 'us')}{zone}" for tick in ticks]
    ahead = 2 * 3600 * MICROSECONDS if zone == "+02:00" else 0
    assert of(*texts).tolist() == (instants(pa.table({"t": times}), "t") - ahead).tolist()


def test_fractions_of_any_length_count() -> None:
    whole, *others = of("2024-05-01T12:00:00", "2024-05-01 12:00:00,5", "2024-05-01T12:00:00.123456789", "2024-05-01")
    assert [int(other - whole) for other in others] == [500_000, 123_456, -12 * 3600 * MICROSECONDS]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("2024-05-01", "soon", "2024-05-02"), r"received 'soon' in row 2 \(1 such rows\); mend or drop them"),
        (("2024-05-01", None, "2024-05-02"), r"received None in row 2"),
        (("2024-05-01T12:00:00Z", "2024-05-01T12:00:00"), "1 of 2 have one and '2024-05-01T12:00:00' in row 2"),
    ],
)
def test_times_that_cannot_be_read_are_refused_with_their_place(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        of(*texts)


def test_infinite_times_are_refused() -> None:
    with pytest.raises(DataError, match=r"Expected finite numbers in the time column 't', .* infinite one in row 2"):
        instants(pa.table({"t": [1.0, np.inf]}), "t")


def test_a_clock_that_is_ahead_is_refused_with_its_place() -> None:
    times = of("2024-05-01", "2024-05-02", "2031-01-01")
    now = 1714694400.0  # 2024-05-03
    with pytest.raises(DataError, match=r"1 lie more than a day ahead of this machine's clock, .* 2031-01-01.* row 3"):
        check_not_ahead(times, "t", now=now)
    check_not_ahead(times[:2], "t", now=now)
    check_not_ahead(np.array([9e18]), "t", now=now)


@given(
    st.lists(st.integers(0, 300), min_size=60, max_size=200),
    st.integers(0, 12),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_splits_are_as_far_apart_as_the_embargo(days: list[int], length: int, in_days: bool) -> None:
    times = np.array(days, np.int64) * 86_400 * MICROSECONDS
    embargo = Embargo(seconds=86_400.0 * length) if in_days else Embargo(steps=length)
    splits = cut_in_order(times, shares=(0.25, 0.25))
    assume(np.unique(splits).size == 3)
    try:
        found = embargoed(splits, times, embargo, name="t")
    except DataError:
        assume(False)
    distinct = np.unique(times)
    for earlier, later in ((Split.TRAIN, Split.VALIDATION), (Split.VALIDATION, Split.TEST)):
        last, first = times[found == earlier].max(), times[found == later].min()
        between = np.searchsorted(distinct, first) - np.searchsorted(distinct, last) - 1
        assert (first - last > embargo.seconds * MICROSECONDS or not length) if in_days else (between >= length)
    assert (found[found != LEFT_OUT] == splits[found != LEFT_OUT]).all()
    # What is judged stays whole: rows are taken from the earlier side alone.
    assert (found[splits == Split.TEST] == Split.TEST).all()


def test_an_embargo_needs_times_of_its_kind() -> None:
    numbers = np.arange(100.0)
    splits = cut_in_order(numbers, shares=(0.2, 0.2))
    with pytest.raises(DataError, match="Expected a number of rows as the embargo, such as 10, because the time"):
        embargoed(splits, numbers, Embargo(seconds=60.0), name="t")
    with pytest.raises(DataError, match="the embargo leaves no validation rows: it takes 40 of 100"):
        embargoed(splits, numbers, Embargo(steps=20), name="t")
    table = pa.table({"x": np.arange(100), "y": np.random.default_rng(0).normal(size=100)})
    with pytest.raises(DataError, match=r"Expected a time column with the embargo \(--time-column\)"):
        assign_splits(table, TargetSpec("y", task=Task.REGRESSION), seed=0, embargo=Embargo(steps=2))
