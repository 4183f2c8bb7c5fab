"""What a model has to beat: the same answer for every row, and a linear model on the encoded features."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from app.evaluation.metrics import mape_epsilon
from app.evaluation.predictions import Predictions
from pipelines.column_values import numbers_of, plain_array
from pipelines.schema import Task
from pipelines.seasonality import seasonal_lag
from pipelines.windows import WindowSpec, lag_name

IMAGE_PATH = "image_path"
"""Kind of the features that say where on disk images lie; "image" are images themselves."""

MAX_ROWS = 50_000
_CHECKED_ROWS = 1 << 18
_ANSWERED_ROWS = 1 << 16
MAX_ITERATIONS = 100

# Rows x classes x (numbers a row): an iteration then costs about 0.1 s, the whole fit some ten seconds at most.
_WORK = 50_000_000
_MIN_ROWS = 2_000
_SMALLEST_PROBABILITY = 1e-6  # of a class the fit never saw: an infinite loss would say nothing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedRows:
    """Rows as the encoder gives them, with their targets.

    Args:
        numeric: `(num_rows, num_numeric)` finite floats; the width may be 0.
        categorical: `(num_rows, num_categorical)` ids, each in [0, cardinality); the width may be 0.
        y: `(num_rows,)` class ids, or values in the target's units.
        weights: `(num_rows,)` how much each row counts; None for all alike.
        images: `(num_rows, height, width, channels)` uint8, `(num_rows,)` objects that are encoded images, or
            `(num_rows,)` fixed-width bytes that say where on disk they lie; None without images.

    Raises:
        ValueError: the arrays do not have the same number of rows, or a numeric feature is not finite.
    """

    numeric: NDArray[np.floating]
    categorical: NDArray[np.integer]
    y: NDArray[np.generic]
    weights: NDArray[np.floating] | None = None
    images: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        parts = [self.numeric, self.categorical, self.y, *([] if self.images is None else [self.images])]
        lengths = tuple(map(len, parts))
        if self.weights is not None and self.weights.shape != (len(self.y),):
            raise ValueError(f"expected one weight a row, {(len(self.y),)}, got {self.weights.shape}")
        if len(set(lengths)) != 1 or not len(self.y):
            raise ValueError(
                f"expected numeric, categorical and y of the same number of rows, got {lengths}; "
                "an empty kind of feature has the shape (num_rows, 0)"
            )
        # A part at a time: of a table on disk, one mask over all of it would be too much to hold.
        starts = range(0, len(self.numeric), _CHECKED_ROWS)
        if not all(np.isfinite(self.numeric[start : start + _CHECKED_ROWS]).all() for start in starts):
            raise ValueError(
                "expected finite numeric features, got NaN or infinity; encode the rows before the baselines"
            )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def features(self) -> dict[str, NDArray[np.generic]]:
        """The features by kind, as networks take them."""
        found: dict[str, NDArray[Any]] = {"numeric": self.numeric, "categorical": self.categorical}
        if self.images is not None:
            found[IMAGE_PATH if self.images.dtype.kind == "S" else "image"] = self.images
        return found

    def take(self, rows: NDArray[np.integer] | slice) -> EncodedRows:
        """The rows of these numbers; those of a slice stay where they are, in memory or on disk."""
        return EncodedRows(
            numeric=self.numeric[rows],
            categorical=self.categorical[rows],
            y=self.y[rows],
            weights=None if self.weights is None else self.weights[rows],
            images=None if self.images is None else self.images[rows],
        )


def _of_each(
    answer: Callable[[EncodedRows, EncodedRows], Predictions], test: EncodedRows, train: EncodedRows, task: Task
) -> Predictions:
    """Several targets, each answered by itself."""
    parts = []
    for place in range(test.y.shape[1]):
        one = [dataclasses.replace(rows, y=rows.y[:, place]) for rows in (train, test)]
        parts.append(answer(one[0], one[1]))
    names = tuple(f"target {place + 1}" for place in range(len(parts)))
    return Predictions(
        task=task,
        y=test.y,
        values=_beside([part.values for part in parts]),
        probabilities=_beside([None if one.probabilities is None else one.probabilities[:, 1] for one in parts]),
        mape_epsilon=parts[0].mape_epsilon,
        weights=test.weights,
        outputs=names,
    )


def _beside(columns: Sequence[NDArray[np.floating] | None]) -> NDArray[np.floating] | None:
    found = [column for column in columns if column is not None]
    return np.stack(found, axis=1) if found else None


def constant(
    train: EncodedRows, test: EncodedRows, *, task: Task, num_classes: int = 0, levels: tuple[float, ...] = ()
) -> Predictions:
    """The classes' frequencies in training, or the mean of the target, for every test row.

    Args:
        train: training rows; only y is read.
        test: rows to answer.
        task: binary, multiclass or regression.
        num_classes: number of classes; 0 for regression.
        levels: quantiles of a regression to answer beside the mean, rising; () for none.
    """
    if train.y.ndim == 2:
        each = Task.BINARY if task is Task.MULTILABEL else task
        return _of_each(lambda a, b: constant(a, b, task=each, num_classes=2), test, train, task)
    if task is Task.REGRESSION:
        mean = np.average(train.y.astype(np.float64), weights=train.weights)
        errors = train.y.astype(np.float64) - mean
        return _with_quantiles(_regression(train, test, np.full(test.num_rows, mean)), errors, levels)
    counts = np.bincount(train.y.astype(np.intp), weights=train.weights, minlength=num_classes).astype(np.float64)
    return _classification(test, task, np.tile(counts / counts.sum(), (test.num_rows, 1)))


def linear(
    train: EncodedRows,
    test: EncodedRows,
    *,
    task: Task,
    cardinalities: tuple[int, ...],
    num_classes: int = 0,
    levels: tuple[float, ...] = (),
    seed: int = 0,
) -> Predictions:
    """Logistic regression with a light L2 penalty, or ridge regression, on the encoded features.

    Numeric features are standardised and categorical ones become one column a category, as a sparse matrix. The
    time is bounded: at most 50,000 rows are fitted (a random part, fewer with very many classes and features) and
    at most 100 iterations made; a fit that has not converged by then is used as it stands.

    Args:
        train: training rows.
        test: rows to answer.
        task: binary, multiclass or regression.
        cardinalities: ids of each categorical feature lie in [0, cardinality).
        num_classes: number of classes; 0 for regression.
        levels: quantiles of a regression to answer beside the value, by those of the errors in training.
        seed: chooses the rows where not all are fitted.

    Raises:
        ValueError: categorical features and cardinalities do not fit.
    """
    if train.y.ndim == 2:
        each = Task.BINARY if task is Task.MULTILABEL else task
        return _of_each(
            lambda a, b: linear(a, b, task=each, cardinalities=cardinalities, num_classes=2, seed=seed),
            test,
            train,
            task,
        )
    width = train.numeric.shape[1] + train.categorical.shape[1]
    max_rows = min(MAX_ROWS, max(_MIN_ROWS, _WORK // max(1, width * num_classes)))
    if train.num_rows > max_rows:
        train = train.take(np.random.default_rng(seed).choice(train.num_rows, size=max_rows, replace=False))
    if not width or (task.is_classification and (train.y == train.y[0]).all()):
        return constant(train, test, task=task, num_classes=num_classes, levels=levels)
    mean = train.numeric.mean(axis=0, dtype=np.float64)
    deviation = train.numeric.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1.0

    def one_hot(rows: EncodedRows) -> scipy.sparse.csr_array:
        return _one_hot((rows.numeric - mean) / deviation, rows.categorical, cardinalities)

    features = one_hot(train)
    # A part at a time: of millions of rows, the matrix would take gigabytes.
    starts = range(0, test.num_rows, _ANSWERED_ROWS)
    parts = (one_hot(test.take(slice(start, start + _ANSWERED_ROWS))) for start in starts)
    with warnings.catch_warnings():
        # Reaching the iteration limit is expected here, and no business of the user's.
        warnings.simplefilter("ignore")
        if task is Task.REGRESSION:
            answers = _ridge(features, train, itertools.chain(parts, [features]))
            errors = train.y.astype(np.float64) - answers[test.num_rows :]
            return _with_quantiles(_regression(train, test, answers[: test.num_rows]), errors, levels)
        probabilities = _logistic(features, train, parts, num_classes)
    return _classification(test, task, probabilities)


def seasonal_values(table: pa.Table, spec: WindowSpec) -> tuple[str, NDArray[np.float64]]:
    """What repeating the last season forecasts for windows of time series; the last value where no season fits.

    Args:
        table: windows, with the lags of what is forecast.
        spec: what they are made of.

    Returns:
        The name of the forecast, and its values `(num_windows, horizon)`, NaN where there is none to repeat.
    """
    period = spec.period if spec.period <= spec.context else 1
    lags = [seasonal_lag(step, period) for step in range(1, spec.horizon + 1)]
    values = [numbers_of(plain_array(table, lag_name(spec.target, lag))) for lag in lags]
    return ("seasonal-naive" if period > 1 else "naive"), np.stack(values, axis=1)


def repeated_season(train: EncodedRows, test: EncodedRows, values: NDArray[np.float64]) -> Predictions:
    """The forecast that repeats the last season, as predictions; the mean of training where it has no value.

    Args:
        train: training windows; only y is read.
        test: windows to answer.
        values: what `seasonal_values` found for them, `(num_windows, horizon)`.
    """
    found = values.reshape(test.y.shape)
    filled = np.where(np.isnan(found), train.y.astype(np.float64).mean(axis=0), found)
    return Predictions(
        task=Task.REGRESSION,
        y=test.y,
        values=filled,
        mape_epsilon=mape_epsilon(train.y.astype(np.float64)),
        weights=test.weights,
        outputs=() if test.y.ndim == 1 else tuple(f"target {place + 1}" for place in range(test.y.shape[1])),
    )


def _ridge(
    features: scipy.sparse.csr_array, train: EncodedRows, asked: Iterable[scipy.sparse.csr_array]
) -> NDArray[np.float64]:
    y = train.y.astype(np.float64)
    # The solver's tolerance is meant for targets of about unit size.
    scale = float(y.std()) or 1.0
    model = Ridge(alpha=1.0, solver="sparse_cg", max_iter=MAX_ITERATIONS, tol=1e-5)
    model.fit(features, (y - y.mean()) / scale, sample_weight=_relative_weights(train))
    answers: NDArray[np.float64] = np.concatenate([model.predict(part) for part in asked]) * scale + y.mean()
    return answers


def _logistic(
    features: scipy.sparse.csr_array,
    train: EncodedRows,
    asked: Iterable[scipy.sparse.csr_array],
    num_classes: int,
) -> NDArray[np.float64]:
    model = LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS, tol=1e-4)
    model.fit(features, train.y, sample_weight=_relative_weights(train))
    found = np.concatenate([model.predict_proba(part) for part in asked])
    probabilities = np.full((len(found), num_classes), _SMALLEST_PROBABILITY)
    probabilities[:, model.classes_.astype(np.intp)] = found
    normalised: NDArray[np.float64] = probabilities / probabilities.sum(axis=1, keepdims=True)
    return normalised


def _relative_weights(train: EncodedRows) -> NDArray[np.float64] | None:
    """The weights with a mean of 1, so that the penalty means the same with and without them."""
    return None if train.weights is None else train.weights.astype(np.float64) / train.weights.mean()


def _one_hot(
    numeric: NDArray[np.float64], categorical: NDArray[np.integer], cardinalities: tuple[int, ...]
) -> scipy.sparse.csr_array:
    """`(num_rows, num_numeric + sum of cardinalities)`."""
    if categorical.shape[1] != len(cardinalities):
        raise ValueError(
            f"expected one cardinality for each of {categorical.shape[1]} categorical features, "
            f"got {len(cardinalities)}; pass those of the preprocessing state"
        )
    sizes = np.array(cardinalities, dtype=np.intp)
    if (categorical < 0).any() or (categorical >= sizes).any():
        raise ValueError("expected category ids in [0, cardinality), got others; encode with the same state")
    num_rows, width = categorical.shape
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if width else sizes
    columns = (categorical.astype(np.intp) + starts).ravel()
    one_hot = scipy.sparse.csr_array(
        (np.ones(num_rows * width), columns, np.arange(num_rows + 1) * width),
        shape=(num_rows, int(sizes.sum())),
    )
    return scipy.sparse.csr_array(
        scipy.sparse.hstack([scipy.sparse.csr_array(numeric), one_hot], format="csr")
    )


def _with_quantiles(
    predictions: Predictions, errors: NDArray[np.float64], levels: tuple[float, ...]
) -> Predictions:
    if not levels or predictions.values is None:
        return predictions
    found = predictions.values[:, np.newaxis] + np.quantile(errors, levels)
    return dataclasses.replace(predictions, quantiles=found, levels=levels)


def _classification(test: EncodedRows, task: Task, probabilities: NDArray[np.float64]) -> Predictions:
    return Predictions(task=task, y=test.y, probabilities=probabilities, weights=test.weights)


def _regression(train: EncodedRows, test: EncodedRows, values: NDArray[np.float64]) -> Predictions:
    epsilon = mape_epsilon(train.y.astype(np.float64))
    return Predictions(
        task=Task.REGRESSION, y=test.y, values=values, mape_epsilon=epsilon, weights=test.weights
    )
