"""Numbers brought to the order of one, learned on the training rows (numpy, no TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.special
from numpy.typing import NDArray

from pipelines.raw_columns import raw_column
from pipelines.schema import FeatureKind, FeatureSpec, checked_fields

# Numbers are clipped to this first, so that differences of two of them stay finite in float32.
MAX_MAGNITUDE = 1e30
# Standardised values are clipped to this many standard deviations.
MAX_DEVIATIONS = 10.0
MAX_KNOTS = 255
# Beyond either, a few rows would decide the scale of all others.
_SKEWED, _OUTLYING = 2.0, 8.0
_MIN_DISTINCT_FOR_QUANTILES = 10


class Scaling(StrEnum):
    """How a number is brought to the order of one."""

    STANDARD = "standard"
    QUANTILE = "quantile"
    LOG = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericEncoding:
    """A numeric or boolean column.

    Attributes:
        name: Name of the column.
        scaling: STANDARD: ``(x - mean) * inverse_scale`` clipped to [-10, 10]. QUANTILE and LOG: the line through
            ``(knots, heights)``, constant outside.
        fill: Median of the training rows, which stands in for a missing value.
        has_indicator: A further column says whether the value was missing.
        mean: Mean of the training rows.
        inverse_scale: One over their standard deviation.
        knots: Strictly increasing: quantiles of the training rows, or points for LOG; empty for STANDARD.
        heights: The quantiles of a standard normal variable at the knots, or the standardised logarithms; empty for
            STANDARD.
        reason: Why this scaling.
    """

    name: str
    scaling: Scaling
    fill: float
    has_indicator: bool
    mean: float
    inverse_scale: float
    knots: tuple[float, ...] = ()
    heights: tuple[float, ...] = ()
    reason: str


def numeric_from_json(record: Mapping[str, Any]) -> NumericEncoding:
    """Rebuild what ``dataclasses.asdict`` wrote as JSON."""
    values = checked_fields(NumericEncoding, record)
    values |= {"knots": tuple(values["knots"]), "heights": tuple(values["heights"])}
    return NumericEncoding(**values | {"scaling": Scaling(values["scaling"])})


def fit_numeric(table: pa.Table, feature: FeatureSpec) -> NumericEncoding:
    """Learn how to scale a numeric or boolean column.

    Args:
        table: The training rows.
        feature: The column.
    """
    raw = np.asarray(raw_column(table, feature), dtype=np.float64)
    missing = np.isnan(raw)
    values = np.clip(raw[~missing], -MAX_MAGNITUDE, MAX_MAGNITUDE)
    if values.size == 0:
        values = np.zeros(1)
    mean, inverse_scale = _standard(values)
    scaling, reason = Scaling.STANDARD, "true or false, centred"
    knots: tuple[float, ...] = ()
    heights: tuple[float, ...] = ()
    fill = float(np.median(values))
    if feature.kind is FeatureKind.BOOLEAN:
        # A boolean is only centred, and a missing one stands in the middle between the two.
        mean, inverse_scale, fill = _float32(values.mean()), 1.0, float(values.mean())
    else:
        scaling, reason = _choose_scaling(values)
    if scaling is Scaling.LOG:
        knots, heights = _log_map(values)
    if scaling is Scaling.QUANTILE:
        knots, heights = _quantile_map(values)
        if len(knots) < 2:
            scaling, knots, heights = Scaling.STANDARD, (), ()
            reason = f"standardised: nearly all rows hold one value, {np.median(values):g}"
    return NumericEncoding(
        name=feature.name,
        scaling=scaling,
        fill=_float32(fill),
        has_indicator=bool(missing.any()),
        mean=mean,
        inverse_scale=inverse_scale,
        knots=knots,
        heights=heights,
        reason=reason,
    )


def _standard(values: NDArray[np.float64]) -> tuple[float, float]:
    mean, deviation = float(values.mean()), float(values.std())
    # A deviation that float32 cannot tell from zero is the noise of a constant, not a scale.
    constant = deviation <= 1e-6 * abs(mean) or deviation < 1e-30
    return _float32(mean), _float32(1.0 if constant else 1.0 / deviation)


def _choose_scaling(values: NDArray[np.float64]) -> tuple[Scaling, str]:
    num_distinct = np.unique(values.astype(np.float32)).size
    if num_distinct < _MIN_DISTINCT_FOR_QUANTILES:
        return Scaling.STANDARD, f"standardised: {num_distinct} distinct values"
    scaled = (values - values.mean()) / max(float(values.std()), 1e-300)
    skewness, farthest = float(np.mean(scaled**3)), float(np.abs(scaled).max())
    facts = f"skewness {skewness:.1f}, farthest value {farthest:.1f} standard deviations from the mean"
    if abs(skewness) > _SKEWED or farthest > _OUTLYING:
        logged = np.log1p(values / _log_unit(values)) if values.min() >= 0 else values
        if values.min() >= 0 and _is_even(logged):
            kind = "counts" if is_count(values) else "sizes"
            return Scaling.LOG, f"standardised after log(1 + x / {_log_unit(values):.4g}), as {kind} are: {facts}"
        return Scaling.QUANTILE, f"mapped to a normal by quantiles: {facts}"
    return Scaling.STANDARD, f"standardised: {facts}"


def _is_even(values: NDArray[np.float64]) -> bool:
    """Whether values are spread about evenly around their mean."""
    scaled = (values - values.mean()) / max(float(values.std()), 1e-300)
    return abs(float(np.mean(scaled**3))) <= _SKEWED / 2 and float(np.abs(scaled).max()) <= _OUTLYING / 2


def is_count(values: NDArray[np.float64]) -> bool:
    """Return whether values are whole numbers from 0.

    Args:
        values: Numbers without a missing one.
    """
    return bool(values.min(initial=0) >= 0 and (values == np.rint(values)).all())


def _log_unit(values: NDArray[np.float64]) -> float:
    """Return where the logarithm begins to bend: 1 for counts, the first tenth of what is above 0 for other sizes."""
    return 1.0 if is_count(values) else float(np.quantile(values[values > 0], 0.1))


def _log_map(values: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return knots and heights of the standardised log(1 + x / unit): exact at the knots, to ten times the largest.

    A line through points rather than a logarithm, which does not have the same bits in every batch.
    """
    unit = _log_unit(values)
    logged = np.log1p(values / unit)
    mean, inverse_scale = _standard(logged)
    ends = np.linspace(0.0, float(np.log1p(min(10.0 * values.max(), MAX_MAGNITUDE) / unit)), MAX_KNOTS)
    points = unit * np.expm1(ends)
    # The first counts are exact.
    points = np.unique(np.rint(points) if is_count(values) else points).astype(np.float32).astype(np.float64)
    knots = points[np.concatenate([[True], np.diff(points) > 1e-30])]
    heights = np.clip((np.log1p(knots / unit) - mean) * inverse_scale, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    return tuple(map(float, knots)), tuple(map(_float32, heights))


def _quantile_map(values: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the knots and heights of a piecewise linear map of the values to a standard normal variable."""
    num = min(MAX_KNOTS, values.size)
    # Plotting positions (i + 1/2) / n: the ends keep a finite height.
    shares = (np.arange(num) + 0.5) / num
    quantiles = np.quantile(values, shares).astype(np.float32).astype(np.float64)
    # A value that holds many rows repeats; it becomes one knot at the middle of its share.
    knots, inverse, counts = np.unique(quantiles, return_inverse=True, return_counts=True)
    middles = np.bincount(inverse, weights=shares) / counts
    # Neighbours closer than float32 can divide by would give a vertical line.
    apart = np.concatenate([[True], np.diff(knots) > 1e-30])
    heights = scipy.special.ndtri(middles)
    return tuple(map(float, knots[apart])), tuple(map(_float32, heights[apart]))


def _float32(value: float | np.floating[Any]) -> float:
    return float(np.float32(value))
