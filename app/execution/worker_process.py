"""The process around a worker: started as a fresh interpreter, and gone when the coordinator is.

It lives for the whole experiment, so TensorFlow is imported, the data encoded and the devices initialised once.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from app.execution.worker import Worker


def main(connection_handle: int, lifeline: int) -> None:
    """Serves requests until the coordinator says good-bye or dies.

    Args:
        connection_handle: File descriptor of the two-way connection to the coordinator.
        lifeline: File descriptor that reads end-of-file when the coordinator is gone, however it went.
    """
    _die_with_coordinator(lifeline)
    # A worker that hangs is asked where before it is ended (`WorkerHandle.ask_where`).
    faulthandler.register(signal.SIGUSR1)
    # A space of the user's own is imported from where the command runs; last, so that it shadows nothing of ours.
    sys.path.append(str(Path.cwd()))
    keep_freed_memory()
    import_tensorflow()
    worker = Worker(Connection(connection_handle))
    # A closed connection is the coordinator's good-bye.
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        worker.serve()


def import_tensorflow() -> None:
    """Imports it now, so that the first request does not wait for it.

    Its 400,000 objects all stay; a fifth of the time would go into looking among them for garbage, and as new ones they
    would be visited three times more before they count as old.
    """
    gc.disable()
    try:
        import tensorflow  # noqa: F401 - to have it in memory
    finally:
        gc.freeze()
        gc.enable()


def keep_freed_memory() -> None:
    """Lets the C library keep what TensorFlow frees: it will ask for as much at the next step.

    Every operation allocates its result. By default large blocks go back to the system at once, and every step of a
    wide network pays for their pages anew: up to three times the time of an element-wise operation.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt, and other habits
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 * 2**20 - 1)
        mallopt(trim_threshold, 2**30)
        mallopt(top_pad, 2**26)


def _die_with_coordinator(lifeline: int) -> None:
    """Ends this process at once when the coordinator is gone, even in the middle of a long TensorFlow call."""

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
