"""Numbers as people read them in tables."""

from __future__ import annotations

import math


def number_text(value: object) -> str:
    """Four significant digits for a float, thousands set apart, `-` for what is missing; text stays text.

    Example: 0.87654 is `0.8765`, 12345.6 is `12,346`, 2e-05 is `2e-05`, 1234567 is `1,234,567`.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if 1e3 <= abs(value) < 1e12:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.1f}"
    return f"{value:.4g}"


def trials_text(number: int) -> str:
    """So many trials: `1 trial`, `1,234 trials`."""
    return "1 trial" if number == 1 else f"{number:,} trials"


def seconds_text(seconds: float) -> str:
    """A duration: `0.4 s`, `59 s`, `2 min 5 s`, `3 h 20 min`."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
