"""Columns that predict the target almost perfectly on their own, which in practice means that they know it.

Each column is fitted alone on training rows and scored on validation rows, so that a column that merely memorises its
rows is not accused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from pipelines.column_values import TIMESTAMP, numbers_of, plain_array, text_of
from pipelines.datetime_text import timestamps_of
from pipelines.raw_columns import encode_target
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, Task
from pipelines.splits import Split

_SUSPICIOUS_SCORE = 0.995
_MIN_VALIDATION_ROWS = 30
_MIN_MINORITY_ROWS = 5
_MAX_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A column that knows too much.

    Attributes:
        column: Name of the column.
        metric: ``ROC-AUC``, ``accuracy`` or ``R2 of ranks``.
        score: Its value on validation rows, at most 1.
        num_rows: Number of validation rows.
    """

    column: str
    metric: str
    score: float
    num_rows: int


def find_leaks(table: pa.Table, schema: DatasetSchema, splits: NDArray[np.int8]) -> list[Leak]:
    """Return the used features that alone reach 0.995 on rows they were not fitted on.

    The score is ROC-AUC for two classes, accuracy for more, and R2 between ranks for numbers.

    With fewer than 30 validation rows, fewer than 5 of them outside the largest class, or a largest class that reaches
    that accuracy anyway, nothing can be told and nothing is returned; nor of several targets.

    Args:
        table: All rows.
        schema: Which columns are used, and how.
        splits: ``Split`` values of shape ``(num_rows,)``.
    """
    if schema.target.columns:
        return []
    train, validation = _sample(splits == Split.TRAIN), _sample(splits == Split.VALIDATION)
    target = encode_target(table, schema.target)
    known, asked = target[train], target[validation]
    if not _can_tell(asked, schema):
        return []
    leaks = []
    for feature in schema.used_features:
        if feature.kind in (FeatureKind.TEXT, FeatureKind.IMAGE):
            continue
        x = _ordered_values(table, feature, train, known, schema.target.task)
        metric, score = _score_alone(x[train], known, x[validation], asked, schema.target.task)
        if score >= _SUSPICIOUS_SCORE:
            leaks.append(Leak(column=feature.name, metric=metric, score=score, num_rows=len(validation)))
    return leaks


def _sample(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return at most ``_MAX_ROWS`` marked rows, spread evenly: the first rows of a sorted table would all be alike."""
    rows = np.flatnonzero(mask)
    return rows if rows.size <= _MAX_ROWS else rows[np.linspace(0, rows.size - 1, _MAX_ROWS).astype(np.int64)]


def _can_tell(asked: NDArray[np.generic], schema: DatasetSchema) -> bool:
    if len(asked) < _MIN_VALIDATION_ROWS:
        return False
    if not schema.target.task.is_classification:
        return bool(np.std(asked.astype(np.float64)) > 0)
    largest = int(np.bincount(asked.astype(np.int64)).max())
    if len(asked) - largest < _MIN_MINORITY_ROWS:
        return False
    # ROC-AUC has no baseline but one half; accuracy has the largest class.
    return schema.target.task is Task.BINARY or largest / len(asked) < _SUSPICIOUS_SCORE - 0.01


def _ordered_values(
    table: pa.Table, feature: FeatureSpec, train: NDArray[np.int64], known: NDArray[np.generic], task: Task
) -> NDArray[np.float64]:
    """Return a column as numbers that a tree can cut, NaN for missing.

    Categories are ordered by the mean target of their training rows, for several classes by their commonest class;
    a category that training does not know counts as missing.
    """
    array = plain_array(table, feature.name)
    if feature.kind is FeatureKind.DATETIME:
        array = timestamps_of(array, datetime_format=feature.datetime_format)
    if array.type == TIMESTAMP:
        seconds = np.asarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False), np.float64)
        return np.where(np.asarray(array.is_null()), np.nan, seconds)
    if feature.kind is not FeatureKind.CATEGORICAL:
        return numbers_of(array)
    encoded = (text_of(array) if feature.raw_type is RawType.STRING else array).dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(len(encoded.dictionary)), dtype=np.int64)
    num_codes = len(encoded.dictionary) + 1
    counts = np.bincount(codes[train], minlength=num_codes)
    if task is Task.MULTICLASS:
        pairs = np.zeros((num_codes, int(known.max()) + 1))
        np.add.at(pairs, (codes[train], known.astype(np.int64)), 1)
        order = pairs.argmax(axis=1).astype(np.float64)
    else:
        sums = np.bincount(codes[train], weights=known.astype(np.float64), minlength=num_codes)
        order = sums / np.maximum(counts, 1)
    order[counts == 0] = np.nan
    return np.asarray(order[codes], dtype=np.float64)


def _score_alone(
    x: NDArray[np.float64],
    y: NDArray[np.generic],
    x_asked: NDArray[np.float64],
    y_asked: NDArray[np.generic],
    task: Task,
) -> tuple[str, float]:
    # Trees only see the order of values, in float32: ranks keep the order of dates and of huge numbers.
    x, x_asked = (ranks[:, np.newaxis] for ranks in _ranks(x, x_asked))
    if not task.is_classification:
        # Enough leaves to follow a smooth curve, with enough rows in each not to follow noise.
        tree = DecisionTreeRegressor(min_samples_leaf=3, max_leaf_nodes=1_000, random_state=0)
        # Ranks of the target as well: a few huge values would decide R2 alone.
        y, y_asked = _ranks(y.astype(np.float64), y_asked.astype(np.float64))
        return "R2 of ranks", float(r2_score(y_asked, tree.fit(x, y).predict(x_asked)))
    num_classes = int(max(y.max(), y_asked.max())) + 1
    tree = DecisionTreeClassifier(min_samples_leaf=3, max_leaf_nodes=max(8, 2 * num_classes), random_state=0)
    tree.fit(x, y)
    if task is Task.BINARY:
        return "ROC-AUC", float(roc_auc_score(y_asked, tree.predict_proba(x_asked)[:, -1]))
    return "accuracy", float(accuracy_score(y_asked, tree.predict(x_asked)))


def _ranks(x: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ranks of two samples in their union, NaN for NaN."""
    distinct = np.unique(np.concatenate([x, other]))
    first, second = (np.where(np.isnan(v), np.nan, np.searchsorted(distinct, v)) for v in (x, other))
    return first, second
