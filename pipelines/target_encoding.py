"""The mean target of each category, smoothed; rows that taught it get it from the other rows (numpy, no TensorFlow).

A category's mean over all training rows holds each row's own target: a network would read off there what it is to
predict. So a training row gets the mean over the other folds (out of fold), and whatever comes later the mean over all
training rows, by a look-up in the exported graph. Where groups of rows stay together, new rows are of new groups: then
folds are made of whole groups, or a row would learn of its own group what no new row can know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import plain_array
from pipelines.raw_columns import encode_target, raw_column
from pipelines.row_hash import hash_column
from pipelines.row_weights import row_weights
from pipelines.schema import DatasetSchema, FeatureSpec, RawType, Task, checked_fields

MIN_CATEGORIES = 30
"""Categories from which a column's mean targets are worth a look-up; fewer are learned well by an embedding."""

MAX_OUTPUTS = 10
"""Classes or outputs up to which each gets a mean of its own."""

MAX_CATEGORIES = 50_000
NUM_FOLDS = 5
SMOOTHING = 10.0
"""Rows of the overall mean that every category is mixed with (Micci-Barreca, 2001, equation 3)."""

_SEED = 20_011


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
        groups: Which rows stay in one fold, as numbers from 0, ``(num_rows,)``; None where each is by itself.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    groups: NDArray[np.intp] | None = None


def targets_of(table: pa.Table, schema: DatasetSchema) -> Targets:
    """Return the targets of a table as numbers: one a class, one for two classes, the value of a regression.

    Args:
        table: Rows with their target.
        schema: Columns and target.
    """
    target = schema.target
    encoded = encode_target(table, target)
    weights = np.ones(table.num_rows) if schema.weight is None else row_weights(table, schema.weight)
    groups = _groups(table, schema.group)
    if target.task is Task.MULTICLASS:
        one_hot = (encoded[:, np.newaxis] == np.arange(len(target.classes))).astype(np.float64)
        return Targets(target.classes, one_hot, weights, groups)
    names = (target.classes[1],) if target.task is Task.BINARY else target.names
    return Targets(names, encoded.astype(np.float64).reshape(len(encoded), -1), weights, groups)


def _groups(table: pa.Table, name: str | None) -> NDArray[np.intp] | None:
    """Return the group of each row; one without a value is its own, as in the splits."""
    # Rows that an earlier version stored have no group, and a state that knew none.
    if name is None or name not in table.column_names:
        return None
    array = plain_array(table, name)
    groups: NDArray[np.intp] = np.unique(hash_column(array), return_inverse=True)[1].reshape(-1)
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), bool)
    groups[missing] = len(groups) + np.arange(missing.sum())
    return groups


def fit_target_encoding(train: pa.Table, feature: FeatureSpec, targets: Targets) -> TargetEncoding:
    """Learn the mean targets of a column's categories.

    Args:
        train: The training rows.
        feature: The column.
        targets: Their targets.
    """
    keys, codes = _codes(train, feature)
    sums, counts = _totals(codes, targets, len(keys))
    prior = sums.sum(axis=0) / max(counts.sum(), 1e-300)
    means = _smoothed(sums, counts, prior)
    apart = _held_out(codes, targets, len(keys))
    centre, deviation = apart.mean(axis=0), apart.std(axis=0)
    inverse = 1.0 / np.where(deviation > 1e-9 * (1.0 + np.abs(centre)), deviation, 1.0)
    centre, inverse = (array.astype(np.float32).astype(np.float64) for array in (centre, inverse))

    def scaled(rows: NDArray[np.float64]) -> list[tuple[float, ...]]:
        return [tuple(map(float, row)) for row in ((rows - centre) * inverse).astype(np.float32)]

    # The missing value is the first key; the most frequent categories are kept where there are too many.
    kept = np.sort(1 + np.argsort(-counts[1:], kind="stable")[:MAX_CATEGORIES])
    return TargetEncoding(
        name=feature.name,
        raw_type=feature.raw_type,
        outputs=targets.names,
        categories=tuple(keys[index] for index in kept),
        means=tuple(scaled(means[kept])),
        missing=scaled(means[:1])[0],
        other=scaled(prior[np.newaxis])[0],
        centre=tuple(map(float, centre)),
        inverse_scale=tuple(map(float, inverse)),
        reason=f"{len(keys) - 1:,} categories, at least {MIN_CATEGORIES}: mean target of each, mixed with "
        f"{SMOOTHING:g} rows of the overall mean; training rows get it from {NUM_FOLDS - 1} of {NUM_FOLDS} folds, "
        "their own left out",
    )


def out_of_fold(train: pa.Table, feature: FeatureSpec, targets: Targets, *, encoding: TargetEncoding) -> Any:
    """Return the encoded columns of the very rows that taught an encoding, each from the other folds.

    Args:
        train: The training rows, in the order in which they were learned from.
        feature: The column.
        targets: Their targets.
        encoding: What ``fit_target_encoding`` returned.

    Returns:
        float32 of shape ``(num_rows, T)``.
    """
    keys, codes = _codes(train, feature)
    apart = _held_out(codes, targets, len(keys))
    scaled = (apart - np.asarray(encoding.centre)) * np.asarray(encoding.inverse_scale)
    return scaled.astype(np.float32)


def _held_out(codes: NDArray[np.intp], targets: Targets, num_keys: int) -> NDArray[np.float64]:
    """Return the smoothed mean of each row's category over the folds that the row is not in, ``(num_rows, T)``."""
    own = np.arange(len(codes)) if targets.groups is None else targets.groups
    folds = np.random.default_rng(_SEED).permutation(int(own.max()) + 1)[own] % NUM_FOLDS
    means = np.empty_like(targets.values)
    for fold in range(NUM_FOLDS):
        held, others = folds == fold, np.flatnonzero(folds != fold)
        part = Targets(targets.names, targets.values[others], targets.weights[others])
        sums, counts = _totals(codes[others], part, num_keys)
        prior = sums.sum(axis=0) / max(counts.sum(), 1e-300)
        means[held] = _smoothed(sums, counts, prior)[codes[held]]
    return means


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


def _totals(codes: NDArray[np.intp], targets: Targets, num_keys: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the weighted sums of the targets, ``(num_keys, T)``, and the weights of the rows, ``(num_keys,)``."""
    weighted = targets.values * targets.weights[:, np.newaxis]
    sums = [np.bincount(codes, weights=column, minlength=num_keys) for column in weighted.T]
    return np.stack(sums, axis=1), np.bincount(codes, weights=targets.weights, minlength=num_keys)


def _smoothed(
    sums: NDArray[np.float64], counts: NDArray[np.float64], prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    smoothed: NDArray[np.float64] = (sums + SMOOTHING * prior) / (counts + SMOOTHING)[:, np.newaxis]
    return smoothed
