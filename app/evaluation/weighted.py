"""Metrics as functions of row weights: prepared once on the predictions, then evaluated for many weightings.

A bootstrap resample is nothing but integer weights on the rows, so a weighted metric gives the resample's
exact value without copying a row and, for the ranking metrics, without sorting again.

Notation: `weights` is `(num_resamples, num_rows)` and a statistic answers `(num_resamples,)`, with NaN where
the metric is not defined (say, a resample with a single class). Weight 1 everywhere gives the plain metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from app.evaluation.predictions import Predictions
from pipelines.schema import Task

Float64 = NDArray[np.float64]
Weighted = Callable[[Float64], Float64]

NUM_CALIBRATION_BINS = 15


# -- classes ---------------------------------------------------------------------------------------------


def accuracy(predictions: Predictions) -> Weighted:
    """Share of rows whose predicted class is the true one."""
    return _mean((predictions.predicted_labels == predictions.y).astype(np.float64))


def balanced_accuracy(predictions: Predictions) -> Weighted:
    """Mean recall of the classes that occur in y."""
    totals = _class_totals(predictions)

    def weighted(weights: Float64) -> Float64:
        hits, true, _ = totals(weights)
        return _mean_of_defined(_ratio(hits, true))

    return weighted


def f1(predictions: Predictions) -> Weighted:
    """F1 of the second class if binary; otherwise the mean over the classes true or predicted somewhere."""
    totals = _class_totals(predictions)

    def weighted(weights: Float64) -> Float64:
        hits, true, predicted = totals(weights)
        scores = _ratio(2 * hits, true + predicted)
        if predictions.task is Task.BINARY:
            # 0 as in scikit-learn where the positive class is neither true nor predicted.
            return np.nan_to_num(scores[:, 1], nan=0.0)
        return _mean_of_defined(scores)

    return weighted


# -- ranking ---------------------------------------------------------------------------------------------


def roc_auc(predictions: Predictions) -> Weighted:
    """Area under the ROC curve; with more than two classes the mean of one against the rest."""
    return _one_against_rest(predictions, _roc_area)


def pr_auc(predictions: Predictions) -> Weighted:
    """Average precision; with more than two classes the mean of one against the rest."""
    return _one_against_rest(predictions, _average_precision)


def _one_against_rest(
    predictions: Predictions, area: Callable[[NDArray[np.floating], NDArray[np.bool_]], Weighted]
) -> Weighted:
    probabilities = _probabilities(predictions)
    if predictions.task is Task.BINARY:
        return area(probabilities[:, 1], predictions.y == 1)
    areas = [area(probabilities[:, k], predictions.y == k) for k in np.unique(predictions.y)]
    return lambda weights: _mean_of_defined(np.stack([one(weights) for one in areas], axis=1))


def _roc_area(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Weighted:
    """P(score of a positive > score of a negative) + P(equal) / 2 (Mann and Whitney 1947)."""
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    sorted_scores = scores[negatives]
    num_below = np.searchsorted(sorted_scores, scores[positives], side="left")
    num_up_to = np.searchsorted(sorted_scores, scores[positives], side="right")
    has_ties = bool((num_below != num_up_to).any())

    def weighted(weights: Float64) -> Float64:
        of_positives = weights.take(positives, axis=1)
        cumulated = np.zeros((len(weights), len(negatives) + 1))
        np.cumsum(weights.take(negatives, axis=1), axis=1, out=cumulated[:, 1:])
        below = cumulated.take(num_below, axis=1)
        if has_ties:
            # A negative of the same score counts one half.
            below = (below + cumulated.take(num_up_to, axis=1)) / 2
        area = np.einsum("rn,rn->r", of_positives, below)
        return _ratio(area, of_positives.sum(axis=1) * cumulated[:, -1])

    return weighted


def _average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Weighted:
    """Sum over thresholds of the precision there times the recall gained there, as in scikit-learn."""
    order = np.argsort(-scores, kind="stable")
    positives = np.flatnonzero(positive[order])
    sorted_scores = -scores[order]  # ascending
    of_positives = sorted_scores[positives]
    # Rows of equal score share a threshold: each positive is judged by what lies above or level with it.
    last_row = np.searchsorted(sorted_scores, of_positives, side="right") - 1
    last_positive = np.searchsorted(of_positives, of_positives, side="right") - 1

    def weighted(weights: Float64) -> Float64:
        sorted_weights = weights.take(order, axis=1)
        gained = sorted_weights.take(positives, axis=1)
        hits = np.cumsum(gained, axis=1).take(last_positive, axis=1)
        retrieved = np.cumsum(sorted_weights, axis=1).take(last_row, axis=1)
        precision = np.divide(hits, retrieved, out=np.zeros_like(hits), where=retrieved > 0)
        return _ratio(np.einsum("rn,rn->r", gained, precision), gained.sum(axis=1))

    return weighted


# -- probabilities ---------------------------------------------------------------------------------------


def log_loss(predictions: Predictions) -> Weighted:
    """Mean of -ln p(true class), probabilities kept away from 0 by their dtype's epsilon."""
    probabilities = _probabilities(predictions)
    true = probabilities[np.arange(predictions.num_rows), predictions.y.astype(np.intp)]
    smallest = np.finfo(probabilities.dtype).eps
    return _mean(-np.log(np.clip(true.astype(np.float64), smallest, 1.0)))


def brier(predictions: Predictions) -> Weighted:
    """Mean squared error of the probabilities: the second class if binary, else summed over the classes."""
    errors = _probabilities(predictions).astype(np.float64)
    errors[np.arange(predictions.num_rows), predictions.y.astype(np.intp)] -= 1.0
    if predictions.task is Task.BINARY:
        return _mean(errors[:, 1] ** 2)
    return _mean(np.einsum("nk,nk->n", errors, errors))


def ece(predictions: Predictions) -> Weighted:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, equation 3).

    Confidence is the probability of the second class if binary (it should match how often that class occurs),
    else of the most probable class (it should match how often that class is right).
    """
    probabilities = _probabilities(predictions)
    if predictions.task is Task.BINARY:
        confidence, occurs = probabilities[:, 1].astype(np.float64), predictions.y == 1
    else:
        confidence = probabilities.max(axis=1).astype(np.float64)
        occurs = probabilities.argmax(axis=1) == predictions.y
    bins = np.minimum((confidence * NUM_CALIBRATION_BINS).astype(np.intp), NUM_CALIBRATION_BINS - 1)
    gaps = _spread(confidence - occurs, bins, NUM_CALIBRATION_BINS)

    def weighted(weights: Float64) -> Float64:
        return _ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))

    return weighted


# -- values ----------------------------------------------------------------------------------------------


def rmse(predictions: Predictions) -> Weighted:
    """Root of the mean squared error, in the target's units."""
    mean_square = _mean(_errors(predictions) ** 2)
    return lambda weights: np.sqrt(mean_square(weights))


def mae(predictions: Predictions) -> Weighted:
    """Mean absolute error, in the target's units."""
    return _mean(np.abs(_errors(predictions)))


def r2(predictions: Predictions) -> Weighted:
    """1 - squared error / variance of y: 1 is perfect, 0 as good as the mean of y. NaN if y is constant."""
    y = predictions.y.astype(np.float64)
    centred = y - y.mean()  # keeps the one-pass variance below exact when y is far from 0
    constant = bool((y == y[0]).all())
    mean_square = _mean(_errors(predictions) ** 2)
    first, second = _mean(centred), _mean(centred**2)

    def weighted(weights: Float64) -> Float64:
        variance = np.zeros(len(weights)) if constant else second(weights) - first(weights) ** 2
        return 1.0 - _ratio(mean_square(weights), np.maximum(variance, 0.0))

    return weighted


def mape(predictions: Predictions) -> Weighted:
    """Mean of |error| / max(|y|, mape_epsilon), as a share (0.1 = 10 %); NaN if y holds a zero."""
    size = np.abs(predictions.y.astype(np.float64))
    if not size.all():
        return lambda weights: np.full(len(weights), np.nan)
    return _mean(np.abs(_errors(predictions)) / np.maximum(size, predictions.mape_epsilon))


# -- quantiles -------------------------------------------------------------------------------------------


def pinball(predictions: Predictions) -> Weighted:
    """Mean over rows and quantiles of the pinball loss, in the target's units."""
    found, levels = _quantiles(predictions)
    errors = predictions.y.astype(np.float64)[:, np.newaxis] - found
    return _mean(np.maximum(levels * errors, (levels - 1.0) * errors).mean(axis=1))


def coverage(predictions: Predictions) -> Weighted:
    """Share of rows whose true value is between the outermost quantiles."""
    found, _ = _quantiles(predictions)
    y = predictions.y.astype(np.float64)
    return _mean(((y >= found[:, 0]) & (y <= found[:, -1])).astype(np.float64))


def interval_width(predictions: Predictions) -> Weighted:
    """Mean distance of the outermost quantiles, in the target's units."""
    found, _ = _quantiles(predictions)
    return _mean(found[:, -1] - found[:, 0])


def interval_score(predictions: Predictions) -> Weighted:
    """Width plus what misses it, weighted by how rare misses should be (Gneiting and Raftery 2007, equation 43)."""
    found, levels = _quantiles(predictions)
    y, miss = predictions.y.astype(np.float64), 2.0 / (1.0 - (levels[-1] - levels[0]))
    low, high = found[:, 0], found[:, -1]
    return _mean(high - low + miss * (np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)))


# -- pieces ----------------------------------------------------------------------------------------------


def _probabilities(predictions: Predictions) -> NDArray[np.floating]:
    if predictions.probabilities is None:
        raise ValueError("expected probabilities for this metric, got labels only; pass probabilities=...")
    return predictions.probabilities


def _errors(predictions: Predictions) -> Float64:
    if predictions.values is None:
        raise ValueError("expected a regression for this metric, got a classification; choose another metric")
    return predictions.values.astype(np.float64) - predictions.y.astype(np.float64)


def _quantiles(predictions: Predictions) -> tuple[Float64, Float64]:
    if predictions.quantiles is None:
        raise ValueError("expected quantiles for this metric, got single values; ask for them with --interval 0.9")
    return predictions.quantiles.astype(np.float64), np.asarray(predictions.levels)


def mean_of(statistics: Sequence[Weighted]) -> Weighted:
    """Mean of several statistics, over those that are defined."""
    return lambda weights: _mean_of_defined(np.stack([one(weights) for one in statistics], axis=1))


def _mean(per_row: Float64) -> Weighted:
    return lambda weights: _ratio(weights @ per_row, weights.sum(axis=1))


def _ratio(numerator: Float64, denominator: Float64) -> Float64:
    """Quotient with NaN, and no warning, where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


def _mean_of_defined(columns: Float64) -> Float64:
    """Mean over axis 1 of what is not NaN, `(num_resamples, num_columns)` to `(num_resamples,)`."""
    defined = ~np.isnan(columns)
    return _ratio(np.where(defined, columns, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def _spread(
    per_row: NDArray[np.generic], column: NDArray[np.integer], num_columns: int
) -> scipy.sparse.csr_array:
    """`(num_rows, num_columns)` with one number a row: totals by class or bin become one sparse product."""
    num_rows = len(column)
    return scipy.sparse.csr_array(
        (per_row.astype(np.float64), column, np.arange(num_rows + 1)), shape=(num_rows, num_columns)
    )


def _class_totals(predictions: Predictions) -> Callable[[Float64], tuple[Float64, Float64, Float64]]:
    """Weight of the rows hit, truly of and predicted as each class; each `(num_resamples, num_classes)`."""
    y, predicted, num_classes = predictions.y, predictions.predicted_labels, predictions.num_classes
    ones = np.ones(predictions.num_rows)
    hit_columns = _spread(predicted == y, y.astype(np.intp), num_classes)
    true_columns = _spread(ones, y.astype(np.intp), num_classes)
    predicted_columns = _spread(ones, predicted.astype(np.intp), num_classes)
    return lambda weights: (weights @ hit_columns, weights @ true_columns, weights @ predicted_columns)
