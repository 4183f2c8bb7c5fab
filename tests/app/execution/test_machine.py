from __future__ import annotations

import pytest

from app.execution.machine import (
    available_memory,
    count_gpus,
    in_bytes,
    memory_warning,
    num_cores,
    threads_of,
    workers_that_fit,
)
from app.memory import total_memory


def test_a_worker_that_is_alone_has_all_cores() -> None:
    assert threads_of(0, num_workers=1) == 0


@pytest.mark.parametrize("num_workers", [2, 3, 7])
def test_the_cores_are_divided_and_each_worker_has_one(num_workers: int) -> None:
    threads = [threads_of(worker, num_workers=num_workers) for worker in range(num_workers)]
    assert min(threads) >= 1
    assert max(threads) - min(threads) <= 1
    assert sum(threads) == max(num_cores(), num_workers)


def test_the_memory_of_the_machine_is_known() -> None:
    assert 0 < available_memory() <= total_memory()


def test_workers_that_do_not_fit_are_warned_of_with_the_number_that_does() -> None:
    assert workers_that_fit(worker_memory=10**9, available=4_500_000_000) == 4
    assert memory_warning(4, worker_memory=10**9, available=4_500_000_000) == ""
    assert memory_warning(5, worker_memory=10**9, available=4_500_000_000) == (
        "5 workers of 1GB do not fit into the 4.5GB of memory that are free: expected at most 4; "
        "the system may end workers when memory runs out"
    )


def test_one_worker_is_tried_in_any_memory() -> None:
    assert workers_that_fit(worker_memory=10**9, available=10) == 1


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0,1", 2), ("GPU-1a2b", 1)])
def test_gpus_that_are_hidden_do_not_count(visible: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_bytes_are_written_for_people() -> None:
    assert [in_bytes(size) for size in (900, 2_500_000, 1_300_000_000)] == ["900 bytes", "2.5MB", "1.3GB"]
