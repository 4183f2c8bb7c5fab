"""What Ctrl-C means while an experiment runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final


@final
class Interrupts:
    """Ctrl-C once ends the search and finishes with the best so far; twice leaves at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handles Ctrl-C and SIGTERM inside the block."""

        def handle(number: int, frame: FrameType | None) -> None:
            del number, frame
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            # Not print: it may be what was interrupted.
            os.write(2, b"\nfinishing with the best so far; Ctrl-C again leaves at once\n")

        try:
            before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: whoever runs us there handles signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
