"""What the encoder needs to know of a column of dates, learned on the training rows only (R5); no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import plain_array
from pipelines.datetime_text import DateParts, split_dates
from pipelines.schema import FeatureSpec, checked_fields

DATE_PARTS: Mapping[str, tuple[str, ...]] = {
    "year": ("year",),
    "days": ("days",),
    "month": ("month sin", "month cos"),
    "day": ("day sin", "day cos"),
    "month end": ("month end",),
    "year day": ("year day sin", "year day cos"),
    "weekday": ("weekday sin", "weekday cos"),
    "weekend": ("weekend",),
    "hour": ("hour sin", "hour cos"),
    "minute": ("time sin", "time cos"),
}
"""Part of a date -> the encoded columns that it becomes. Cycles are sines and cosines: December is next to January."""

_FORMER = ("year", "days", "month", "weekday", "weekend")
"""Parts of every date in the states of earlier versions, which do not name them; those with a time had the hour too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatetimeEncoding:
    """A column of dates: standardised year and days, and what else of `DATE_PARTS` varies in the training rows.

    Attributes:
        name: Name of the column.
        datetime_format: A key of ``PATTERNS``; None for ISO 8601, which is always accepted.
        has_hour: The time of day varies in the training rows.
        has_indicator: A further column says whether the date was missing or no date.
        fill: Median days since 1970-01-01 of the training rows, at midnight; stands in for a missing date.
        year_mean: Mean year of the training rows.
        year_inverse_scale: One over the standard deviation of the year.
        days_mean: Mean days since 1970-01-01 of the training rows.
        days_inverse_scale: One over their standard deviation.
        parts: Keys of `DATE_PARTS`; () in a state of before they were chosen.
    """

    name: str
    datetime_format: str | None
    has_hour: bool
    has_indicator: bool
    fill: int
    year_mean: float
    year_inverse_scale: float
    days_mean: float
    days_inverse_scale: float
    parts: tuple[str, ...] = ()

    @property
    def encoded_parts(self) -> tuple[str, ...]:
        """Keys of `DATE_PARTS`, in the order of the encoded columns."""
        return self.parts or (*_FORMER, *(("hour",) if self.has_hour else ()))

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the encoded columns, the indicator left out."""
        return tuple(f"{self.name}: {column}" for part in self.encoded_parts for column in DATE_PARTS[part])

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``dataclasses.asdict`` gave, lists for tuples.

        Raises:
            DataError: A field is unknown or missing.
        """
        values = checked_fields(cls, record)
        return cls(**values | {"parts": tuple(values.get("parts", ()))})


def fit_datetime(table: pa.Table, feature: FeatureSpec) -> DatetimeEncoding:
    """Learn how to encode a column of dates.

    Args:
        table: The training rows.
        feature: The column.
    """
    parts = split_dates(plain_array(table, feature.name), datetime_format=feature.datetime_format)
    valid = parts.valid
    days = parts.days[valid] if valid.any() else np.zeros(1, np.int64)
    years = parts.year[valid] if valid.any() else np.full(1, 1970)
    seconds_of_day = (parts.seconds - parts.days * 86_400)[valid]
    year_mean, year_inverse_scale = _date_standard(years)
    days_mean, days_inverse_scale = _date_standard(days)
    return DatetimeEncoding(
        name=feature.name,
        datetime_format=feature.datetime_format,
        has_hour=np.unique(seconds_of_day).size > 1,
        has_indicator=not bool(valid.all()),
        fill=int(np.median(days)),
        year_mean=year_mean,
        year_inverse_scale=year_inverse_scale,
        days_mean=days_mean,
        days_inverse_scale=days_inverse_scale,
        parts=_chosen(parts),
    )


def _chosen(parts: DateParts) -> tuple[str, ...]:
    """Returns the parts worth a column: what never varies teaches nothing, and answers at random where it does."""

    def varies(values: NDArray[Any]) -> bool:
        return np.unique(values[parts.valid]).size > 1

    chosen = ["year", "days"]
    if varies(parts.month):
        chosen += ["month", "year day"]
    if varies(parts.day):
        chosen += ["day", "month end"]
    if varies(parts.weekday):
        chosen += ["weekday", "weekend"]
    # Minutes that vary make the hour a step function of the time of day.
    if varies(parts.hour):
        chosen.append("minute" if varies(parts.minute) else "hour")
    return tuple(part for part in DATE_PARTS if part in chosen)


def _date_standard(values: NDArray[np.int64]) -> tuple[float, float]:
    deviation = float(values.std())
    return _float32(values.mean()), _float32(1.0 / deviation if deviation > 0 else 1.0)


def _float32(value: float | np.floating[Any]) -> float:
    return float(np.float32(value))
