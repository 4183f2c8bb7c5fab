"""Which rows an epoch sees where classes are balanced by drawing them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.balance import Balance, balanced_rows, epoch_share

LABELS = np.repeat([0, 1, 2], [80, 15, 5])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(1, 300), st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_every_class_has_an_equal_share_and_rows_repeat_only_when_all_were_seen(
    labels: list[int], num_rows: int, seed: int
) -> None:
    classes = np.array(labels)
    rows = balanced_rows(classes, num_rows=num_rows, rng=np.random.default_rng(seed))
    assert len(rows) == num_rows
    counts = np.bincount(classes[rows], minlength=6)[np.unique(classes)]
    assert counts.max() - counts.min() <= 1
    times = np.bincount(rows, minlength=len(classes))
    for label in np.unique(classes):
        seen = times[classes == label]
        assert seen.max() - seen.min() <= 1


def test_an_epoch_of_under_sampling_is_as_long_as_the_rarest_class_allows() -> None:
    counts = np.bincount(LABELS)
    assert epoch_share(counts, Balance.UNDERSAMPLE) == 0.15
    assert epoch_share(counts, Balance.OVERSAMPLE) == 1.0
    drawn = balanced_rows(LABELS, num_rows=15, rng=np.random.default_rng(0))
    assert len(np.unique(drawn)) == 15


def test_batches_are_balanced_the_same_after_a_pause_and_others_in_each_epoch() -> None:
    import tensorflow as tf

    from pipelines.input_pipeline import training_batches

    def rows_of(first_epoch: int, epochs: int) -> np.ndarray:
        batches = training_batches(
            tf.range(100), num_rows=100, batch_size=10, seed=3, first_epoch=first_epoch, labels=LABELS
        )
        return np.stack([batch.numpy() for batch in batches.take(10 * epochs)]).reshape(epochs, 100)

    epochs = rows_of(0, 3)
    np.testing.assert_array_equal(rows_of(2, 1)[0], epochs[2])
    for rows in epochs:
        counts = np.bincount(LABELS[rows])
        assert sorted(counts) == [33, 33, 34]
        # Every rare row is seen before one is seen again, and the frequent ones are seen at most once.
        assert np.bincount(rows, minlength=100)[:80].max() == 1
        assert np.bincount(rows, minlength=100)[95:].min() >= 6
    assert len({tuple(sorted(rows[LABELS[rows] == 0])) for rows in epochs}) == 3
