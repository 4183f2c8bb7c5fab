"""Rows in batches for a network that answers them (TensorFlow)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import tensorflow as tf

from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext

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
