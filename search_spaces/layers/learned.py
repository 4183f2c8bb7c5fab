"""Layers that learn something of the training rows before the first step, as Keras' Normalization does.

What is learned is held in weights, so it is saved with the model, travels into the SavedModel, and is put back with
the rest of a trial's state. Its shape is known beforehand: the same graph serves other rows, such as those of the
next fold, after `learn_layers`.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from search_spaces.context import MAX_SAMPLE_ROWS, TableSample

Array = NDArray[Any]


class LearnedLayer(keras.layers.Layer, abc.ABC):
    """A layer with a state that is learned from rows and not by gradient.

    Computes in float32 whatever the policy, up to where its output is rounded: bins and quantiles closer to each
    other than float16 can tell would coincide.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    @abc.abstractmethod
    def learn(self, rows: Array, target: Array | None = None) -> None:
        """Learns the state from rows in memory and forgets an earlier one.

        Args:
            rows: What the layer is going to be called on, ``(num_rows, ...)``; NaN is a missing value.
            target: (num_rows, width): integer class ids, or float values; None where the layer needs none.
        """

    def adapt(self, data: Any, *, max_rows: int = MAX_SAMPLE_ROWS, seed: int = 0) -> None:
        """Learns the state from a dataset of any length, in one pass and with bounded memory.

        Args:
            data: A `tf.data.Dataset` of batches ``rows`` or ``(rows, target, ...)``, or an array of rows.
            max_rows: Rows kept; beyond them a uniform sample of the dataset is.
            seed: Chooses the sample.

        Raises:
            ValueError: The dataset has no rows.
        """
        rows, target = sampled_rows(data, max_rows=max_rows, seed=seed)
        if not self.built:
            self.build((None, *rows.shape[1:]))
        self.learn(rows, target)


def learn_layers(model: keras.Model, sample: TableSample) -> None:
    """Lets every `LearnedLayer` of a functional model learn, each from what the layers before it make of a sample.

    Args:
        model: Has inputs called ``numeric`` and ``categorical``, or one of them; its learned layers stand in the graph
            itself and not inside other layers.
        sample: Encoded training rows.
    """
    # Keras keeps the layers of a functional model in an order in which inputs come before what is made of them.
    for layer in model.layers:
        if isinstance(layer, LearnedLayer):
            before = keras.Model(model.inputs, layer.input)
            names = [tensor.name for tensor in before.inputs]
            inputs = {name: tf.constant(sample.features[name]) for name in names}
            layer.learn(np.asarray(before(inputs, training=False)), sample.target)


def sampled_rows(data: Any, *, max_rows: int, seed: int) -> tuple[Array, Array | None]:
    """Returns the rows of a dataset with their targets, or a uniform sample of `max_rows` of them.

    Every row draws a number, and those with the smallest numbers stay: a sample without replacement, in one pass.

    Args:
        data: A `tf.data.Dataset` of batches ``rows`` or ``(rows, target, ...)``, or an array of rows.
        max_rows: Rows kept.
        seed: Chooses them.

    Raises:
        ValueError: The dataset has no rows.
    """
    if not isinstance(data, tf.data.Dataset):
        data = [np.asarray(data)]
    rng = np.random.default_rng(seed)
    kept: list[Array] = []
    for batch in data:
        parts = list(batch[:2]) if isinstance(batch, (tuple, list)) else [batch]
        arrays = [np.asarray(part) for part in parts]
        columns = [rng.random(len(arrays[0])), *arrays]
        kept = [np.concatenate(pair) for pair in zip(kept, columns, strict=True)] if kept else columns
        if len(kept[0]) > 2 * max_rows:
            kept = _smallest(kept, max_rows)
    if not kept or not len(kept[0]):
        raise ValueError("the dataset to adapt to has no rows: expected at least one batch of rows")
    if len(kept[0]) > max_rows:
        kept = _smallest(kept, max_rows)
    return kept[1], kept[2] if len(kept) > 2 else None


def _smallest(columns: list[Array], num_rows: int) -> list[Array]:
    chosen = np.sort(np.argpartition(columns[0], num_rows - 1)[:num_rows])
    return [column[chosen] for column in columns]


def present(x: Any) -> Any:
    """Returns numbers as float32 with 0, the middle of standardised values, for missing ones (NaN)."""
    x = ops.cast(x, "float32")
    return ops.where(ops.isnan(x), 0.0, x)


def without_missing(column: Array) -> Array:
    """Returns the finite values of a column as float64."""
    values = np.asarray(column, np.float64)
    return values[np.isfinite(values)]
