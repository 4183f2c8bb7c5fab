"""Rows in batches for a network that answers them, and its answers beside their targets (TensorFlow)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.evaluation.baselines import EncodedRows
from app.evaluation.predictions import Predictions
from search_spaces.answers import AnswerForm
from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext
from search_spaces.user_space import arrange, input_form

PREDICTION_BATCH = 4096
PREDICTION_PIXELS = 1 << 20
"""Pixels of a batch of images that is answered: with 64 channels of float32 each, 256 MB a layer."""


def feature_specs(features: Mapping[str, tf.Tensor]) -> dict[str, tf.TensorSpec]:
    """Returns the signature of features for any number of rows."""
    return {name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for name, tensor in features.items()}


def prediction_batch(context: TableContext | ImageContext) -> int:
    """Returns how many rows are answered at once: what a network makes of large images takes memory."""
    if not isinstance(context, ImageContext):
        return PREDICTION_BATCH
    return max(16, min(PREDICTION_BATCH, PREDICTION_PIXELS // (context.height * context.width)))


def batches_of(features: Mapping[str, tf.Tensor], num_rows: int, *, size: int) -> Iterator[dict[str, tf.Tensor]]:
    """Yields features in batches of `size` rows, the last one shorter."""
    for start in range(0, num_rows, size):
        yield {name: tensor[start : start + size] for name, tensor in features.items()}


def prediction_function(
    model: keras.Model,
    answers: AnswerForm,
    context: TableContext | ImageContext,
    features: Mapping[str, tf.Tensor],
    *,
    decoded: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
) -> Callable[[dict[str, tf.Tensor]], dict[str, NDArray[Any]]]:
    """Returns what answers a batch of any number of encoded rows; traced once.

    Args:
        model: The network.
        answers: How its output becomes an answer.
        context: What its space was told of the data.
        features: Some of the features, for their names, shapes and types.
        decoded: Turns stored features into what the network takes.
    """
    form = input_form(model)

    @tf.function(autograph=False, input_signature=[feature_specs(features)])
    def predict(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answers.predictions(model(arrange(decoded(features), form, context), training=False))

    return lambda features: {name: tensor.numpy() for name, tensor in predict(features).items()}


def as_predictions(
    parts: list[dict[str, Any]], rows: EncodedRows, answers: AnswerForm, mape_epsilon: float = 0.0
) -> Predictions:
    """Returns what a network answered batch by batch (`AnswerForm.predictions`) beside the targets of the rows."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Predictions(
        task=answers.task,
        y=rows.y,
        probabilities=joined.get("probabilities"),
        labels=joined.get("label_ids"),
        values=joined.get("values"),
        mape_epsilon=mape_epsilon,
        weights=rows.weights,
        quantiles=joined.get("quantiles"),
        levels=answers.quantiles,
        outputs=answers.outputs,
    )
