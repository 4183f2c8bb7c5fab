"""Temperature scaling: one number that makes probabilities neither too sure nor too shy (NumPy and SciPy).

Guo, Pleiss, Sun and Weinberger, *On calibration of modern neural networks* (ICML 2017), equation 9, applied to
log-probabilities: a softmax of logits divided by the temperature. The order of two classes never changes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from app.evaluation.predictions import Predictions

LEAST_PROBABILITY = 1e-30
"""Where a probability is 0 in float32; the exported graph does the same."""

PRIOR_SCALE = 0.5
"""Standard deviation of the log-temperature before any row was seen. On few rows that are all answered right, the most
likely temperature is 0 and every answer would be certain; this departs from the paper, and fades with the rows."""

MAX_LOG_TEMPERATURE = 2.0


def tempered(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities at another temperature.

    Args:
        probabilities: `(num_rows, num_classes)`, rows summing to 1.
        temperature: above 0; more than 1 makes them less sure.
    """
    scores = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY)) / temperature
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(predictions: Predictions) -> float:
    """The temperature with the least log loss, held near 1 where rows are few; 1 for a regression.

    Args:
        predictions: on rows that the networks did not learn from.
    """
    if predictions.probabilities is None:
        return 1.0
    y = predictions.y.astype(np.intp)
    logs = np.log(np.maximum(predictions.probabilities.astype(np.float64), LEAST_PROBABILITY))
    weights = predictions.row_weights / predictions.row_weights.mean()

    def loss(log_temperature: float) -> float:
        scores = logs / math.exp(log_temperature)
        scores = scores - scores.max(axis=1, keepdims=True)
        true = scores[np.arange(len(y)), y] - np.log(np.exp(scores).sum(axis=1))
        return float(-(weights * true).sum()) + 0.5 * (log_temperature / PRIOR_SCALE) ** 2

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    return float(math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))
