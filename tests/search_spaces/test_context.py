from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.schema import Task
from search_spaces.context import MIN_REPLICA_BATCH, TableContext


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


def test_context_and_catalogue_import_no_tensorflow() -> None:
    code = "import search_spaces.context, search_spaces.catalogue, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
