"""The memory of this machine; asked without TensorFlow."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def total_memory() -> int:
    """Returns the memory of this machine, or of the container that this process is in, in bytes."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total
