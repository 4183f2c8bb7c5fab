"""Durations and sizes as people write them."""

from __future__ import annotations

import re

from app.errors import ConfigError

TIME_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_PATTERN = re.compile(r"(?:\d+(?:\.\d+)?|(?:\d+(?:\.\d+)?\s*[smhd]\s*)+)", re.ASCII)
BYTE_UNITS = {"": 1, "b": 1} | {
    f"{unit}{suffix}": base**power
    for power, unit in enumerate("kmgt", start=1)
    for suffix, base in (("", 1000), ("b", 1000), ("ib", 1024))
}
BYTES_PATTERN = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]i?b|[kmgt]|b|)", re.ASCII | re.IGNORECASE)
MAX_SECONDS = 3650 * 86400.0


def parse_duration(text: str) -> float:
    """Returns the seconds that ``90``, ``90s``, ``10m``, ``1h30m`` or ``2d`` stand for.

    A number without a unit is seconds, and stands alone: ``1h30`` could mean minutes as well.

    Raises:
        ConfigError: The text is no duration, not above zero, or above ten years.
    """
    text = text.strip()
    if not DURATION_PATTERN.fullmatch(text):
        raise ConfigError(f"time is {text!r}: expected a duration such as 90s, 10m or 1h30m")
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    seconds = sum(float(number) * TIME_UNITS[unit or "s"] for number, unit in parts)
    if seconds <= 0:
        raise ConfigError(f"time is {text!r}: expected more than zero, such as 90s, 10m or 1h30m")
    if seconds > MAX_SECONDS:
        raise ConfigError(f"time is {text!r}: expected at most ten years, such as 90s, 10m or 1h30m")
    return seconds


def parse_milliseconds(text: str) -> float:
    """Returns the milliseconds that ``20ms``, ``0.5s`` or ``20`` stand for.

    Raises:
        ConfigError: The text is no such time above zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)?", text.strip())
    milliseconds = float(found[1]) * (1000.0 if found[2] == "s" else 1.0) if found else 0.0
    if milliseconds <= 0:
        raise ConfigError(f"p95 is {text!r}: expected a time such as 20ms or 0.5s")
    return milliseconds


def parse_bytes(text: str, *, option: str = "memory") -> int:
    """Returns the bytes that ``4GB``, ``512MiB`` or ``1e9`` stand for.

    Args:
        text: What the user gave.
        option: What it is, for the message.

    Raises:
        ConfigError: The text is no size above zero.
    """
    found = BYTES_PATTERN.fullmatch(text.strip())
    size = int(float(found[1]) * BYTE_UNITS[found[2].lower()]) if found else 0
    if size <= 0:
        raise ConfigError(f"{option} is {text!r}: expected a size such as 4GB or 512MB")
    return size
