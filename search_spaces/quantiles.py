"""Quantiles that cannot cross: the middle one, and steps up and down from it that are never negative (Keras)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def rising(raw: Any, quantiles: Sequence[float]) -> Any:
    """Returns values that rise along the last axis.

    The output nearest to the median is taken as it is; each further one is the logarithm of a step, by the softplus,
    away from its neighbour towards the median (in the manner of Park et al., AISTATS 2022, "Learning quantile functions
    without quantile crossing").

    Args:
        raw: Outputs of a network, ``(..., num_quantiles)``.
        quantiles: The levels, rising, each in (0, 1).
    """
    middle = middle_of(quantiles)
    columns = [raw[..., index : index + 1] for index in range(len(quantiles))]
    placed: dict[int, Any] = {middle: columns[middle]}
    for index in range(middle + 1, len(quantiles)):
        placed[index] = placed[index - 1] + ops.softplus(columns[index])
    for index in range(middle - 1, -1, -1):
        placed[index] = placed[index + 1] - ops.softplus(columns[index])
    return ops.concatenate([placed[index] for index in range(len(quantiles))], axis=-1)


def middle_of(quantiles: Sequence[float]) -> int:
    """Returns the place of the quantile that is nearest to the median.

    Args:
        quantiles: The levels, rising.
    """
    return int(np.argmin(np.abs(np.asarray(quantiles) - 0.5)))


@keras.saving.register_keras_serializable(package="tamiz")
class PinballLoss(keras.losses.Loss):
    """The mean over the quantiles of the pinball loss ``max(q * e, (q - 1) * e)`` of the error e (Koenker, 1978).

    It takes the raw outputs that `rising` turns into quantiles, as other losses take logits.

    Args:
        quantiles: The levels, rising, each in (0, 1).

    Shapes:
        ``y_true`` (batch, 1), ``y_pred`` (batch, num_quantiles) raw outputs; the loss is a scalar.
    """

    def __init__(self, quantiles: Sequence[float], name: str = "pinball", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.quantiles = tuple(map(float, quantiles))
        if list(self.quantiles) != sorted(set(self.quantiles)) or not all(0.0 < q < 1.0 for q in self.quantiles):
            raise ValueError(f"quantiles are {self.quantiles}: expected rising levels between 0 and 1")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of every row, ``(batch,)``."""
        return pinball(ops.cast(y_true, y_pred.dtype), rising(y_pred, self.quantiles), self.quantiles)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same loss."""
        return {**super().get_config(), "quantiles": self.quantiles}


def pinball(truth: Any, found: Any, quantiles: Sequence[float]) -> Any:
    """Returns the mean over the quantiles of the pinball loss, ``(...)``.

    Args:
        truth: ``(..., 1)``.
        found: ``(..., num_quantiles)``.
        quantiles: The levels.
    """
    error = truth - found
    level = ops.cast(ops.convert_to_tensor(quantiles), found.dtype)
    return ops.mean(ops.maximum(level * error, (level - 1.0) * error), axis=-1)
