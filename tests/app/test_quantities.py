from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError
from app.quantities import parse_bytes, parse_duration, parse_milliseconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        (" 1h 30m ", 5400.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("10 m", 600.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["5 parsecs", "", "  ", "m", "-5m", "1h30", "30 10", "10 minutes", "nan", "inf", "1e3s", "٣m", "5m x"]
)
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"time is .*: expected a duration such as 90s, 10m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "0.0"])
def test_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"time is '{text}': expected more than zero"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["3651d", "9" * 400 + "d"])
def test_more_time_than_anyone_has_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected at most ten years"):
        parse_duration(text)


@given(hours=st.integers(0, 99), minutes=st.integers(0, 99), seconds=st.integers(1, 99))
@settings(deadline=None, max_examples=30)
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("512 MiB", 512 * 2**20), ("1e9", 10**9), ("2g", 2 * 10**9), ("3", 3)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "x", "0", "-1GB", "5ib", "2gi", "1.GB"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a size such as 4GB or 512MB"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "milliseconds"), [("20ms", 20), ("0.5s", 500), ("7", 7), (" 1.5 ms ", 1.5)])
def test_times_are_read_in_milliseconds(text: str, milliseconds: float) -> None:
    assert parse_milliseconds(text) == milliseconds


@pytest.mark.parametrize("text", ["", "0ms", "-1ms", "20 minutes", "ms", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a time such as 20ms or 0\.5s"):
        parse_milliseconds(text)
