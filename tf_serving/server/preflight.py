"""Load a version in a child process first; what crashes, hangs or eats memory there does not do so in the server.

The first child is split off from the server as soon as TensorFlow is imported, where that is safe; else, and for later
versions, it is a process of its own that imports TensorFlow again. It ends when it has had nothing to do for a while.
No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import threading
import time
from pathlib import Path
from typing import Any, final

from tf_serving.server.preflight_child import PreflightChild, spawn_child
from tf_serving.server.status import Code, ServingError

IDLE_SECONDS = 30.0
TIMEOUT_SECONDS = 600.0
MEMORY_FACTOR = 1.2
"""What TensorFlow Serving reckons with: a model takes this many times what it measured."""


@final
class Preflight:
    """The child process, started when needed.

    Args:
        child: That runs already, or None.
        timeout: Seconds for one version.
    """

    def __init__(self, child: PreflightChild | None = None, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._child = child
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Start the child now if there is none yet, at full speed: nobody is served yet."""
        with self._lock:
            self._running(at_once=True)

    def __call__(self, options: Any, directory: Path, name: str) -> None:
        """Load a version in the child.

        Args:
            options: LoadOptions.
            directory: The version directory.
            name: Of the model.

        Raises:
            ServingError: The child's own, or INTERNAL where it died, or RESOURCE_EXHAUSTED where memory is short.
        """
        job = {"directory": str(directory), "name": name, "options": dataclasses.asdict(options)}
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            child = self._running()
            answer = self._ask(child, job)
            self._timer = threading.Timer(IDLE_SECONDS, self.close)
            self._timer.daemon = True
            self._timer.start()
        if "code" in answer:
            raise ServingError(Code(answer["code"]), str(answer["message"]))
        _check_memory(int(answer["bytes"]), directory)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._child is not None:
                self._child.end()
                self._child = None

    def _running(self, *, at_once: bool = False) -> PreflightChild:
        if self._child is None or not self._child.is_running:
            if self._child is not None:
                self._child.end()
            self._child = spawn_child(at_once=at_once)
        return self._child

    def _ask(self, child: PreflightChild, job: dict[str, Any]) -> dict[str, Any]:
        try:
            child.jobs.write(json.dumps(job).encode() + b"\n")
            child.jobs.flush()
            line = _read_line(child.answers, self._timeout)
        except (OSError, TimeoutError) as error:
            child.end()
            self._child = None
            raise ServingError(
                Code.INTERNAL,
                f"{job['directory']} did not load within {self._timeout:.0f} seconds in a process of its own"
                if isinstance(error, TimeoutError)
                else f"{job['directory']} ended the process that tried to load it",
            ) from error
        if not line:
            code = child.wait()
            child.end()
            self._child = None
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise ServingError(Code.DATA_LOSS, f"{job['directory']} ended the process that tried to load it ({reason})")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _read_line(pipe: Any, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    parts = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not parts.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(pipe.fileno(), 65_536)
            if not chunk:
                return b""
            parts += chunk
    return bytes(parts)


def _check_memory(needed: int, directory: Path) -> None:
    available = _available_bytes()
    if available is not None and needed * MEMORY_FACTOR > available:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"{directory} takes {needed * MEMORY_FACTOR / 1e6:.0f} MB of memory, "
            f"{available / 1e6:.0f} MB are available",
        )


def _available_bytes() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: nothing to compare with
    return None
