"""The executor that the settings ask for, and how many workers it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from app.config import ExecutionConfig, ExecutorKind, Placement
from app.execution.executor import Executor
from app.execution.local_executor import LocalExecutor
from app.execution.machine import count_gpus, memory_warning


def num_workers_of(config: ExecutionConfig, *, devices: Sequence[str] = ()) -> int:
    """Returns the number of workers: as asked, else one for each device of this machine.

    Several devices get a worker each, since the trials of a search are many and mostly small; `mirrored` is for
    networks that keep all of them busy. With `auto` the first worker says whether the networks are such.

    Args:
        config: How trials are run.
        devices: Those that were asked for; () for all GPUs, or the CPU.
    """
    if config.workers:
        return config.workers
    is_spread = config.executor is ExecutorKind.LOCAL and config.placement is not Placement.MIRRORED
    return max(1, len(devices) or count_gpus()) if is_spread else 1


def workers_warning(config: ExecutionConfig, *, devices: Sequence[str] = ()) -> str:
    """Returns a warning when so many workers do not fit into the memory of this machine, or nothing."""
    if config.executor is not ExecutorKind.LOCAL:
        return ""  # Ray knows its machines
    return memory_warning(num_workers_of(config, devices=devices), worker_memory=config.worker_memory or None)


def make_executor(config: ExecutionConfig, *, devices: Sequence[str] = ()) -> Executor:
    """Returns the executor, whose workers start at once.

    Args:
        config: How trials are run.
        devices: Those that were asked for; () for all GPUs, or the CPU.

    Raises:
        ConfigError: Ray is asked for but not installed.
        WorkerError: There is no such cluster, or not enough of it.
    """
    return EXECUTORS[config.executor](config, num_workers_of(config, devices=devices))


def _local(config: ExecutionConfig, num_workers: int) -> Executor:
    return LocalExecutor(num_workers=num_workers, worker_memory=config.worker_memory or None)


def _ray(config: ExecutionConfig, num_workers: int) -> Executor:
    from app.execution.ray_executor import RayExecutor

    return RayExecutor(
        num_workers=num_workers,
        address=config.ray_address,
        worker_memory=config.worker_memory or None,
    )


EXECUTORS: Mapping[ExecutorKind, Callable[[ExecutionConfig, int], Executor]] = {
    ExecutorKind.LOCAL: _local,
    ExecutorKind.RAY: _ray,
}
