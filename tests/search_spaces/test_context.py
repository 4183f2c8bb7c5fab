from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.schema import Task
from search_spaces.context import MAX_SAMPLE_ROWS, MIN_REPLICA_BATCH, TableContext, TableSample


def context(*, rows: int = 1000, replicas: int = 1, task: Task = Task.BINARY, epochs: int = 10) -> TableContext:
    num_classes = {Task.BINARY: 2, Task.MULTICLASS: 5}.get(task, 0)
    return TableContext(task, num_classes, 3, (4,), num_training_rows=rows, max_epochs=epochs, num_replicas=replicas)


@given(rows=st.integers(1, 10**6), batch=st.integers(1, 2048))
def test_one_replica_trains_with_the_searched_batch(rows: int, batch: int) -> None:
    assert context(rows=rows).global_batch(batch) == min(rows, batch)


@given(rows=st.integers(64, 10**6), batch=st.integers(1, 2048), replicas=st.integers(2, 8))
def test_several_replicas_share_the_batch_in_equal_parts(rows: int, batch: int, replicas: int) -> None:
    found = context(rows=rows, replicas=replicas).global_batch(batch)
    assert found % replicas == 0
    assert 0 < found <= rows
    # Each replica gets enough to compute on, as far as the table has it.
    assert found >= min(MIN_REPLICA_BATCH * replicas, rows - rows % replicas)
    # The searched batch is kept but for the remainder, unless it is too small for the replicas.
    if MIN_REPLICA_BATCH * replicas <= batch <= rows:
        assert batch - replicas < found <= batch


@given(rows=st.integers(20, 10**6), batch=st.integers(1, 2048), replicas=st.integers(1, 8), epochs=st.integers(1, 100))
def test_an_epoch_is_whole_batches_and_the_schedule_all_epochs(
    rows: int, batch: int, replicas: int, epochs: int
) -> None:
    table = context(rows=rows, replicas=replicas, epochs=epochs)
    steps = table.steps_per_epoch(batch)
    assert 1 <= steps == rows // table.global_batch(batch)
    assert table.total_steps(batch) == steps * epochs


@given(rows=st.integers(14, 10**7))
def test_searched_batches_are_powers_of_two_with_eight_steps_an_epoch(rows: int) -> None:
    sizes = context(rows=rows).batch_sizes()
    assert sizes == sorted(set(sizes))
    assert all(size & (size - 1) == 0 and 16 <= size <= 1024 for size in sizes)
    assert sizes == [16] or all(rows // size >= 8 for size in sizes)


@pytest.mark.parametrize(("task", "width"), [(Task.BINARY, 1), (Task.MULTICLASS, 5), (Task.REGRESSION, 1)])
def test_the_last_layer_has_the_width_of_the_task(task: Task, width: int) -> None:
    assert context(task=task).num_outputs == width


def rows(number: int, *, width: int = 3) -> dict[str, np.ndarray]:
    numeric = np.arange(number, dtype=np.float32)[:, None].repeat(width, axis=1)
    return {"numeric": numeric, "categorical": np.zeros((number, 0), np.int32), "target": numeric[:, :1]}


def test_a_sample_of_few_rows_is_all_of_them_and_names_only_what_is_there() -> None:
    sample = TableSample.drawn(**rows(50))
    np.testing.assert_array_equal(sample.numeric[:, 0], np.arange(50))
    assert list(sample.features) == ["numeric"]


@pytest.mark.parametrize(
    ("number", "width", "kept"), [(50_000, 3, MAX_SAMPLE_ROWS), (20_000, 1_000, 5_000), (3_000, 40_000, 1_000)]
)
def test_a_sample_is_bounded_in_rows_and_in_numbers(number: int, width: int, kept: int) -> None:
    # A view, since only what is drawn is copied.
    numeric = np.broadcast_to(np.arange(number, dtype=np.float32)[:, None], (number, width))
    few = {**rows(number, width=1), "numeric": numeric}
    sample, again = (TableSample.drawn(**few) for _ in range(2))
    assert sample.numeric.shape == (kept, width)
    # Rows stay rows, each at most once, and the same for every network.
    np.testing.assert_array_equal(sample.numeric[:, :1], sample.target)
    assert len(np.unique(sample.target)) == kept
    np.testing.assert_array_equal(sample.target, again.target)


@pytest.mark.parametrize("columns", [1, 2])
def test_a_sample_has_the_whole_range_of_a_regressions_target(columns: int) -> None:
    drawn = rows(MAX_SAMPLE_ROWS + 1_000)
    drawn["target"] = np.random.default_rng(0).normal(size=(len(drawn["target"]), columns)).astype(np.float32) ** 9
    sample = TableSample.drawn(**drawn)
    assert len(np.unique(sample.numeric[:, 0])) == MAX_SAMPLE_ROWS
    np.testing.assert_array_equal(sample.target.min(axis=0), drawn["target"].min(axis=0))
    np.testing.assert_array_equal(sample.target.max(axis=0), drawn["target"].max(axis=0))


@pytest.mark.parametrize(
    ("cardinalities", "sizes"),
    [((3, 4), [2, 4]), ((5, 12), [2, 4, 8]), ((40,), [2, 4, 8, 16]), ((3, 2_000), [2, 4, 8, 16, 32])],
)
def test_vectors_of_categories_are_as_long_as_the_largest_column_is_worth(
    cardinalities: tuple[int, ...], sizes: list[int]
) -> None:
    table = TableContext(Task.BINARY, 2, 4, cardinalities, num_training_rows=200, max_epochs=4)
    assert table.embedding_sizes() == sizes
