"""Latency over rate as an SVG picture; both axes are logarithmic."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from tf_serving.errors import ExportError
from tf_serving.load_test.bench import BenchReport, chart_points

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 90, 50, 50
LABEL_PIXELS = 14
LINES = {50.0: ("p50", "#4477aa"), 95.0: ("p95", "#cc6677"), 99.0: ("p99", "#999933"), 99.9: ("p99.9", "#aa4499")}


def check_chart(path: Path) -> None:
    """Check, before the load, that a picture can be written.

    Args:
        path: File to write, ending in .svg.

    Raises:
        ExportError: The name does not end in .svg, or there is no such folder.
    """
    if path.suffix != ".svg":
        raise ExportError(f"Expected a name that ends in .svg for the picture, received {str(path)!r}.")
    if not path.parent.is_dir():
        raise ExportError(f"Cannot write {path}: the folder {path.parent} does not exist.")


def write_chart(report: BenchReport, path: Path) -> None:
    """Write the picture.

    Args:
        report: The runs.
        path: File to write, ending in .svg.

    Raises:
        ExportError: The place cannot be written.
    """
    check_chart(path)
    try:
        path.write_text(draw_chart(report), encoding="utf-8")
    except OSError as error:
        raise ExportError(f"Cannot write {path}: {error.strerror}.") from error


def draw_chart(report: BenchReport) -> str:
    """Return the picture as SVG.

    Args:
        report: The runs; at least one of them has answers.
    """
    points = {percentile: chart_points(report.results, percentile) for percentile in LINES}
    every = [point for line in points.values() for point in line]
    rates, times = [rate for rate, _ in every], [time for _, time in every]
    across = _Axis(min(rates), max(rates), LEFT, WIDTH - RIGHT)
    up = _Axis(min([*times, report.settings.p95_ms]), max([*times, report.settings.p95_ms]), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(report.target)}: latency in ms by requests per second</text>',
        f'<text x="{LEFT}" y="40" fill="#555">{escape(report.notes()[0])}</text>',
    ]
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:,.4g}</text>')
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,.4g}</text>')
    limit = up.place(report.settings.p95_ms)
    parts.append(f'<path d="M{LEFT} {limit:.1f}H{WIDTH - RIGHT}" stroke="#cc6677" stroke-dasharray="6 4"/>')
    ends: list[tuple[float, float, str, str]] = []
    for percentile, (name, colour) in LINES.items():
        places = [(across.place(rate), up.place(time)) for rate, time in points[percentile]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        ends.append((places[-1][1], places[-1][0], name, colour))
    lowest = -LABEL_PIXELS * 1.0
    for y, x, name, colour in sorted(ends):
        lowest = max(y, lowest + LABEL_PIXELS)  # lines that end together would have their names on one another
        parts.append(f'<text x="{x + 8:.1f}" y="{lowest + 4:.1f}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


class _Axis:
    """From a value to its place, by logarithms."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        low, high = max(low, 1e-6), max(high, 1e-6)
        if high < 1.5 * low:
            low, high = low / 1.5, high * 1.5
        self._low, self._high, self._first, self._last = math.log10(low), math.log10(high), first, last

    def place(self, value: float) -> float:
        share = (math.log10(max(value, 1e-6)) - self._low) / (self._high - self._low)
        return self._first + share * (self._last - self._first)

    def ticks(self) -> list[float]:
        steps = (1, 2, 5) if self._high - self._low < 3 else (1,)
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        values = [step * 10.0**power for power in powers for step in steps]
        return [value for value in values if self._low - 1e-9 <= math.log10(value) <= self._high + 1e-9]
