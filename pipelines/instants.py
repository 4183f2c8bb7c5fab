"""When each row happened: a column of dates as instants in UTC, or of numbers as they are.

Dates as features are wall-clock times (``pipelines.datetime_text``); where rows are put in order, or compared with
other rows, a zone that stands behind a date counts.
"""

from __future__ import annotations

import time
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import TIMESTAMP, numbers_of, plain_array, require_column
from pipelines.datetime_text import recognise_format, timestamps_of
from pipelines.errors import DataError

MICROSECONDS = 1_000_000
SKEW_SECONDS = 86_400.0
"""How far ahead of this machine's clock an event may lie before its clock is called wrong."""

Instants: TypeAlias = NDArray[np.int64] | NDArray[np.float64]
"""int64 microseconds since 1970 in UTC, or float64 numbers in a unit of their own."""

_FRACTION = r":\d{2}:\d{2}[.,](?P<fraction>\d{1,6})\d*\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?$"
_ZONE = r":\d{2}(?:[.,]\d+)?\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})$"


def instants(
    table: pa.Table, name: str, *, role: str = "time column", datetime_format: str | None = None
) -> Instants:
    """Return when each row happened: int64 microseconds since 1970 (UTC), or numbers in their own unit.

    Args:
        table: The rows.
        name: Name of the column.
        role: What the column is for, for messages.
        datetime_format: How its dates are written, a key of ``PATTERNS``; None recognises it.

    Raises:
        DataError: The column is absent, holds neither dates nor numbers, lacks a value, mixes dates with and without a
            zone, or holds an infinite number.
    """
    array = plain_array(table, require_column(table, name, role=role))
    times = array
    if array.type == pa.string():
        times = timestamps_of(array, datetime_format=datetime_format or recognise_format(array)[0])
    elif array.type not in (TIMESTAMP, pa.int64(), pa.float64()):
        raise DataError(f"Expected dates or numbers in the {role} {name!r}, received {array.type}.")
    if times.null_count:
        row = int(np.flatnonzero(times.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"Expected a date or number in every row of the {role} {name!r}, received "
            f"{array[row].as_py()!r} in row {row + 1} ({times.null_count:,} such rows); mend or drop them."
        )
    if times.type == TIMESTAMP:
        found = np.asarray(times.cast(pa.int64()).to_numpy(zero_copy_only=False))
        return found if array.type == TIMESTAMP else found + _fractions(array) - _zone_offsets(array, name, role=role)
    numbers = numbers_of(times)
    infinite = np.flatnonzero(np.isinf(numbers))
    if infinite.size:
        raise DataError(
            f"Expected finite numbers in the {role} {name!r}, received an infinite one in row {int(infinite[0]) + 1}; "
            "mend or drop it."
        )
    return numbers


def check_not_ahead(times: Instants, name: str, *, now: float | None = None) -> None:
    """Refuse events that lie in the future: the clock that wrote them was wrong, or the column is no time of an event.

    Args:
        times: What ``instants`` returned; numbers pass, as their unit is not known.
        name: Name of the column.
        now: The present, in seconds since 1970; None asks this machine.

    Raises:
        DataError: A time is more than a day ahead.
    """
    if times.dtype != np.int64:
        return
    limit = int(((time.time() if now is None else now) + SKEW_SECONDS) * MICROSECONDS)
    ahead = np.flatnonzero(times > limit)
    if ahead.size:
        raise DataError(
            f"Expected times in {name!r} up to now, but {ahead.size:,} lie more than a day ahead of this machine's "
            f"clock, the first {time_text(times[ahead[0]])} in row {int(ahead[0]) + 1}; the clock that wrote them was "
            f"wrong, or this one is. Mend or drop these rows."
        )


def time_text(value: np.int64 | np.float64) -> str:
    """Return an instant as people read it: ISO 8601 in UTC, or the number.

    Args:
        value: One of what ``instants`` returned.
    """
    if isinstance(value, np.int64):
        moment = np.datetime64(int(value), "us")
        return str(moment if value % MICROSECONDS else moment.astype("datetime64[s]"))
    return f"{float(value):g}"


def _fractions(text: pa.Array) -> NDArray[np.int64]:
    """Return the microseconds that stand behind the whole seconds of each date; as a feature a date has none."""
    digits = pc.struct_field(pc.extract_regex(text, _FRACTION), "fraction")
    if digits.null_count == len(digits):
        return np.zeros(len(text), np.int64)
    return np.asarray(pc.fill_null(pc.utf8_rpad(digits, 6, "0").cast(pa.int64()), 0).to_numpy(zero_copy_only=False))


def _zone_offsets(text: pa.Array, name: str, *, role: str) -> NDArray[np.int64]:
    """Return how far each date's zone is ahead of UTC, in microseconds; 0 for dates without one."""
    zones = pc.struct_field(pc.extract_regex(text, _ZONE), "zone")
    has_zone = np.asarray(zones.is_valid().to_numpy(zero_copy_only=False), bool)
    if not has_zone.any():
        return np.zeros(len(text), np.int64)
    if not has_zone.all():
        row = int(np.flatnonzero(~has_zone)[0])
        raise DataError(
            f"Expected all dates in the {role} {name!r} with a zone or none, but {int(has_zone.sum()):,} of "
            f"{len(text):,} have one and {text[row].as_py()!r} in row {row + 1} has none; their order is not known. "
            "Write all of them in UTC."
        )
    encoded = zones.dictionary_encode()
    offsets = np.array([_offset(zone) for zone in encoded.dictionary.to_pylist()], np.int64)
    return np.asarray(offsets[np.asarray(encoded.indices)], np.int64)


def _offset(zone: str) -> int:
    if zone in ("Z", "UTC", "GMT"):
        return 0
    digits = zone[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return (-minutes if zone[0] == "-" else minutes) * 60 * MICROSECONDS
