"""Dates written as text: the formats that are recognised, as regular expressions that Arrow and TensorFlow share.

Both run RE2, so that one pattern reads a date while the state is learned and inside the exported graph. An optional
time, fraction and zone suffix may follow the date. The zone is accepted and not applied: training and serving then see
the same wall-clock hour, whatever the zone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import TIMESTAMP, text_of

ISO_8601 = "%Y-%m-%d"
PARTS = ("year", "month", "day", "hour", "minute", "second")
MIN_YEAR, MAX_YEAR = 1, 9999

_TIME = (
    r"(?:[T ]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?"
    r"\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?$"
)
_YEAR, _MONTH, _DAY = r"(?P<year>\d{4})", r"(?P<month>\d{1,2})", r"(?P<day>\d{1,2})"

# In the order of preference: with 03/04/2020 alone both readings fit, and month first is the more frequent in files.
PATTERNS: dict[str, str] = {
    ISO_8601: f"^{_YEAR}-{_MONTH}-{_DAY}{_TIME}",
    "%Y/%m/%d": f"^{_YEAR}/{_MONTH}/{_DAY}{_TIME}",
    "%Y.%m.%d": f"^{_YEAR}[.]{_MONTH}[.]{_DAY}{_TIME}",
    "%m/%d/%Y": f"^{_MONTH}/{_DAY}/{_YEAR}{_TIME}",
    "%d/%m/%Y": f"^{_DAY}/{_MONTH}/{_YEAR}{_TIME}",
    "%d.%m.%Y": f"^{_DAY}[.]{_MONTH}[.]{_YEAR}{_TIME}",
    "%d-%m-%Y": f"^{_DAY}-{_MONTH}-{_YEAR}{_TIME}",
    "%m-%d-%Y": f"^{_MONTH}-{_DAY}-{_YEAR}{_TIME}",
}
_DAYS_BEFORE_MONTH = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], dtype=np.int64)
_DAYS_IN_MONTH = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class DateParts:
    """Dates taken apart, one value a row; a row that is no date has ``valid`` False and parts of 2000-01-01.

    Attributes:
        valid: Mask of shape ``(num_rows,)``.
        year: Calendar year.
        month: 1 to 12.
        day: 1 to 31.
        hour: 0 to 23.
        minute: 0 to 59.
        second: 0 to 59.
        days: Days since 1970-01-01.
    """

    valid: NDArray[np.bool_]
    year: NDArray[np.int64]
    month: NDArray[np.int64]
    day: NDArray[np.int64]
    hour: NDArray[np.int64]
    minute: NDArray[np.int64]
    second: NDArray[np.int64]
    days: NDArray[np.int64]

    @property
    def weekday(self) -> NDArray[np.int64]:
        """Day of the week, 0 = Monday; 1970-01-01 was a Thursday."""
        return (self.days + 3) % 7

    @property
    def seconds(self) -> NDArray[np.int64]:
        """Seconds since 1970-01-01."""
        return self.days * 86_400 + self.hour * 3_600 + self.minute * 60 + self.second


def split_dates(array: pa.Array, *, datetime_format: str | None = None) -> DateParts:
    """Take the dates of a column apart.

    Args:
        array: A timestamp or string array of shape ``(num_rows,)``.
        datetime_format: A key of ``PATTERNS``, or None for ISO 8601, which is always accepted as well.
    """
    text = text_of(array)
    parts = _read(text, PATTERNS[ISO_8601])
    if datetime_format not in (None, ISO_8601):
        other = _read(text, PATTERNS[str(datetime_format)])
        parts = {name: np.where(other["year"] >= 0, other[name], parts[name]) for name in PARTS}
    valid = _is_date(parts)
    safe = {name: np.where(valid, parts[name], 2000 if name == "year" else name in ("month", "day")) for name in PARTS}
    return DateParts(valid=valid, days=days_since_epoch(safe["year"], safe["month"], safe["day"]), **safe)


def days_since_epoch(year: NDArray[np.int64], month: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return days since 1970-01-01 in the proleptic Gregorian calendar.

    Args:
        year: 1 to 9999.
        month: 1 to 12.
        day: 1 to 31.
    """
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + _DAYS_BEFORE_MONTH[month - 1]
    return np.asarray(days + ((month > 2) & _is_leap(year)) + day - 1 - 719_162, dtype=np.int64)


def recognise_format(text: pa.Array) -> tuple[str | None, float, bool]:
    """Find the format that most values of a column follow.

    Args:
        text: A string array of shape ``(num_rows,)``.

    Returns:
        The format (None when nothing fits), the share of the non-missing values that follow it in [0, 1], and whether
        day and month could be exchanged without a value falling out of the calendar.
    """
    present = text.drop_null()
    if len(present) == 0:
        return None, 0.0, False
    # Most text columns hold no date at all; a look at a few hundred values settles that.
    sample = present.slice(0, 300)
    hits = {name: int(_is_date(_read(sample, pattern)).sum()) for name, pattern in PATTERNS.items()}
    if max(hits.values()) < 0.5 * len(sample):
        return None, 0.0, False
    shares = {name: float(_is_date(_read(present, PATTERNS[name])).mean()) for name, count in hits.items() if count > 0}
    best = max(shares, key=lambda name: shares[name])
    swapped = best.translate(str.maketrans("dm", "md"))
    return best, shares[best], swapped != best and shares.get(swapped, 0.0) == shares[best]


def timestamps_of(array: pa.Array, *, datetime_format: str | None) -> pa.Array:
    """Return a column as timestamps, null where a value is no date.

    Args:
        array: A timestamp or string array.
        datetime_format: A key of ``PATTERNS``, or None for ISO 8601.
    """
    if array.type == TIMESTAMP:
        return array
    parts = split_dates(array, datetime_format=datetime_format)
    return pa.array(parts.seconds * 1_000_000, mask=~parts.valid).cast(TIMESTAMP)


def _read(text: pa.Array, pattern: str) -> dict[str, NDArray[np.int64]]:
    found = pc.extract_regex(pc.fill_null(text, ""), pattern)
    matched = np.asarray(pc.is_valid(found).to_numpy(zero_copy_only=False), dtype=bool)
    parts = {}
    for name in PARTS:
        digits = pc.struct_field(found, name)
        number = pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64())
        parts[name] = np.where(matched, np.asarray(pc.fill_null(number, 0).to_numpy(zero_copy_only=False)), -1)
    return parts


def _is_leap(year: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)), dtype=bool)


def _is_date(parts: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    month = np.clip(parts["month"], 1, 12)
    days_in_month = _DAYS_IN_MONTH[month - 1] + ((month == 2) & _is_leap(parts["year"]))
    return np.asarray(
        (parts["year"] >= MIN_YEAR)
        & (parts["year"] <= MAX_YEAR)
        & (parts["month"] == month)
        & (parts["day"] >= 1)
        & (parts["day"] <= days_in_month)
        & (parts["hour"] <= 23)
        & (parts["minute"] <= 59)
        & (parts["second"] <= 59),
        dtype=bool,
    )
