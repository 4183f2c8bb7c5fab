"""Load a version in a child process first; what crashes, hangs or eats memory there does not do so in the server.

The child is started with the server, so that its import of TensorFlow runs beside the server's own, and again for later
versions; it ends when it has had nothing to do for a while. No TensorFlow here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, final

from tf_serving.server.status import Code, ServingError

IDLE_SECONDS = 30.0
TIMEOUT_SECONDS = 600.0
MEMORY_FACTOR = 1.2
"""What TensorFlow Serving reckons with: a model takes this many times what it measured."""


@final
class Preflight:
    """The child process, started when needed.

    Args:
        timeout: Seconds for one version.
    """

    def __init__(self, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Start the child now, at full speed: nobody is served yet."""
        with self._lock:
            self._running("--at-once")

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
                _end(self._child)
                self._child = None

    def _running(self, *flags: str) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            if self._child is not None:
                _end(self._child)
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tf_serving.server.preflight_process", *flags],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._child

    def _ask(self, child: subprocess.Popen[bytes], job: dict[str, Any]) -> dict[str, Any]:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("The preflight process was started without pipes.")
        try:
            child.stdin.write(json.dumps(job).encode() + b"\n")
            child.stdin.flush()
            line = _read_line(child.stdout, self._timeout)
        except (OSError, TimeoutError) as error:
            _end(child)
            self._child = None
            raise ServingError(
                Code.INTERNAL,
                f"{job['directory']} did not load within {self._timeout:.0f} seconds in a process of its own"
                if isinstance(error, TimeoutError)
                else f"{job['directory']} ended the process that tried to load it",
            ) from error
        if not line:
            code = child.wait()
            _end(child)
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


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what it still held goes with the child
                pipe.close()


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
