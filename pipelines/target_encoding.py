"""The mean target of each category, smoothed; rows that taught it get it from the other rows (numpy, no TensorFlow).

A category's mean over all training rows holds each row's own target: a network would read off there what it is to
predict. So a training row gets the mean over other training rows, those that `pipelines.target_parts` names (other
folds, other groups, or earlier times), and whatever comes later the mean over all training rows, by a look-up in the
exported graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.raw_columns import encode_target, raw_column
from pipelines.row_weights import row_weights
from pipelines.schema import DatasetSchema, FeatureSpec, RawType, Task, checked_fields
from pipelines.target_parts import Parts, parts_of

MIN_CATEGORIES = 30
"""Categories from which a column's mean targets are worth a look-up; fewer are learned well by an embedding."""

MAX_OUTPUTS = 10
"""Classes or outputs up to which each gets a mean of its own."""

MAX_CATEGORIES = 50_000
SMOOTHING = 10.0
"""Rows of the overall mean that every category is mixed with (Micci-Barreca, 2001, equation 3)."""

MIN_TOLD = 0.5
"""Share of the training rows below which too few have earlier rows to learn a category's mean from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetEncoding:
    """Mean targets of the categories of one column.

    Attributes:
        name: Name of the column.
        raw_type: Whether the raw values are text or whole numbers.
        outputs: What the means are of, such as the classes; T of them.
        categories: Categories with a mean of their own, by text.
        means: Their means, scaled, ``(num_categories, T)``.
        missing: Scaled means of the rows without a value.
        other: Scaled means of all rows, for a category that training did not have.
        centre: What was subtracted before scaling, ``(T,)``.
        inverse_scale: What the difference was multiplied by, ``(T,)``.
        reason: Why this column has mean targets.
    """

    name: str
    raw_type: RawType
    outputs: tuple[str, ...]
    categories: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    missing: tuple[float, ...]
    other: tuple[float, ...]
    centre: tuple[float, ...]
    inverse_scale: tuple[float, ...]
    reason: str

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return tuple(f"{self.name}: mean of {output}" for output in self.outputs)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TargetEncoding:
        """Rebuild what ``dataclasses.asdict`` wrote as JSON."""
        values = checked_fields(cls, record)
        for name in ("outputs", "categories", "missing", "other", "centre", "inverse_scale"):
            values[name] = tuple(values[name])
        values |= {"means": tuple(map(tuple, values["means"])), "raw_type": RawType(values["raw_type"])}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets that means are taken of.

    Attributes:
        names: What each column is, ``(T,)``.
        values: float64 of shape ``(num_rows, T)``.
        weights: How much each row counts, ``(num_rows,)``.
        parts: Which of them teach which others.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    parts: Parts


def targets_of(table: pa.Table, schema: DatasetSchema) -> Targets:
    """Return the targets of a table as numbers: one a class, one for two classes, the value of a regression.

    Args:
        table: Rows with their target.
        schema: Columns and target.
    """
    target = schema.target
    encoded = encode_target(table, target)
    weights = np.ones(table.num_rows) if schema.weight is None else row_weights(table, schema.weight)
    parts = parts_of(table, schema)
    if target.task is Task.MULTICLASS:
        one_hot = (encoded[:, np.newaxis] == np.arange(len(target.classes))).astype(np.float64)
        return Targets(target.classes, one_hot, weights, parts)
    names = (target.classes[1],) if target.task is Task.BINARY else target.names
    return Targets(names, encoded.astype(np.float64).reshape(len(encoded), -1), weights, parts)


def fit_target_encoding(train: pa.Table, feature: FeatureSpec, targets: Targets) -> TargetEncoding | None:
    """Learn the mean targets of a column's categories; None where too few rows have earlier ones to learn from.

    Args:
        train: The training rows.
        feature: The column.
        targets: Their targets.
    """
    learned = _Learned(train, feature, targets)
    parts = targets.parts
    apart = learned.held_out(parts.of_rows)[learned.told[parts.of_rows]]
    if len(apart) < MIN_TOLD * train.num_rows:
        return None
    centre, deviation = apart.mean(axis=0), apart.std(axis=0)
    inverse = 1.0 / np.where(deviation > 1e-9 * (1.0 + np.abs(centre)), deviation, 1.0)
    centre, inverse = (array.astype(np.float32).astype(np.float64) for array in (centre, inverse))

    def scaled(rows: NDArray[np.float64]) -> list[tuple[float, ...]]:
        return [tuple(map(float, row)) for row in ((rows - centre) * inverse).astype(np.float32)]

    means = learned.means(np.arange(train.num_rows))
    folds = f"{parts.number - 1} of {parts.number} folds, their own left out"
    how = f"the earlier ones of {parts.number} blocks of time" if parts.in_order else folds
    return TargetEncoding(
        name=feature.name,
        raw_type=feature.raw_type,
        outputs=targets.names,
        categories=learned.categories,
        means=tuple(scaled(means[1:-1])),
        missing=scaled(means[:1])[0],
        other=scaled(means[-1:])[0],
        centre=tuple(map(float, centre)),
        inverse_scale=tuple(map(float, inverse)),
        reason=f"{learned.num_categories:,} categories, at least {MIN_CATEGORIES}: mean target of each, mixed with "
        f"{SMOOTHING:g} rows of the overall mean; training rows get it from {how}",
    )


@final
class HeldOutMeans:
    """The encoded columns of training rows, learned without the rows that they belong with.

    Args:
        train: The rows that taught the encodings, in the order in which they were learned from.
        features: The columns.
        targets: Targets of these rows.
        encodings: What ``fit_target_encoding`` returned of each column.
    """

    def __init__(
        self,
        train: pa.Table,
        features: Sequence[FeatureSpec],
        targets: Targets,
        *,
        encodings: Sequence[TargetEncoding],
    ) -> None:
        self._columns = [
            (_Learned(train, feature, targets), encoding)
            for feature, encoding in zip(features, encodings, strict=True)
        ]

    def of(self, table: pa.Table, parts: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the encoded columns, ``(num_rows, num_columns)``; 0, the middle, where nothing may be learned from.

        Args:
            table: Training rows.
            parts: Part of each, ``(num_rows,)``.
        """
        found = [np.zeros((table.num_rows, 0), np.float32)]
        for learned, encoding in self._columns:
            apart = learned.held_out(parts, of=table)
            scaled = (apart - np.asarray(encoding.centre)) * np.asarray(encoding.inverse_scale)
            found.append(np.where(learned.told[parts][:, np.newaxis], scaled, 0.0).astype(np.float32))
        return np.concatenate(found, axis=1)


@final
class _Learned:
    """What the rows of each part may learn of a column's categories.

    Attributes:
        categories: The categories with a mean of their own, the most frequent where there are too many.
        num_categories: All that there are.
        told: Whether a part has rows to learn from, ``(num_parts + 1,)``; the last belongs with no part.
    """

    def __init__(self, train: pa.Table, feature: FeatureSpec, targets: Targets) -> None:
        self._feature, self._targets = feature, targets
        keys, codes = _codes(train, feature)
        self.num_categories = len(keys) - 1
        # The missing value is the first key.
        counts = np.bincount(codes, weights=targets.weights, minlength=len(keys))
        kept = np.sort(1 + np.argsort(-counts[1:], kind="stable")[:MAX_CATEGORIES])
        self.categories = tuple(keys[index] for index in kept)
        self._places = {"": 0} | {name: place for place, name in enumerate(self.categories, start=1)}
        places = np.full(len(keys), len(self._places), np.intp)
        places[np.r_[0, kept]] = np.arange(len(kept) + 1)
        self._codes = places[codes]
        taught = [targets.parts.teachers(part) for part in range(targets.parts.number + 1)]
        self.told = np.array([bool(targets.weights[rows].sum() > 0) for rows in taught])
        self._taught = taught

    def means(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the smoothed means that rows teach: of missing values, each category, and any other."""
        codes, weights = self._codes[rows], self._targets.weights[rows]
        sums = np.stack(
            [
                np.bincount(codes, weights=column * weights, minlength=len(self._places) + 1)
                for column in self._targets.values[rows].T
            ],
            axis=1,
        )
        counts = np.bincount(codes, weights=weights, minlength=len(sums))
        prior = sums.sum(axis=0) / max(counts.sum(), 1e-300)
        smoothed: NDArray[np.float64] = (sums + SMOOTHING * prior) / (counts + SMOOTHING)[:, np.newaxis]
        smoothed[-1] = prior
        return smoothed

    def _codes_of(self, table: pa.Table) -> NDArray[np.intp]:
        keys, codes = _codes(table, self._feature)
        return np.array([self._places.get(key, len(self._places)) for key in keys], np.intp)[codes]

    def held_out(self, parts: NDArray[np.intp], *, of: pa.Table | None = None) -> NDArray[np.float64]:
        """Return the mean of each row's category as its part may know it, ``(num_rows, T)``.

        Args:
            parts: Part of each row, ``(num_rows,)``.
            of: The rows; None for those that teach.
        """
        codes = self._codes if of is None else self._codes_of(of)
        found = np.zeros((len(parts), self._targets.values.shape[1]))
        for part in np.unique(parts):
            rows = parts == part
            found[rows] = self.means(self._taught[part])[codes[rows]]
        return found


def _codes(table: pa.Table, feature: FeatureSpec) -> tuple[list[str], NDArray[np.intp]]:
    """Return the categories as text, the missing value first, and which one each row has."""
    raw = raw_column(table, feature)
    if feature.raw_type is RawType.FLOAT32:
        numbers = raw.astype(np.float64)
        text = np.array(["" if np.isnan(x) else str(int(x)) for x in numbers], object)
    else:
        text = np.array([value.strip().decode("utf-8") for value in raw], dtype=object)
    values, codes = np.unique(np.r_[np.array([""], object), text], return_inverse=True)
    return values.tolist(), codes[1:]
