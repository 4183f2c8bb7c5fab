"""Training batches from encoded rows that stay on disk (TensorFlow).

The rows of a file are cut into blocks. An epoch draws the blocks in a fresh order, reads some dozens of them at once (a
window), shuffles the rows of the window, and cuts it into batches. How good a shuffle that is depends on what lies in
a block: `app.training.stored_encoding` deals the rows to the blocks like cards, so that each holds rows from all over
the table. A window is then about a uniform sample without replacement, and two rows of one block meet within a window.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.balance import balanced_rows
from pipelines.input_pipeline import Change, as_written

BLOCK_ROWS = 4_096
WINDOW_BLOCKS = 32
"""Blocks that are shuffled together: 131,072 rows, some 12 MB of a table with 20 columns."""

_KEY_OF_WINDOWS, _KEY_OF_CHANGES = 2, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """A matrix on disk, row after row, as NumPy's .npy files hold it.

    Attributes:
        path: The file.
        offset: Bytes before the first row.
        width: Numbers of a row, at least 1.
        dtype: Type of a number.
    """

    path: Path
    offset: int
    width: int
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Encoded rows on disk.

    Attributes:
        files: Name of the features to their file; each holds at least `num_rows` rows.
        num_rows: Rows that are trained on, the first ones.
        block_rows: Rows of a block, about.
        window_blocks: Blocks of a window.
    """

    files: Mapping[str, ShardFile]
    num_rows: int
    block_rows: int = BLOCK_ROWS
    window_blocks: int = WINDOW_BLOCKS

    @property
    def num_windows(self) -> int:
        """Windows of an epoch."""
        return max(1, -(-self.num_rows // (self.block_rows * self.window_blocks)))

    @property
    def num_blocks(self) -> int:
        """Blocks of an epoch; all windows have the same number of them, and blocks differ by one row at most."""
        return min(self.num_windows * self.window_blocks, self.num_rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassDraw:
    """Rows drawn by class: every window gives equal shares of the classes that it has.

    Attributes:
        labels: Class ids ``(num_rows,)``.
        share: Rows that an epoch sees as a share of those there are, in (0, 1].
    """

    labels: NDArray[np.integer]
    share: float


def shard_batches(
    shards: Shards,
    beside: tuple[Any, ...] = (),
    *,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    steps: int | None = None,
    change: Change | None = None,
    draw: ClassDraw | None = None,
) -> tf.data.Dataset:
    """Returns an endless stream of batches that are a function of seed and epoch alone, as `training_batches` does.

    A trial that goes on with ``first_epoch=k`` sees exactly the batches that it would have seen, and any number of
    threads gives the same ones.

    Args:
        shards: The features.
        beside: Tensors ``(num_rows, ...)`` in memory, such as target and weights.
        batch_size: Rows of a batch, over all replicas.
        seed: Seed of the order, in [0, 2**31).
        first_epoch: Epochs already trained.
        steps: Batches that make an epoch, at most ``num_rows // batch_size``, or the share of them that a draw has;
            None takes as many.
        change: What is done to every batch; None for nothing.
        draw: Which rows an epoch sees; None for every row once.

    Returns:
        Batches ``(features, *beside)``, or what `change` makes of them.

    Raises:
        ValueError: There are fewer rows than a batch has; the stream would never yield anything.
    """
    if not 1 <= batch_size <= shards.num_rows:
        raise ValueError(f"batch_size is {batch_size}: expected 1 to {shards.num_rows}, the number of rows")
    if steps is None:
        steps = int(shards.num_rows * (1.0 if draw is None else draw.share)) // batch_size
    per_window = shards.num_blocks // shards.num_windows

    def window_of(blocks: tf.Tensor, key: tf.Tensor) -> tuple[Any, ...]:
        return _window(shards, beside, draw, blocks, key)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        blocks = tf.random.experimental.stateless_shuffle(tf.range(shards.num_blocks, dtype=tf.int64), seed=key)
        windows = tf.reshape(blocks[: shards.num_windows * per_window], (shards.num_windows, per_window))
        keys = tf.random.split(tf.random.experimental.stateless_fold_in(key, _KEY_OF_WINDOWS), shards.num_windows)
        rows = tf.data.Dataset.from_tensor_slices((windows, keys))
        # Reading a window is the slow part, so the next one is read while this one is trained on; two are in memory.
        rows = rows.map(as_written(window_of), num_parallel_calls=2)
        # Whole windows are cut and joined; batching single rows costs a hundred times more.
        batches = rows.rebatch(batch_size, drop_remainder=True).take(steps)
        own = tf.random.experimental.stateless_fold_in(key, _KEY_OF_CHANGES)
        return tf.data.Dataset.zip(batches, tf.data.Dataset.from_tensor_slices(tf.random.split(own, steps)))

    batches = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(as_written(epoch_batches))
    batches = batches.map(
        as_written(lambda batch, own: batch if change is None else change(batch, own)),
        num_parallel_calls=None if change is None else os.cpu_count(),
    )
    options = tf.data.Options()
    options.deterministic = True
    # Every host has all blocks, and every replica gets its part of each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # As in `training_batches`: nothing to tune, and two batches are enough.
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def _window(
    shards: Shards, beside: tuple[Any, ...], draw: ClassDraw | None, blocks: tf.Tensor, key: tf.Tensor
) -> tuple[Any, ...]:
    """Returns the rows of some blocks, or those that are drawn of them, in a fresh order."""
    starts = blocks * shards.num_rows // shards.num_blocks
    sizes = (blocks + 1) * shards.num_rows // shards.num_blocks - starts
    numbers = tf.ragged.range(starts, starts + sizes).flat_values
    if draw is None:
        order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(numbers)), seed=key)
    else:
        order = _drawn(draw, numbers, key)
    features = {name: tf.gather(_rows(file, starts, sizes), order) for name, file in shards.files.items()}
    numbers = tf.gather(numbers, order)
    return features, *(tf.gather(tensor, numbers) for tensor in beside)


def _drawn(draw: ClassDraw, numbers: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Returns which of the rows with these numbers are trained on, in a fresh order; some of them repeatedly."""

    # A window holds rows from all over the table, so equal shares of each window are equal shares of the epoch.
    def read(numbers: NDArray[np.int64], key: NDArray[np.int64]) -> NDArray[np.int64]:
        rng = np.random.default_rng(key.astype(np.int64).view(np.uint64))
        rows = balanced_rows(draw.labels[numbers], num_rows=math.ceil(len(numbers) * draw.share), rng=rng)
        return rows.astype(np.int64)

    return tf.ensure_shape(tf.numpy_function(read, (numbers, key), tf.int64, stateful=False), (None,))


def _rows(file: ShardFile, starts: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Returns ``sizes[k]`` rows from row ``starts[k]`` on, one after another, each stretch read in one piece."""

    # One call reads all stretches: as operations of the graph they would be dozens a file, and seconds to trace.
    def read(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[Any]:
        rows = np.empty((sizes.sum(), file.width), file.dtype)
        place = 0
        with open(file.path, "rb") as stream:
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                stream.seek(file.offset + start * file.row_bytes)
                if stream.readinto(rows[place : place + size].data.cast("B")) < size * file.row_bytes:
                    raise OSError(f"{file.path} ends before row {start + size}: expected {size} rows from {start} on")
                place += size
        return rows

    rows = tf.numpy_function(read, (starts, sizes), tf.as_dtype(file.dtype), stateful=False)
    return tf.ensure_shape(rows, (None, file.width))
