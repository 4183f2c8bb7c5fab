"""Import TensorFlow without what it says to its own developers. No TensorFlow before ``import_tensorflow`` is called.

Its libraries write to file descriptor 2 before any setting of theirs is read: which instructions the processor has,
that there is no graphics card. Such lines are dropped, all others are passed on.
"""

from __future__ import annotations

import contextlib
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
    """Import TensorFlow and let it look for devices."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with without_noise():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")  # deprecations, which are for writers of programs


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
