from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

NUM_ROWS, BATCH = 1_003, 20


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from pipelines.shards import ShardFile, Shards

    folder = tmp_path_factory.mktemp("shards")
    rows = np.arange(NUM_ROWS)
    files = {}
    for name, dtype, width in (("numeric", np.float32, 3), ("categorical", np.int32, 2)):
        array = (rows[:, np.newaxis] * 10 + np.arange(width)).astype(dtype)
        np.save(folder / f"{name}.npy", array)
        offset = np.load(folder / f"{name}.npy", mmap_mode="r").offset
        files[name] = ShardFile(path=folder / f"{name}.npy", offset=offset, width=width, dtype=array.dtype)
    return Shards(files=files, num_rows=NUM_ROWS, block_rows=32, window_blocks=4)


def epochs(shards: Any, *, seed: int = 3, first_epoch: int = 0, num: int = 2) -> list[np.ndarray]:
    """The row numbers of each epoch, in order, after a check that everything beside them is of the same rows."""
    import tensorflow as tf

    from pipelines.shards import shard_batches

    target = tf.range(NUM_ROWS)
    batches = shard_batches(shards, (target,), batch_size=BATCH, seed=seed, first_epoch=first_epoch)
    steps = NUM_ROWS // BATCH
    found = []
    for features, rows in islice(batches.as_numpy_iterator(), num * steps):
        assert np.array_equal(features["numeric"], rows[:, np.newaxis] * 10.0 + np.arange(3))
        assert np.array_equal(features["categorical"], rows[:, np.newaxis] * 10 + np.arange(2))
        found.append(rows)
    return [np.concatenate(found[epoch * steps : (epoch + 1) * steps]) for epoch in range(num)]


def test_an_epoch_has_every_row_once_but_those_of_the_last_partial_batch(shards: Any) -> None:
    first, second = epochs(shards)
    for rows in (first, second):
        assert len(set(rows.tolist())) == NUM_ROWS // BATCH * BATCH
    assert not np.array_equal(first, second)
    assert set(first.tolist()) != set(second.tolist())  # others are left out


def test_a_stream_goes_on_where_another_one_was_left(shards: Any) -> None:
    assert np.array_equal(epochs(shards, num=3)[2], epochs(shards, first_epoch=2, num=1)[0])
    assert not np.array_equal(epochs(shards, num=1)[0], epochs(shards, seed=4, num=1)[0])


def test_rows_of_a_block_are_spread_over_a_window(shards: Any) -> None:
    (rows,) = epochs(shards, num=1)
    window = rows[: shards.block_rows * shards.window_blocks // 2]
    starts = np.arange(shards.num_blocks) * NUM_ROWS // shards.num_blocks
    assert len(np.unique(np.searchsorted(starts, window, side="right"))) == shards.window_blocks
    assert (np.abs(np.diff(window)) > 1).mean() > 0.9


def test_what_is_done_to_a_batch_depends_on_its_epoch_and_place_alone(shards: Any) -> None:
    from pipelines.shards import shard_batches

    def keys(first_epoch: int) -> list[tuple[int, ...]]:
        def key_alone(_: Any, key: Any) -> Any:
            return key

        batches = shard_batches(
            shards, batch_size=BATCH, seed=1, first_epoch=first_epoch, steps=4, change=key_alone
        )
        return [tuple(key.tolist()) for key in islice(batches.as_numpy_iterator(), 8)]

    assert keys(0)[4:] == keys(1)[:4]
    assert len(set(keys(0))) == 8


@pytest.mark.parametrize(("share", "steps"), [(1.0, 50), (0.3, 15)])
def test_rows_that_are_drawn_by_class_have_equal_shares_of_each(shards: Any, share: float, steps: int) -> None:
    import tensorflow as tf

    from pipelines.shards import ClassDraw, shard_batches

    labels = np.random.default_rng(0).choice(3, size=NUM_ROWS, p=[0.6, 0.3, 0.1])

    def drawn(first_epoch: int, num: int) -> list[np.ndarray]:
        batches = shard_batches(
            shards,
            (tf.range(NUM_ROWS),),
            batch_size=BATCH,
            seed=3,
            first_epoch=first_epoch,
            draw=ClassDraw(labels=labels, share=share),
        )
        found = []
        for features, rows in islice(batches.as_numpy_iterator(), num * steps):
            assert np.array_equal(features["numeric"][:, 0], rows * 10.0)
            found.append(rows)
        return [np.concatenate(found[epoch * steps : (epoch + 1) * steps]) for epoch in range(num)]

    first, second = drawn(0, 2)
    for rows in (first, second):
        # Each window rounds, and the last batch of an epoch is cut off.
        counts = np.bincount(labels[rows], minlength=3)
        assert counts.sum() == steps * BATCH
        assert counts.max() - counts.min() <= BATCH + shards.num_windows
    assert not np.array_equal(first, second)
    assert np.array_equal(drawn(1, 1)[0], second)


@pytest.mark.parametrize("batch_size", [0, NUM_ROWS + 1])
def test_a_batch_of_more_rows_than_there_are_is_refused(shards: Any, batch_size: int) -> None:
    from pipelines.shards import shard_batches

    with pytest.raises(ValueError, match=f"batch_size is {batch_size}: expected 1 to {NUM_ROWS}"):
        shard_batches(shards, batch_size=batch_size, seed=0)
