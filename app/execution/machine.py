"""What this machine offers to workers: cores, GPUs and memory; asked without TensorFlow."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from app.memory import total_memory

MEMORY_SHARE = 0.6
"""Share of the machine's memory that all workers together may hold before they are recycled."""

TYPICAL_WORKER_BYTES = 1_300_000_000
"""TensorFlow, the encoded rows of a small table, and some graphs."""


def num_cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def threads_of(worker: int, *, num_workers: int) -> int:
    """Returns the threads of worker `worker` (from 0): its share of the cores; 0, all of them, when it is alone."""
    if num_workers == 1:
        return 0
    cores = num_cores()
    return max(1, cores // num_workers + (worker < cores % num_workers))


def count_gpus() -> int:
    """Returns the NVIDIA GPUs that a worker would see, without starting a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def available_memory() -> int:
    """Returns the memory that can be had without swapping, in bytes."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return min(total_memory(), 1024 * int(line.split()[1]))
    return total_memory()


def resident_memory() -> int:
    """Returns the memory that this process holds, in bytes."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def workers_that_fit(*, worker_memory: int | None = None, available: int | None = None) -> int:
    """Returns how many workers the memory of this machine is enough for, at least 1.

    Args:
        worker_memory: Bytes that one may hold; None takes what a worker usually needs.
        available: Bytes that there are; None asks the machine.
    """
    there = available_memory() if available is None else available
    return max(1, there // (worker_memory or TYPICAL_WORKER_BYTES))


def memory_warning(num_workers: int, *, worker_memory: int | None = None, available: int | None = None) -> str:
    """Returns a warning when `num_workers` do not fit into the memory of this machine, or nothing.

    Args:
        num_workers: Workers that were asked for.
        worker_memory: Bytes that one may hold; None takes what a worker usually needs.
        available: Bytes that there are; None asks the machine.
    """
    there = available_memory() if available is None else available
    each = worker_memory or TYPICAL_WORKER_BYTES
    fitting = workers_that_fit(worker_memory=worker_memory, available=there)
    if num_workers <= fitting:
        return ""
    return (
        f"{num_workers} workers of {in_bytes(each)} do not fit into the {in_bytes(there)} of memory that are free: "
        f"expected at most {fitting}; the system may end workers when memory runs out"
    )


def in_bytes(size: int) -> str:
    """Returns a number of bytes as people write it, such as 1.3GB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + unit
    return f"{size} bytes"
