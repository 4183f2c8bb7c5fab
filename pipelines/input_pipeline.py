"""Encoded rows to training batches (TensorFlow)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.balance import places_of_classes

Change = Callable[[Any, Any], Any]
"""A batch and a seed (2,) int64 of its own -> the batch as it is trained on."""

as_written: Callable[[Callable[..., Any]], Callable[..., Any]] = tf.autograph.experimental.do_not_convert
"""What a dataset calls is traced as it stands. By default its source, and that of all it calls, is translated first so
that Python's `if` and `for` may depend on tensors, which takes seconds in a fresh process and is not needed here."""

_KEY_OF_CHANGES, _KEY_OF_ORDER = 1, 2


def training_batches(
    columns: Any,
    *,
    num_rows: int,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    steps: int | None = None,
    change: Change | None = None,
    labels: NDArray[np.integer] | None = None,
) -> tf.data.Dataset:
    """Returns an endless stream of batches that are a function of seed and epoch alone.

    Every epoch visits the rows in a fresh order drawn from ``(seed, epoch)``, so a trial that was paused, or killed,
    after epoch ``k`` goes on with ``first_epoch=k`` and sees exactly the batches that it would have seen. The last
    partial batch of an epoch is dropped: a batch of two rows would ruin batch statistics, and under a strategy all
    replicas need equal batches. The next epoch draws other rows to drop.

    Args:
        columns: Structure of tensors ``(num_rows, ...)`` held in memory.
        num_rows: Number of rows; at least `batch_size`.
        batch_size: Rows of a batch, over all replicas.
        seed: Seed of the order, in [0, 2**31).
        first_epoch: Epochs already trained.
        steps: Batches that make an epoch, at most ``num_rows // batch_size``; None takes as many.
        labels: Class ids ``(num_rows,)`` of which every epoch sees equal shares; None for every row once.
        change: What is done to every batch, such as the decoding and augmentation of images; None for nothing.

    Returns:
        Batches in the structure of `columns`, or in that of what `change` returns.

    Raises:
        ValueError: There are fewer rows than a batch has; the stream would never yield anything.
    """
    if not 1 <= batch_size <= num_rows:
        raise ValueError(f"batch_size is {batch_size}: expected 1 to {num_rows}, the number of rows")
    steps = num_rows // batch_size if steps is None else steps

    places = None if labels is None else tf.constant(places_of_classes(labels, steps * batch_size))

    def rows_of_epoch(key: tf.Tensor) -> tf.Tensor:
        if places is None:
            return tf.random.experimental.stateless_shuffle(tf.range(num_rows), seed=key)
        # Rows in the order of their classes, and by chance within each: the number is below 1.
        within = tf.random.stateless_uniform((num_rows,), seed=key, dtype=tf.float64)
        by_class = tf.argsort(tf.constant(labels, tf.float64) + within, stable=True)
        again = tf.random.experimental.stateless_fold_in(key, _KEY_OF_ORDER)
        return tf.random.experimental.stateless_shuffle(tf.gather(by_class, places), seed=again)

    def batches_of_row_numbers(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = rows_of_epoch(key)
        chosen = tf.reshape(order[: steps * batch_size], (steps, batch_size))
        # The seeds of changes follow from seed, epoch and step alone, as the order does.
        own = tf.random.experimental.stateless_fold_in(key, _KEY_OF_CHANGES)
        return tf.data.Dataset.from_tensor_slices((chosen, tf.random.split(own, steps)))

    # Row numbers are shuffled, not rows: the buffer is the whole table, and it costs four bytes a row.
    row_numbers = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(as_written(batches_of_row_numbers))
    # A whole batch is gathered at once; batching single rows costs a hundred times more.
    def batch_of(rows: tf.Tensor, key: tf.Tensor) -> Any:
        batch = tf.nest.map_structure(lambda column: tf.gather(column, rows), columns)
        return batch if change is None else change(batch, key)

    # Changes are work, which all cores share; the order of the batches stays.
    parallel = None if change is None else os.cpu_count()
    batches = row_numbers.map(as_written(batch_of), num_parallel_calls=parallel)
    options = tf.data.Options()
    options.deterministic = True
    # One host reads the whole table from memory: there are no files to shard.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Nothing here has a degree of parallelism to tune, and the tuner's thread makes an iterator slow to let go of.
    options.autotune.enabled = False
    # Two batches are enough for gathering to overlap with the training step.
    return batches.prefetch(2).with_options(options)
