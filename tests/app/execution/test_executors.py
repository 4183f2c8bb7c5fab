from __future__ import annotations

import contextlib

import pytest

from app.config import ExecutionConfig, ExecutorKind, Placement
from app.execution.executors import EXECUTORS, make_executor, num_workers_of, workers_warning
from app.execution.local_executor import LocalExecutor


def test_every_kind_of_executor_can_be_made() -> None:
    assert set(EXECUTORS) == set(ExecutorKind)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ExecutionConfig(), 2),
        (ExecutionConfig(workers=5), 5),
        (ExecutionConfig(placement=Placement.PER_DEVICE), 2),
        (ExecutionConfig(placement=Placement.MIRRORED), 1),
        (ExecutionConfig(executor=ExecutorKind.RAY), 1),
    ],
)
def test_every_gpu_gets_a_worker_unless_told_otherwise(
    config: ExecutionConfig, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert num_workers_of(config) == expected


def test_devices_that_were_asked_for_are_those_that_get_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert num_workers_of(ExecutionConfig(), devices=("GPU:0", "GPU:3")) == 2
    assert num_workers_of(ExecutionConfig(placement=Placement.MIRRORED), devices=("GPU:0", "GPU:3")) == 1
    assert num_workers_of(ExecutionConfig(workers=5), devices=("GPU:0", "GPU:3")) == 5


def test_without_a_gpu_there_is_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert num_workers_of(ExecutionConfig()) == 1


def test_workers_that_memory_does_not_allow_are_warned_of() -> None:
    assert workers_warning(ExecutionConfig(workers=1)) == ""
    much = ExecutionConfig(workers=1000, worker_memory=10**12)
    assert workers_warning(much).startswith("1000 workers of 1000GB do not fit into the ")
    assert workers_warning(ExecutionConfig(workers=1000, executor=ExecutorKind.RAY)) == ""


def test_the_local_executor_has_the_workers_asked_for() -> None:
    with contextlib.closing(make_executor(ExecutionConfig(workers=2))) as executor:
        assert isinstance(executor, LocalExecutor)
        assert executor.num_workers == 2
