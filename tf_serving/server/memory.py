"""Freed memory is kept for the next request, where the C library is glibc. No TensorFlow here.

By default glibc maps every buffer of more than 128 KB anew and gives it back when it is freed. Each of its pages is
then a fault, at one to three microseconds: 64 small images as JSON took 2,700 of them a request, two fifths of its CPU.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT_BYTES = 64 << 20
"""Free memory at the end of a heap that is not given back."""
MAPPED_BYTES = 32 << 20
"""Buffers of this size are mapped; glibc takes no greater number."""


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory; return whether it does. What the environment says goes first."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018 - other libraries have a mallopt that means something else
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, MAPPED_BYTES))
