"""What memory is free for a table that has to be held in it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from pipelines.errors import DataError

_MEMINFO = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Return the bytes that this machine, or the container that this process is in, can still give; None if unknown."""
    known = []
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
        known += [int(found.group(1)) * 1024] if found else []
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        most = int((_CONTAINER / "memory.max").read_text(encoding="ascii"))
        used = int((_CONTAINER / "memory.current").read_text(encoding="ascii"))
        counts = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text(encoding="ascii").splitlines())
        # The cache of files counts as used and is given up when it is asked for.
        known.append(most - used + int(counts.get("inactive_file", 0)))
    return min(known, default=None)


def require_memory(num_bytes: int | None, what: str) -> None:
    """Refuse to hold a table in memory that has no room there, before the machine refuses it less kindly.

    Args:
        num_bytes: About what it takes; None where that is not known.
        what: The table in words, such as "the joined table 'customers.csv'".

    Raises:
        DataError: Less is free.
    """
    free = free_memory()
    if num_bytes is not None and free is not None and num_bytes > free:
        raise DataError(
            f"Expected {what} to fit into memory, where rows look it up, but it takes about {num_bytes / 2**30:,.1f} "
            f"GiB and {free / 2**30:,.1f} GiB are free; leave out columns and rows that are not needed, or take a "
            "machine with more memory."
        )
