from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datetime_text import PATTERNS, recognise_format, split_dates, timestamps_of

MOMENTS = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31))


@settings(deadline=None, max_examples=40)
@given(st.lists(MOMENTS, min_size=1, max_size=20), st.sampled_from(sorted(PATTERNS)))
def test_dates_are_taken_apart_as_python_does(moments: list[datetime.datetime], datetime_format: str) -> None:
    # strftime writes the year 7 as "7" on some platforms; dates have four digits.
    template = datetime_format.replace("%Y", "{0:04d}").replace("%m", "{1:02d}").replace("%d", "{2:02d}")
    texts = [template.format(m.year, m.month, m.day) + f" {m:%H:%M:%S}" for m in moments]
    parts = split_dates(pa.array(texts), datetime_format=datetime_format)
    assert parts.valid.all()
    expected = [(m.year, m.month, m.day, m.hour, m.minute, m.second) for m in moments]
    found = zip(parts.year, parts.month, parts.day, parts.hour, parts.minute, parts.second, strict=True)
    assert list(found) == expected
    assert parts.weekday.tolist() == [m.weekday() for m in moments]
    assert parts.days.tolist() == [(m.date() - datetime.date(1970, 1, 1)).days for m in moments]


@pytest.mark.parametrize(
    "text", ["", "x", "2020-02-30", "2019-02-29", "2020-00-01", "2020-1-1 24:00", "20-01-01", "2020-01-01 10", None]
)
def test_what_is_no_date_is_not_valid(text: str | None) -> None:
    parts = split_dates(pa.array([text, "2020-01-01"], pa.string()))
    assert parts.valid.tolist() == [False, True]


@pytest.mark.parametrize(
    "suffix", ["", "T10:20", " 10:20:30", "T10:20:30.123456", "T10:20:30Z", " 10:20:30 +02:00", "T10:20:30-0330"]
)
def test_time_fraction_and_zone_may_follow(suffix: str) -> None:
    parts = split_dates(pa.array(["2020-02-29" + suffix]))
    assert parts.valid.all()
    assert parts.hour[0] == (10 if suffix else 0)


def test_timestamps_and_their_text_are_the_same_dates() -> None:
    moments = pa.array([datetime.datetime(2020, 5, 6, 7, 8, 9), None], pa.timestamp("us"))
    assert split_dates(moments).seconds[0] == moments[0].as_py().replace(tzinfo=datetime.UTC).timestamp()
    assert (
        timestamps_of(pa.array(["2020-05-06 07:08:09", "x"]), datetime_format=None).to_pylist() == moments.to_pylist()
    )


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2020-01-02", "2020-11-12 10:00"], ("%Y-%m-%d", 1.0, False)),
        (["13/01/2020", "01/02/2020"], ("%d/%m/%Y", 1.0, False)),
        (["01/13/2020", "01/02/2020"], ("%m/%d/%Y", 1.0, False)),
        (["03/04/2020", "01/02/2020"], ("%m/%d/%Y", 1.0, True)),
        (["31.12.2020", None], ("%d.%m.%Y", 1.0, False)),
        (["2020/12/31", "2020/1/1", "x", "2020/1/3"], ("%Y/%m/%d", 0.75, False)),
        (["x", "y"], (None, 0.0, False)),
        ([None], (None, 0.0, False)),
    ],
)
def test_format_is_recognised_on_the_column_as_a_whole(
    texts: list[str | None], expected: tuple[str | None, float, bool]
) -> None:
    assert recognise_format(pa.array(texts, pa.string())) == expected


def test_invalid_rows_have_harmless_parts() -> None:
    parts = split_dates(pa.array(["x"]))
    assert (parts.year[0], parts.month[0], parts.day[0]) == (2000, 1, 1)
    assert parts.days.dtype == np.int64
