"""The best-so-far curve of a search as an inline SVG picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from app.evaluation.metrics import Direction, Metric
from app.evaluation.number_text import number_text, trials_text

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 12, 16, 40
_NUM_TICKS = 4
_MAX_POINTS = 2_000  # trials drawn as points; the page stays small for a search of any length


def progress_chart(values: Sequence[float], *, metric: Metric) -> str:
    """A dot a trial and the best value so far as a line; a sentence where there is nothing to draw.

    The vertical axis runs over the best values and the middle of the rest: a few hopeless trials would otherwise
    flatten the curve; their dots are put on the edge.

    Args:
        values: best validation value of each trial in the order they ended; NaN for one without.
        metric: whose values they are.
    """
    numbers = np.array(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return "<p>No trial has a value.</p>"
    best = best_so_far(numbers, metric=metric)
    low, high = _vertical_range(numbers[finite], best[np.isfinite(best)])
    x = _LEFT + (np.arange(len(numbers)) + 0.5) / len(numbers) * (_WIDTH - _LEFT - _RIGHT)
    points = np.flatnonzero(finite)
    points = points[np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).round().astype(int)]
    heights = _height(np.clip(numbers[points], low, high), low, high)
    dots = "".join(
        f'<circle class="trial" cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
        for a, b in zip(x[points], heights, strict=True)
    )
    title = f"best {metric.name} after {trials_text(len(numbers))}: {number_text(float(best[-1]))}"
    # Not "trial 1": trials are numbered from 0, and do not end in that order.
    last = f"after {trials_text(len(numbers))}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{title}</title>'
        f'{_grid(low, high, limit=_limit(metric))}{dots}<path class="best" d="{_steps(x, best, low, high)}"/>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 10}" text-anchor="end">{last}</text></svg>'
        f'<p class="note">Best {metric.name} so far (line) and of each trial (dots), in the order they ended.</p>'
    )


def best_so_far(values: np.ndarray, *, metric: Metric) -> np.ndarray:
    """Running best `(num_trials,)`; NaN before the first finite value."""
    worst = -math.inf if metric.direction is Direction.MAXIMIZE else math.inf
    filled = np.where(np.isfinite(values), values, worst)
    accumulate = np.maximum.accumulate if metric.direction is Direction.MAXIMIZE else np.minimum.accumulate
    best: np.ndarray = accumulate(filled)
    return np.where(np.isfinite(best), best, np.nan)


def _vertical_range(values: np.ndarray, best: np.ndarray) -> tuple[float, float]:
    middle = np.percentile(values, [15, 85])
    low, high = float(min(best.min(), middle[0])), float(max(best.max(), middle[1]))
    margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _height(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return _HEIGHT - _BOTTOM - (values - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _steps(x: np.ndarray, best: np.ndarray, low: float, high: float) -> str:
    """Only the trials that improved bend the line."""
    known = np.flatnonzero(np.isfinite(best))
    y = _height(best, low, high)
    path = [f"M{x[known[0]]:.1f} {y[known[0]]:.1f}"]
    for index in known[1:]:
        if best[index] != best[index - 1]:
            path.append(f"H{x[index]:.1f}V{y[index]:.1f}")
    return "".join(path) + f"H{_WIDTH - _RIGHT}"


def _limit(metric: Metric) -> float:
    """What no value exceeds: 1 for what classification maximises, and for r2."""
    return 1.0 if metric.direction is Direction.MAXIMIZE else math.inf


def _grid(low: float, high: float, *, limit: float) -> str:
    lines = []
    for tick in (tick for tick in ticks(low, high) if tick <= limit):
        y = float(_height(np.array(tick), low, high))
        lines.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.12g}</text>'
        )
    return "".join(lines)


def ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside the range, about four."""
    rough = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    # Rounded: 3 * 0.1 must not be labelled 0.30000000000000004.
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]
