"""What the encoder needs to know, learned on the training rows only (R5); numpy, no TensorFlow.

Every number is rounded to float32 here, so that the state in JSON and the constants in the exported graph are the
same, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import pyarrow as pa
import scipy.special
from numpy.typing import NDArray

from pipelines.column_values import plain_array
from pipelines.datetime_text import split_dates
from pipelines.errors import DataError
from pipelines.raw_columns import raw_column
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, checked_fields

# Numbers are clipped to this first, so that differences of two of them stay finite in float32.
MAX_MAGNITUDE = 1e30
# Standardised values are clipped to this many standard deviations.
MAX_DEVIATIONS = 10.0
MAX_KNOTS = 255
MAX_VOCABULARY = 1_000
NUM_RESERVED_IDS = 2  # 0 = missing, 1 = other
OTHER_ID = 1

# Beyond either, a few rows would decide the scale of all others.
_SKEWED, _OUTLYING = 2.0, 8.0
_MIN_DISTINCT_FOR_QUANTILES = 10


class Scaling(StrEnum):
    """How a number is brought to the order of one."""

    STANDARD = "standard"
    QUANTILE = "quantile"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericEncoding:
    """A numeric or boolean column.

    Attributes:
        name: Name of the column.
        scaling: STANDARD: ``(x - mean) * inverse_scale`` clipped to [-10, 10]. QUANTILE: the line through ``(knots,
            heights)``, constant outside.
        fill: Median of the training rows, which stands in for a missing value.
        has_indicator: A further column says whether the value was missing.
        mean: Mean of the training rows.
        inverse_scale: One over their standard deviation.
        knots: Strictly increasing quantiles of the training rows; empty for STANDARD.
        heights: The quantiles of a standard normal variable at the knots; empty for STANDARD.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalEncoding:
    """A categorical column: id 0 = missing, 1 = other (rare in training or unseen), 2.. = the vocabulary.

    Attributes:
        name: Name of the column.
        raw_type: Whether the raw values are text or whole numbers.
        vocabulary: Categories by descending frequency in the training rows, then by text.
        num_rare: How many categories of the training rows went to "other".
        reason: How the vocabulary was cut.
    """

    name: str
    raw_type: RawType
    vocabulary: tuple[str, ...]
    num_rare: int
    reason: str

    @property
    def cardinality(self) -> int:
        """Number of ids, the two reserved ones included."""
        return len(self.vocabulary) + NUM_RESERVED_IDS


@dataclass(frozen=True, slots=True, kw_only=True)
class DatetimeEncoding:
    """A column of dates: standardised year and days, cycles of month, weekday and hour, and the weekend.

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

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the encoded columns, the indicator left out."""
        parts = ["year", "days", "month sin", "month cos", "weekday sin", "weekday cos", "weekend"]
        return tuple(f"{self.name}: {part}" for part in parts + ["hour sin", "hour cos"] * self.has_hour)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingState:
    """All that was learned from the training rows.

    Attributes:
        numeric: Numeric and boolean columns.
        categorical: Categorical columns.
        datetimes: Columns of dates.
        num_rows: Number of training rows.
        rows_sha256: SHA-256 of the mask of training rows; proof of which rows were seen.
    """

    numeric: tuple[NumericEncoding, ...]
    categorical: tuple[CategoricalEncoding, ...]
    datetimes: tuple[DatetimeEncoding, ...]
    num_rows: int
    rows_sha256: str

    @property
    def raw_names(self) -> tuple[str, ...]:
        """Names of the raw columns that the encoder reads."""
        names = [column.name for column in self.numeric] + [column.name for column in self.categorical]
        return tuple(names + [column.name for column in self.datetimes])

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """Names of the columns of the encoded ``numeric`` matrix: values, dates, then indicators."""
        parts = [name for date in self.datetimes for name in date.part_names]
        missing = [f"{column.name}: missing" for column in self.numeric if column.has_indicator]
        missing += [f"{column.name}: missing" for column in self.datetimes if column.has_indicator]
        return tuple([column.name for column in self.numeric] + parts + missing)

    @property
    def categorical_names(self) -> tuple[str, ...]:
        """Names of the columns of the encoded ``categorical`` matrix."""
        return tuple(column.name for column in self.categorical)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of ids of each categorical column, the two reserved ones included."""
        return tuple(column.cardinality for column in self.categorical)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown or missing.
        """
        values = checked_fields(cls, record)
        values["numeric"] = tuple(_numeric_from_json(column) for column in values["numeric"])
        values["categorical"] = tuple(_categorical_from_json(column) for column in values["categorical"])
        values["datetimes"] = tuple(
            DatetimeEncoding(**checked_fields(DatetimeEncoding, column)) for column in values["datetimes"]
        )
        return cls(**values)


def _numeric_from_json(record: Mapping[str, Any]) -> NumericEncoding:
    values = checked_fields(NumericEncoding, record)
    values |= {"knots": tuple(values["knots"]), "heights": tuple(values["heights"])}
    return NumericEncoding(**values | {"scaling": Scaling(values["scaling"])})


def _categorical_from_json(record: Mapping[str, Any]) -> CategoricalEncoding:
    values = checked_fields(CategoricalEncoding, record)
    values |= {"vocabulary": tuple(values["vocabulary"]), "raw_type": RawType(values["raw_type"])}
    return CategoricalEncoding(**values)


def fit_preprocessing(table: pa.Table, schema: DatasetSchema, *, rows: NDArray[np.bool_]) -> PreprocessingState:
    """Learn how to encode the used features of a schema.

    Args:
        table: All rows.
        schema: Which columns are used, and how.
        rows: Mask of shape ``(num_rows,)``: the training rows. No other row is read.

    Raises:
        DataError: There is no training row, or a column does not hold what the schema says.
    """
    rows = np.asarray(rows, dtype=bool)
    if not rows.any():
        raise DataError("Expected at least one training row to learn the preprocessing from, received none.")
    train = table.select([feature.name for feature in schema.used_features]).filter(pa.array(rows))
    numeric, categorical, datetimes = [], [], []
    for feature in schema.used_features:
        if feature.kind in (FeatureKind.NUMERIC, FeatureKind.BOOLEAN):
            numeric.append(_fit_numeric(train, feature))
        elif feature.kind is FeatureKind.CATEGORICAL:
            categorical.append(_fit_categorical(train, feature))
        elif feature.kind is FeatureKind.DATETIME:
            datetimes.append(_fit_datetime(train, feature))
        else:
            raise DataError(f"Column {feature.name!r} is {feature.kind}, which tables cannot encode; drop it.")
    return PreprocessingState(
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        datetimes=tuple(datetimes),
        num_rows=int(rows.sum()),
        rows_sha256=hashlib.sha256(np.packbits(rows).tobytes()).hexdigest(),
    )


def _fit_numeric(table: pa.Table, feature: FeatureSpec) -> NumericEncoding:
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
        return Scaling.QUANTILE, f"mapped to a normal by quantiles: {facts}"
    return Scaling.STANDARD, f"standardised: {facts}"


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


def _fit_categorical(table: pa.Table, feature: FeatureSpec) -> CategoricalEncoding:
    raw = raw_column(table, feature)
    if feature.raw_type is RawType.FLOAT32:
        numbers = raw[np.isfinite(raw.astype(np.float64))].astype(np.float64)
        whole = numbers[numbers == np.rint(numbers)].astype(np.int64)
        values, counts = np.unique(whole, return_counts=True)
        labels = [str(value) for value in values]
    else:
        stripped = np.array([value.strip() for value in raw if value.strip()], dtype=object)
        values, counts = np.unique(stripped, return_counts=True) if stripped.size else (stripped, np.zeros(0, int))
        labels = [value.decode("utf-8") for value in values]
    num_rows = int(counts.sum())
    # One row teaches nothing about a category; on large tables neither do a few.
    min_count = max(2, min(10, num_rows // 1_000))
    order = sorted(range(len(labels)), key=lambda index: (-counts[index], labels[index]))
    vocabulary = tuple(labels[index] for index in order if counts[index] >= min_count)[:MAX_VOCABULARY]
    return CategoricalEncoding(
        name=feature.name,
        raw_type=feature.raw_type,
        vocabulary=vocabulary,
        num_rare=len(labels) - len(vocabulary),
        reason=f"{len(vocabulary)} of {len(labels)} categories kept: at least {min_count} rows each, "
        f"at most {MAX_VOCABULARY:,}",
    )


def _fit_datetime(table: pa.Table, feature: FeatureSpec) -> DatetimeEncoding:
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
    )


def _date_standard(values: NDArray[np.int64]) -> tuple[float, float]:
    deviation = float(values.std())
    return _float32(values.mean()), _float32(1.0 / deviation if deviation > 0 else 1.0)


def _float32(value: float | np.floating[Any]) -> float:
    return float(np.float32(value))
