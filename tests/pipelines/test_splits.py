from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import splits as splits_module
from pipelines.errors import DataError
from pipelines.schema import TargetSpec, Task
from pipelines.splits import Split, assign_splits

CLASSES = TargetSpec("y", task=Task.MULTICLASS, classes=("a", "b", "c"))
NUMBER = TargetSpec("y", task=Task.REGRESSION)


def _table(num_rows: int, *, seed: int = 0, num_values: int = 10**6) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.integers(0, num_values, num_rows),
            "name": rng.choice(["p", "q", "r"], num_rows),
            "y": np.array(["a", "b", "c"])[np.arange(num_rows) % 7 % 3],
            "who": rng.integers(0, max(4, num_rows // 10), num_rows),
            "when": rng.integers(0, num_rows, num_rows),
        }
    )


def _shares(splits: np.ndarray) -> np.ndarray:
    return np.bincount(splits, minlength=3) / splits.size


def test_every_class_gets_the_shares() -> None:
    table = _table(2_000)
    splits = assign_splits(table, CLASSES, seed=1)
    assert splits.dtype == np.int8
    for label in "abc":
        chosen = splits[np.array(table["y"].to_pylist()) == label]
        np.testing.assert_allclose(_shares(chosen), [0.7, 0.15, 0.15], atol=0.005)


def test_numbers_are_stratified_by_deciles() -> None:
    values = np.random.default_rng(0).normal(size=1_000)
    table = pa.table({"x": np.arange(1_000), "y": values})
    splits = assign_splits(table, NUMBER, seed=1, validation_share=0.2, test_share=0.1)
    for decile in np.array_split(np.argsort(values), 10):
        np.testing.assert_allclose(_shares(splits[decile]), [0.7, 0.2, 0.1], atol=0.015)


def test_seed_decides_the_split() -> None:
    table = _table(500)
    first = assign_splits(table, CLASSES, seed=1)
    np.testing.assert_array_equal(first, assign_splits(table, CLASSES, seed=1))
    assert (first != assign_splits(table, CLASSES, seed=2)).mean() > 0.2
    assert (first != assign_splits(table, CLASSES, seed=-1)).mean() > 0.2


@settings(deadline=None, max_examples=25)
@given(st.integers(30, 300), st.integers(0, 2**32 - 1), st.sampled_from([None, "who"]), st.integers(12, 2_000))
def test_split_does_not_depend_on_the_order_of_rows_columns_or_chunks(
    num_rows: int, seed: int, group: str | None, num_values: int
) -> None:
    table = _table(num_rows, seed=seed % 1_000, num_values=num_values)
    splits = assign_splits(table, CLASSES, seed=seed, group=group)
    order = np.random.default_rng(seed).permutation(num_rows)
    moved = pa.concat_tables([table.take(order[:7]), table.take(order[7:])]).select(["who", "y", "when", "x", "name"])
    np.testing.assert_array_equal(assign_splits(moved, CLASSES, seed=seed, group=group), splits[order])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(20, 60))
def test_identical_rows_stay_together(seed: int, num_values: int) -> None:
    table = _table(400, seed=seed, num_values=num_values).select(["x", "y"])
    splits = assign_splits(table, CLASSES, seed=seed)
    homes: dict[tuple[object, ...], set[int]] = {}
    for row, split in zip(table.to_pylist(), splits.tolist(), strict=True):
        homes.setdefault(tuple(row.values()), set()).add(split)
    assert all(len(home) == 1 for home in homes.values())


def test_the_same_rows_of_other_types_split_alike() -> None:
    table = _table(300)
    other = table.set_column(0, "x", table["x"].cast(pa.float64()))
    np.testing.assert_array_equal(assign_splits(table, CLASSES, seed=3), assign_splits(other, CLASSES, seed=3))


@pytest.mark.parametrize("num_rows", [3, 4, 5, 6, 7])
def test_a_small_class_is_in_every_split(num_rows: int) -> None:
    labels = ["a"] * num_rows + ["b"] * 100 + ["c"] * 100
    table = pa.table({"x": np.arange(len(labels)), "y": labels})
    for seed in range(10):
        splits = assign_splits(table, CLASSES, seed=seed)
        assert set(splits[:num_rows]) == {0, 1, 2}


def test_classes_of_one_distinct_row_train() -> None:
    table = pa.table({"x": [1.0] * 50 + list(range(50)), "y": ["a"] * 50 + ["b"] * 50})
    splits = assign_splits(table, CLASSES, seed=0)
    assert set(splits[:50]) == {Split.TRAIN}
    assert set(splits[50:]) == {0, 1, 2}


def test_groups_stay_together_and_missing_groups_stand_alone() -> None:
    table = _table(2_000)
    who = pa.array([None if value == 0 else str(value) for value in table["who"].to_pylist()])
    table = table.set_column(3, "who", who)
    splits = assign_splits(table, CLASSES, seed=5, group="who")
    homes: dict[str, set[int]] = {}
    for value, split in zip(who.to_pylist(), splits.tolist(), strict=True):
        if value is not None:
            homes.setdefault(value, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())
    np.testing.assert_allclose(_shares(splits), [0.7, 0.15, 0.15], atol=0.03)


def test_a_class_of_one_group_trains() -> None:
    who = np.repeat(np.arange(20), 5)
    table = pa.table({"x": np.arange(100), "who": who, "y": np.where(who == 3, "a", "b")})
    for seed in range(20):
        assert set(assign_splits(table, CLASSES, seed=seed, group="who")[who == 3]) == {Split.TRAIN}


@pytest.mark.parametrize("kind", ["number", "timestamp", "text"])
def test_time_orders_the_splits_and_ties_stay_together(kind: str) -> None:
    table = _table(700)
    days = np.random.default_rng(1).integers(0, 200, 700).astype("datetime64[D]")
    texts = [f"{day.item():%d/%m/%Y}" for day in days]
    times = {
        "number": pa.array(days.astype(int)),
        "timestamp": pa.array(days).cast(pa.timestamp("us")),
        "text": pa.array(texts),
    }
    splits = assign_splits(table.set_column(4, "when", times[kind]), CLASSES, seed=0, time_column="when")
    limits = [(days[splits == split].min(), days[splits == split].max()) for split in Split]
    assert limits[0][1] < limits[1][0] <= limits[1][1] < limits[2][0]
    np.testing.assert_allclose(_shares(splits), [0.7, 0.15, 0.15], atol=0.01)


def test_three_times_are_enough() -> None:
    table = pa.table({"when": [3] * 8 + [1] * 8 + [2] * 8, "y": ["a", "b"] * 12})
    splits = assign_splits(table, CLASSES, seed=0, time_column="when")
    assert splits.tolist() == [2] * 8 + [0] * 8 + [1] * 8


# Bad input


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(DataError, match="Expected two shares above 0 that sum to less than 1"):
        assign_splits(_table(50), CLASSES, seed=0, validation_share=0.6, test_share=0.4)


def test_group_and_time_together_are_refused() -> None:
    with pytest.raises(DataError, match="Expected a group column or a time column, received both"):
        assign_splits(_table(50), CLASSES, seed=0, group="who", time_column="when")


def test_unknown_columns_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"The data has no group column 'Who'\. Did you mean 'who'\?"):
        assign_splits(_table(50), CLASSES, seed=0, group="Who")
    with pytest.raises(DataError, match=r"The data has no time column 'wen'\. Did you mean 'when'\?"):
        assign_splits(_table(50), CLASSES, seed=0, time_column="wen")


def test_too_few_distinct_rows_are_refused() -> None:
    table = pa.table({"x": [1, 2] * 20, "y": [1.0, 2.0] * 20})
    with pytest.raises(DataError, match=r"validation stays empty: the data has 2 different rows \(the target aside\)"):
        assign_splits(table, NUMBER, seed=0)


def test_too_few_groups_are_refused() -> None:
    table = _table(60).set_column(3, "who", pa.array([1, 2] * 30))
    with pytest.raises(DataError, match="stays empty: the data has 2 groups in 'who'"):
        assign_splits(table, CLASSES, seed=0, group="who")


def test_rows_without_a_time_are_refused() -> None:
    table = _table(50).set_column(4, "when", pa.array(["2020-01-01"] * 48 + [None, "soon"]))
    with pytest.raises(
        DataError, match=r"in every row of the time column 'when', received None in row 49 \(2 such rows\)"
    ):
        assign_splits(table, CLASSES, seed=0, time_column="when")
    table = table.set_column(4, "when", pa.array([True, False] * 25))
    with pytest.raises(DataError, match="Expected dates or numbers in the time column 'when', received bool"):
        assign_splits(table, CLASSES, seed=0, time_column="when")


def test_class_that_only_comes_late_is_refused() -> None:
    table = pa.table({"when": np.arange(100), "y": ["a"] * 90 + ["b"] * 10})
    with pytest.raises(DataError, match="Every class must occur among the training rows, but 'b' of 'y'"):
        assign_splits(table, CLASSES, seed=0, time_column="when")


@settings(deadline=None)
@given(
    ranks=st.lists(st.integers(0, 40), min_size=1, max_size=120),
    shares=st.tuples(st.floats(0.01, 0.45), st.floats(0.01, 0.45)),
)
def test_large_strata_are_cut_where_small_ones_are(ranks: list[int], shares: tuple[float, float]) -> None:
    array = np.array(ranks, np.uint64)
    found = splits_module._cut_large(array, shares=shares)
    order, sizes, _, positions = splits_module._blocks(array, np.zeros(len(ranks), np.int64))
    expected = np.empty(len(ranks), np.int8)
    expected[order] = np.repeat(splits_module._at(positions, shares), sizes)
    assert (found is None) == (len(set(expected.tolist())) < len(Split))
    assert found is None or np.array_equal(found, expected)
