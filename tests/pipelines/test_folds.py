from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.schema import TargetSpec, Task
from pipelines.splits import ALWAYS_TRAINS, assign_folds, fold_rows

CLASSES = TargetSpec("y", task=Task.MULTICLASS, classes=("a", "b", "c"))
NUMBER = TargetSpec("y", task=Task.REGRESSION)


def _table(num_rows: int, *, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.integers(0, 10**6, num_rows),
            "y": np.array(["a", "b", "c"])[np.arange(num_rows) % 7 % 3],
            "who": rng.integers(0, max(8, num_rows // 10), num_rows),
            "when": rng.permutation(num_rows),
        }
    )


def test_every_class_is_dealt_evenly() -> None:
    table = _table(700)
    folds = assign_folds(table, CLASSES, seed=1, num_folds=5)
    for label in "abc":
        sizes = np.bincount(folds[np.array(table["y"].to_pylist()) == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_every_tenth_of_a_number_is_dealt_evenly() -> None:
    values = np.random.default_rng(0).normal(size=1_000)
    folds = assign_folds(pa.table({"x": np.arange(1_000), "y": values}), NUMBER, seed=1, num_folds=5)
    for tenth in np.array_split(np.argsort(values), 10):
        sizes = np.bincount(folds[tenth], minlength=5)
        assert sizes.max() - sizes.min() <= 3


@settings(deadline=None, max_examples=25)
@given(st.integers(100, 300), st.integers(0, 2**32 - 1), st.sampled_from([None, "x"]), st.integers(2, 6))
def test_a_row_keeps_its_fold_however_the_table_is_ordered(
    num_rows: int, seed: int, group: str | None, num_folds: int
) -> None:
    table = _table(num_rows, seed=seed % 100)
    order = np.random.default_rng(seed).permutation(num_rows)
    folds = assign_folds(table, CLASSES, seed=seed, num_folds=num_folds, group=group)
    again = assign_folds(table.take(pa.array(order)), CLASSES, seed=seed, num_folds=num_folds, group=group)
    np.testing.assert_array_equal(folds[order], again)


def test_seed_decides_the_folds() -> None:
    table = _table(500)
    first = assign_folds(table, CLASSES, seed=1, num_folds=5)
    assert (first != assign_folds(table, CLASSES, seed=2, num_folds=5)).mean() > 0.5


def test_equal_rows_and_groups_stay_in_one_fold() -> None:
    table = pa.concat_tables([_table(200)] * 3)
    folds = assign_folds(table, CLASSES, seed=3, num_folds=4)
    np.testing.assert_array_equal(folds[:200], folds[200:400])
    table = _table(400)
    folds = assign_folds(table, CLASSES, seed=3, num_folds=4, group="who")
    who = table["who"].to_numpy()
    assert all(np.unique(folds[who == person]).size == 1 for person in np.unique(who))


def test_the_only_row_of_a_class_always_trains() -> None:
    labels = ["a", "b"] * 50 + ["c"]
    table = pa.table({"x": np.arange(101), "y": labels})
    folds = assign_folds(table, CLASSES, seed=1, num_folds=5)
    assert folds[-1] == ALWAYS_TRAINS
    for fold in range(5):
        training, held_out = fold_rows(folds, fold, in_time=False)
        assert 100 in training
        assert 100 not in held_out


def test_the_group_that_has_all_of_a_class_trains_whole() -> None:
    labels = np.where(np.arange(200) < 5, "c", np.where(np.arange(200) % 2 == 0, "a", "b"))
    table = pa.table({"x": np.arange(200), "y": labels, "who": np.arange(200) // 10})
    folds = assign_folds(table, CLASSES, seed=1, num_folds=4, group="who")
    assert (folds[:10] == ALWAYS_TRAINS).all()
    assert (folds[10:] != ALWAYS_TRAINS).all()


def test_a_fold_holds_out_its_rows_and_trains_on_the_others() -> None:
    folds = assign_folds(_table(100), CLASSES, seed=1, num_folds=5)
    seen = []
    for fold in range(5):
        training, held_out = fold_rows(folds, fold, in_time=False)
        assert sorted([*training, *held_out]) == list(range(100))
        seen += list(held_out)
    assert sorted(seen) == list(range(100))


def test_windows_of_time_are_trained_on_what_came_before_them() -> None:
    table = _table(300)
    folds = assign_folds(table, CLASSES, seed=1, num_folds=4, time_column="when")
    when = table["when"].to_numpy()
    sizes = []
    for fold in range(4):
        training, held_out = fold_rows(folds, fold, in_time=True)
        assert when[training].max() < when[held_out].min()
        assert when[held_out].max() - when[held_out].min() + 1 == len(held_out) == 60
        sizes.append(len(training))
    assert sizes == [60, 120, 180, 240]


def test_too_few_rows_groups_or_times_are_refused() -> None:
    few = pa.table({"x": [1, 2, 3], "y": [1.0, 2.0, 3.0], "who": [1, 1, 2], "when": [1, 1, 2]})
    with pytest.raises(DataError, match=r"each of 5 folds, but 3 distinct rows leave one empty; ask for fewer folds"):
        assign_folds(few, NUMBER, seed=1, num_folds=5)
    with pytest.raises(DataError, match=r"each of 3 folds, but 2 groups in 'who' leave one empty"):
        assign_folds(few, NUMBER, seed=1, num_folds=3, group="who")
    with pytest.raises(DataError, match=r"each of 2 folds, but 2 distinct times in 'when' leave one empty"):
        assign_folds(few, NUMBER, seed=1, num_folds=2, time_column="when")


def test_a_class_that_appears_in_a_later_window_is_refused() -> None:
    labels = ["a", "b"] * 40 + ["c"] * 20
    table = pa.table({"when": np.arange(100), "y": labels})
    message = r"'c' of 'y' occurs first in window 5; ask for fewer folds, or for 1"
    with pytest.raises(DataError, match=message):
        assign_folds(table, CLASSES, seed=1, num_folds=4, time_column="when")
