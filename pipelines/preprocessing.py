"""What the encoder needs to know, learned on the training rows only (R5); numpy, no TensorFlow.

Every number is rounded to float32 here, so that the state in JSON and the constants in the exported graph are the
same, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.date_encoding import DatetimeEncoding, fit_datetime
from pipelines.errors import DataError
from pipelines.image_encoding import ImageEncoding, ImageRequest, fit_image
from pipelines.numeric_encoding import (
    MAX_DEVIATIONS,
    MAX_MAGNITUDE,
    NumericEncoding,
    Scaling,
    fit_numeric,
    numeric_from_json,
)
from pipelines.raw_columns import raw_column
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, checked_fields
from pipelines.target_encoding import HeldOutMeans, TargetEncoding, fit_target_encoding, targets_of
from pipelines.text_encoding import TextEncoding, fit_text

__all__ = [
    "MAX_DEVIATIONS",
    "MAX_MAGNITUDE",
    "MAX_VOCABULARY",
    "OTHER_ID",
    "CategoricalEncoding",
    "DatetimeEncoding",
    "NumericEncoding",
    "PreprocessingState",
    "Scaling",
    "TargetEncoding",
    "TextEncoding",
    "TrainingMeans",
    "fit_preprocessing",
]

MAX_VOCABULARY = 1_000
MAX_BUCKETS = 1_024
"""Buckets that the categories beyond the vocabulary are hashed to, at most."""

NUM_RESERVED_IDS = 2  # 0 = missing, 1 = other
OTHER_ID = 1

_LOOKED_UP = -1
"""Stands for the part of a row whose mean targets are those of all training rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalEncoding:
    """A categorical column: id 0 = missing, 1 = other (rare in training or unseen), 2.. = the vocabulary, then buckets.

    Where there are buckets, a category that is not in the vocabulary has the bucket of its hash instead of "other".

    Attributes:
        name: Name of the column.
        raw_type: Whether the raw values are text or whole numbers.
        vocabulary: Categories by descending frequency in the training rows, then by text.
        num_rare: How many categories of the training rows went to "other".
        reason: How the vocabulary was cut.
        num_buckets: Buckets of hashed categories; 0 for none.
        truths: Whether the categories are ``true`` and ``false``, which raw values may spell in any case.
    """

    name: str
    raw_type: RawType
    vocabulary: tuple[str, ...]
    num_rare: int
    reason: str
    num_buckets: int = 0
    truths: bool = False

    @property
    def cardinality(self) -> int:
        """Number of ids, the two reserved ones and the buckets included."""
        return len(self.vocabulary) + NUM_RESERVED_IDS + self.num_buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingState:
    """All that was learned from the training rows.

    Attributes:
        numeric: Numeric and boolean columns.
        categorical: Categorical columns.
        datetimes: Columns of dates.
        num_rows: Number of training rows.
        rows_sha256: SHA-256 of the mask of training rows; proof of which rows were seen.
        texts: Columns of free text.
        targets: Mean targets of categorical columns.
        images: Columns of images, at most one.
    """

    numeric: tuple[NumericEncoding, ...]
    categorical: tuple[CategoricalEncoding, ...]
    datetimes: tuple[DatetimeEncoding, ...]
    num_rows: int
    rows_sha256: str
    texts: tuple[TextEncoding, ...] = ()
    targets: tuple[TargetEncoding, ...] = ()
    images: tuple[ImageEncoding, ...] = ()

    @property
    def raw_names(self) -> tuple[str, ...]:
        """Names of the raw columns that the encoder reads, those of images aside."""
        names = [column.name for column in self.numeric] + [column.name for column in self.categorical]
        names += [column.name for column in self.datetimes]
        return tuple(names + [column.name for column in self.texts])

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """Names of the columns of the encoded ``numeric`` matrix: values, dates, indicators, texts, mean targets."""
        parts = [name for date in self.datetimes for name in date.part_names]
        missing = [f"{column.name}: missing" for column in self.numeric if column.has_indicator]
        missing += [f"{column.name}: missing" for column in self.datetimes if column.has_indicator]
        learned = [name for column in self.texts for name in column.part_names]
        learned += [name for column in self.targets for name in column.part_names]
        return tuple([column.name for column in self.numeric] + parts + missing + learned)

    @property
    def num_target_columns(self) -> int:
        """How many of the last numeric columns are mean targets."""
        return sum(len(column.outputs) for column in self.targets)

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
        return asdict(self) | {"images": [column.to_json() for column in self.images]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown or missing.
        """
        values = checked_fields(cls, record)
        values["numeric"] = tuple(numeric_from_json(column) for column in values["numeric"])
        values["categorical"] = tuple(_categorical_from_json(column) for column in values["categorical"])
        values["datetimes"] = tuple(DatetimeEncoding.from_json(column) for column in values["datetimes"])
        values["texts"] = tuple(TextEncoding.from_json(column) for column in values.get("texts", ()))
        values["targets"] = tuple(TargetEncoding.from_json(column) for column in values.get("targets", ()))
        values["images"] = tuple(ImageEncoding.from_json(column) for column in values.get("images", ()))
        return cls(**values)


def _categorical_from_json(record: Mapping[str, Any]) -> CategoricalEncoding:
    values = checked_fields(CategoricalEncoding, record)
    values |= {"vocabulary": tuple(values["vocabulary"]), "raw_type": RawType(values["raw_type"])}
    return CategoricalEncoding(**values)


def fit_preprocessing(
    table: pa.Table, schema: DatasetSchema, *, rows: NDArray[np.bool_], images: ImageRequest | None = None
) -> PreprocessingState:
    """Learn how to encode the used features of a schema.

    Args:
        table: All rows.
        schema: Which columns are used, and how.
        rows: Mask of shape ``(num_rows,)``: the training rows. No other row is read.
        images: What is wanted of images; None for what suits them.

    Raises:
        DataError: There is no training row, or a column does not hold what the schema says.
    """
    rows = np.asarray(rows, dtype=bool)
    if not rows.any():
        raise DataError("Expected at least one training row to learn the preprocessing from, received none.")
    train = table.filter(pa.array(rows))
    numeric, categorical, datetimes, texts, encoded = [], [], [], [], []
    pictures = []
    for feature in schema.used_features:
        if feature.target_encoded:
            encoded.append(feature)
        if feature.kind in (FeatureKind.NUMERIC, FeatureKind.BOOLEAN):
            numeric.append(fit_numeric(train, feature))
        elif feature.kind is FeatureKind.CATEGORICAL:
            categorical.append(_fit_categorical(train, feature))
        elif feature.kind is FeatureKind.DATETIME:
            datetimes.append(fit_datetime(train, feature))
        elif feature.kind is FeatureKind.TEXT:
            texts.append(fit_text(train, feature))
        elif feature.kind is FeatureKind.IMAGE:
            pictures.append(fit_image(train, feature, images or ImageRequest()))
        else:
            raise DataError(f"Column {feature.name!r} is {feature.kind}, which tables cannot encode; drop it.")
    targets = targets_of(train, schema) if encoded else None
    learned = [fit_target_encoding(train, feature, targets) for feature in encoded if targets is not None]
    return PreprocessingState(
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        datetimes=tuple(datetimes),
        num_rows=int(rows.sum()),
        rows_sha256=hashlib.sha256(np.packbits(rows).tobytes()).hexdigest(),
        texts=tuple(texts),
        targets=tuple(one for one in learned if one is not None),
        images=tuple(pictures),
    )


@final
class TrainingMeans:
    """The mean targets of training rows, which are learned from other rows: the last of their numeric columns.

    Args:
        table: All rows, in the order that the state was learned in.
        schema: Which columns are used, and how.
        state: What ``fit_preprocessing`` returned for the same rows.
        learned: Mask of shape ``(num_rows,)``: the rows that it was learned from.
        training: Mask of all training rows; None where the state was learned from all of them.
    """

    def __init__(
        self,
        table: pa.Table,
        schema: DatasetSchema,
        state: PreprocessingState,
        *,
        learned: NDArray[np.bool_],
        training: NDArray[np.bool_] | None = None,
    ) -> None:
        train = table.filter(pa.array(learned))
        targets = targets_of(train, schema)
        features = {feature.name: feature for feature in schema.used_features}
        self._means = HeldOutMeans(
            train, [features[one.name] for one in state.targets], targets, encodings=state.targets
        )
        self._width = state.num_target_columns
        self._parts = np.full(table.num_rows, _LOOKED_UP, np.intp)
        self._parts[learned] = targets.parts.of_rows
        others = np.zeros_like(learned) if training is None else training & ~learned
        keys = [name for name in (schema.group, schema.time_column) if name in table.column_names]
        if keys and others.any():
            parts = targets.parts.of(table.select(keys).filter(pa.array(others)), schema)
            if parts is not None:
                self._parts[others] = parts

    def write(self, encoded: NDArray[np.float32], table: pa.Table, *, start: int = 0) -> None:
        """Write the mean targets of training rows over those that the encoder looked up.

        Args:
            encoded: Encoded numeric columns, ``(num_rows, num_numeric)``.
            table: The rows, or some that follow each other.
            start: Where these begin.
        """
        parts = self._parts[start : start + table.num_rows]
        rows = parts != _LOOKED_UP
        if self._width and rows.any():
            encoded[rows, -self._width :] = self._means.of(table.filter(pa.array(rows)), parts[rows])


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
    frequent = [labels[index] for index in order if counts[index] >= min_count]
    vocabulary = tuple(frequent[:MAX_VOCABULARY])
    repeated = int((np.asarray(counts) > 1).sum())
    beyond = repeated - len(vocabulary) if repeated > MAX_VOCABULARY else 0
    # A bucket holds four of those that are worth one, so that each is met often enough to be learned.
    num_buckets = min(MAX_BUCKETS, 2 ** math.ceil(math.log2(max(beyond / 4, 16)))) if beyond else 0
    hashed = f"; the others share {num_buckets:,} hashed buckets" if beyond else ""
    return CategoricalEncoding(
        name=feature.name,
        raw_type=feature.raw_type,
        vocabulary=vocabulary,
        num_rare=len(labels) - len(vocabulary),
        reason=f"{len(vocabulary)} of {len(labels)} categories kept: at least {min_count} rows each, "
        f"at most {MAX_VOCABULARY:,}{hashed}",
        num_buckets=num_buckets,
        truths=feature.truths,
    )
