from __future__ import annotations

import math

import pytest

from app.evaluation.number_text import number_text, seconds_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.876543, "0.8765"),
        (12345.6, "12,346"),
        (1234.56, "1,234.6"),
        (2e-5, "2e-05"),
        (1e15, "1e+15"),
        (1234567, "1,234,567"),
        (-20000.0, "-20,000"),
        (0.0, "0"),
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "inf"),
        (True, "yes"),
        (False, "no"),
        ("adamw", "adamw"),
    ],
)
def test_numbers_read_well(value: object, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
        (math.nan, "-"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
