"""Dates taken apart in graph operations, so that they are read the same way in training and in the SavedModel (R4).

Sines and cosines, whose vectorised and scalar kernels differ in the last bit, are tabulated.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.date_encoding import DatetimeEncoding
from pipelines.datetime_text import ISO_8601, MAX_YEAR, PARTS, PATTERNS, days_since_epoch
from pipelines.numeric_encoding import MAX_DEVIATIONS

# TensorFlow publishes no types; this is the edge at which its tensors are Any.
Tensor = Any


class DateEncoder:
    """Reads the text of one column of dates and returns its parts."""

    def __init__(self, column: DatetimeEncoding) -> None:
        self._column = column
        own = [PATTERNS[column.datetime_format]] if column.datetime_format not in (None, ISO_8601) else []
        self._patterns = [*own, PATTERNS[ISO_8601]]
        fill = np.datetime64(column.fill, "D").item()
        self._fill = np.array([fill.year, fill.month, fill.day, 0, 0, 0], np.int32)
        # Days up to 1 January of a year and up to the first of a month, from the calendar that the state was
        # learned with; the second table has a row for common years and one for leap years.
        years = np.arange(MAX_YEAR + 1, dtype=np.int64)
        self._first_day = days_since_epoch(years, np.ones_like(years), np.ones_like(years)).astype(np.int32)
        months = np.arange(1, 13, dtype=np.int64)
        self._before_month = np.stack([_days_before(2001, months), _days_before(2000, months)]).astype(np.int32)
        self._in_month = np.diff(np.c_[self._before_month, [365, 366]], axis=1).astype(np.int32)
        self._circles = {
            "month": _circle(12),
            "day": _circle(31),
            "year day": _circle(366),
            "weekday": _circle(7),
            "hour": _circle(24),
            "minute": _circle(24 * 60),
        }

    def __call__(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parts of shape ``(batch, num_parts)`` and the mask of shape ``(batch,)`` of what is no date."""
        read, is_date = self._read(tf.strings.strip(text))
        read = tf.where(is_date[:, tf.newaxis], read, self._fill)
        year, month, day, hour, minute = (read[:, index] for index in range(5))
        year_day = self._pick(self._before_month, year, month) + day - 1
        days = tf.gather(self._first_day, year) + year_day
        weekday = tf.math.floormod(days + 3, 7)  # 1970-01-01 was a Thursday; 0 = Monday
        steps = {
            "month": month - 1,
            "day": day - 1,
            "year day": year_day,
            "weekday": weekday,
            "hour": hour,
            "minute": 60 * hour + minute,
        }
        column = self._column
        numbers = {
            "year": _clipped((tf.cast(year, tf.float32) - column.year_mean) * column.year_inverse_scale),
            "days": _clipped((tf.cast(days, tf.float32) - column.days_mean) * column.days_inverse_scale),
            "month end": tf.cast(day == self._pick(self._in_month, year, month), tf.float32),
            "weekend": tf.cast(weekday >= 5, tf.float32),
        }
        columns = [
            tf.gather(self._circles[part], steps[part]) if part in steps else numbers[part][:, tf.newaxis]
            for part in column.encoded_parts
        ]
        return tf.concat(columns, axis=1), tf.logical_not(is_date)

    def _read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return int32 parts of shape ``(batch, 6)`` and whether they are a date of the calendar."""
        matched = [tf.strings.regex_full_match(text, pattern) for pattern in self._patterns]
        canonical = tf.fill(tf.shape(text), "0 0 0 0 0 0")
        for pattern, hit in zip(reversed(self._patterns), reversed(matched), strict=True):
            groups = re.compile(pattern).groupindex
            # A leading zero stands in for the digits of an absent time.
            rewrite = " ".join(rf"0\{groups[part]}" for part in PARTS)
            canonical = tf.where(hit, tf.strings.regex_replace(text, pattern, rewrite), canonical)
        fields = tf.strings.split(canonical, " ").to_tensor(default_value="0", shape=[None, len(PARTS)])
        parts = tf.strings.to_number(fields, tf.int32)
        year, month, day = parts[:, 0], parts[:, 1], parts[:, 2]
        last_day = self._pick(self._in_month, year, tf.clip_by_value(month, 1, 12))
        limits = tf.stack([tf.fill(tf.shape(day), MAX_YEAR), tf.fill(tf.shape(day), 12), last_day], axis=1)
        in_calendar = tf.reduce_all((parts[:, :3] >= 1) & (parts[:, :3] <= limits), axis=1)
        in_day = tf.reduce_all(parts[:, 3:] <= np.array([23, 59, 59], np.int32), axis=1)
        return parts, tf.reduce_any(tf.stack(matched), axis=0) & in_calendar & in_day

    @staticmethod
    def _pick(table: NDArray[np.int32], year: Tensor, month: Tensor) -> Tensor:
        """Return the entry of a (common year, leap year) x month table."""
        is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        return tf.gather(table.reshape(-1), tf.cast(is_leap, tf.int32) * 12 + month - 1)


def _circle(period: int) -> NDArray[np.float32]:
    """Return sine and cosine of each step of a cycle, shape ``(period, 2)``."""
    angles = 2.0 * np.pi * np.arange(period) / period
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _days_before(year: int, months: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the days of a year before the first of each month."""
    first = np.ones_like(months)
    start = days_since_epoch(np.array([year]), np.array([1]), np.array([1]))
    return days_since_epoch(np.full_like(months, year), months, first) - start


def _clipped(values: Tensor) -> Tensor:
    return tf.clip_by_value(values, -MAX_DEVIATIONS, MAX_DEVIATIONS)
