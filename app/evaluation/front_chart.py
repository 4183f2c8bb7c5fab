"""The objective against another measure of the trials as an inline SVG picture, the best compromises marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from app.evaluation.metrics import Metric
from app.evaluation.number_text import trials_text
from app.evaluation.progress_chart import ticks

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 16, 16, 48
_WIDE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One trial.

    Attributes:
        trial: Its number.
        measure: What was measured of it.
        value: Its objective.
        is_best: Whether no other trial is better in everything that is wanted.
    """

    trial: int
    measure: float
    value: float
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPicture:
    """The trials in one measure.

    Attributes:
        measure: What people call it, with its unit.
        points: The trials.
    """

    measure: str
    points: Sequence[FrontPoint]


def front_chart(picture: FrontPicture, *, metric: Metric) -> str:
    """A dot a trial, the best compromises filled and numbered; a sentence where there is nothing to draw.

    The horizontal axis is logarithmic where the measure spans more than a factor of 20.

    Args:
        picture: the trials.
        metric: the objective.
    """
    points = [point for point in picture.points if math.isfinite(point.measure) and math.isfinite(point.value)]
    if not points:
        return f"<p>No trial has a value and a {escape(picture.measure)}.</p>"
    measures = np.array([point.measure for point in points])
    values = np.array([point.value for point in points])
    is_log = bool(measures.min() > 0 and measures.max() > _WIDE * measures.min())
    scaled = np.log10(measures) if is_log else measures
    x_range, y_range = _range(scaled), _range(values)
    lines = [_horizontal(y_range), _vertical(x_range, is_log=is_log)]
    # The best ones last, on top of the others.
    for point, at in sorted(zip(points, scaled, strict=True), key=lambda pair: pair[0].is_best):
        x, y = _x(float(at), x_range), _y(point.value, y_range)
        if point.is_best:
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" style="fill: var(--accent)"/>')
            lines.append(f'<text x="{x + 8:.1f}" y="{y - 6:.1f}">{point.trial}</text>')
        else:
            lines.append(f'<circle class="trial" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    label = f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{escape(picture.measure)}</text>'
    title = f"{metric.name} against {escape(picture.measure)} of {trials_text(len(points))}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{title}</title>{"".join(lines)}{label}</svg>'
        f'<p class="note">{metric.name} of each trial against its {escape(picture.measure)}; the numbered trials are '
        "the best compromises.</p>"
    )


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _x(value: float, limits: tuple[float, float]) -> float:
    return _LEFT + (value - limits[0]) / (limits[1] - limits[0]) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, limits: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (value - limits[0]) / (limits[1] - limits[0]) * (_HEIGHT - _TOP - _BOTTOM)


def _horizontal(limits: tuple[float, float]) -> str:
    lines = []
    for tick in ticks(*limits):
        y = _y(tick, limits)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.12g}</text>')
    return "".join(lines)


def _vertical(limits: tuple[float, float], *, is_log: bool) -> str:
    lines = []
    for tick in ticks(*limits):
        x = _x(tick, limits)
        text = f"{10**tick:.3g}" if is_log else f"{tick:.12g}"
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        lines.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{text}</text>')
    return "".join(lines)
