"""Import TensorFlow without what it says to its own developers. No TensorFlow before ``import_tensorflow`` is called.

Its libraries write to file descriptor 2 before any setting of theirs is read: which instructions the processor has,
that there is no graphics card. Such lines are dropped, all others are passed on.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions"
    rb"|I0000 [\d.:]+ +\d+ \S+\.cc:\d+\]"
    rb"|E0000 [\d.:]+ +\d+ cuda_platform\.cc:\d+\]"
)


def import_tensorflow() -> None:
    """Import TensorFlow; no device is opened."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # models do not run in NumPy
    # What it makes stays; a fifth of the time would go into looking among its objects for garbage.
    gc.disable()
    try:
        with without_noise(), _without_keras():
            import tensorflow as tf
    finally:
        gc.freeze()
        gc.enable()
    tf.get_logger().setLevel("ERROR")  # deprecations, which are for writers of programs


def find_devices() -> None:
    """Let TensorFlow look for devices."""
    import tensorflow as tf

    with without_noise():
        tf.config.list_physical_devices()


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Let TensorFlow not find Keras while it is imported.

    It would import it, scikit-learn and pandas only to have them ready: two fifths of the time and 140 MB, for programs
    that build models. A server only runs graphs.
    """
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    try:
        yield
    finally:
        if sys.modules.get("keras") is None:
            del sys.modules["keras"]


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Hold back what is written to standard error, and pass on at the end what is not TensorFlow's small talk."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    os.write(2, line)
