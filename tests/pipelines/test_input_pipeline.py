from __future__ import annotations

import itertools

import numpy as np
import pytest

NUM_ROWS, BATCH = 23, 5


def epochs(*, seed: int, first_epoch: int = 0, count: int = 3) -> list[np.ndarray]:
    """The row numbers that each epoch visits, (num_steps, batch)."""
    import tensorflow as tf

    from pipelines.input_pipeline import training_batches

    columns = {"row": tf.range(NUM_ROWS), "twice": tf.stack([tf.range(NUM_ROWS) * 2] * 3, axis=1)}
    batches = training_batches(columns, num_rows=NUM_ROWS, batch_size=BATCH, seed=seed, first_epoch=first_epoch)
    steps = NUM_ROWS // BATCH
    found = list(itertools.islice(batches, count * steps))
    for batch in found:
        np.testing.assert_array_equal(batch["twice"].numpy(), 2 * np.stack([batch["row"].numpy()] * 3, axis=1))
    rows = np.array([batch["row"].numpy() for batch in found])
    return list(rows.reshape(count, steps, BATCH))


def test_every_epoch_visits_every_row_once_but_the_dropped_remainder() -> None:
    dropped = []
    for epoch in epochs(seed=1):
        assert len(np.unique(epoch)) == epoch.size == NUM_ROWS // BATCH * BATCH
        dropped.append(frozenset(range(NUM_ROWS)) - set(epoch.ravel().tolist()))
    assert len(set(dropped)) > 1


def test_the_order_differs_by_epoch_and_by_seed_and_repeats() -> None:
    one, two = epochs(seed=1), epochs(seed=2)
    assert (one[0] != one[1]).any()
    assert (one[0] != two[0]).any()
    np.testing.assert_array_equal(one, epochs(seed=1))


@pytest.mark.parametrize("first", [1, 2])
def test_a_later_start_gives_the_batches_of_that_epoch_bit_for_bit(first: int) -> None:
    np.testing.assert_array_equal(epochs(seed=9)[first], epochs(seed=9, first_epoch=first, count=1)[0])


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_that_the_table_cannot_fill_is_refused(batch_size: int) -> None:
    import tensorflow as tf

    from pipelines.input_pipeline import training_batches

    with pytest.raises(ValueError, match=f"batch_size is {batch_size}: expected 1 to 23, the number of rows"):
        training_batches(tf.range(NUM_ROWS), num_rows=NUM_ROWS, batch_size=batch_size, seed=0)
