"""Workers on this machine: fresh interpreters that hold TensorFlow, replaced when they die, hang or grow."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, final

import app
from app.execution.lease import Lease
from app.execution.machine import MEMORY_SHARE, threads_of
from app.execution.messages import Reply, Request
from app.execution.worker_handle import WorkerHandle
from app.execution.worker_pool import WorkerPool
from app.memory import total_memory
from app.training.devices import Seat

ASK_WHERE = signal.SIGUSR1
"""Upon this signal a worker writes what each of its threads does, whatever it is in the middle of."""

WRITE_SECONDS = 0.2

ROOT = Path(app.__file__).resolve().parents[1]

# `-P` keeps the current folder off the path: a user's folder called `app` must not shadow ours.
COMMAND = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from app.execution.worker_process import main; main({handle}, {lifeline})"
)


@final
class LocalExecutor(WorkerPool):
    """Runs trials in worker processes of this machine.

    The processes start at once and import TensorFlow while the coordinator goes on.

    Args:
        num_workers: Number of processes, at least 1.
        worker_memory: Bytes past which a worker is replaced, even in the middle of a trial; None recycles one
            between trials when all together hold more than 60 % of the machine's memory.
        lease: When a silent worker counts as hung.
    """

    def __init__(
        self, *, num_workers: int = 1, worker_memory: int | None = None, lease: Lease | None = None
    ) -> None:
        usual = int(MEMORY_SHARE * total_memory())
        super().__init__(num_workers=num_workers, worker_memory=worker_memory, usual_memory=usual, lease=lease)

    def _launch(self, number: int) -> WorkerHandle:
        return _WorkerProcess(self._seat(number))

    def _wait(self, handles: Collection[WorkerHandle], timeout: float) -> None:
        connections = [handle.connection for handle in handles if isinstance(handle, _WorkerProcess)]
        wait(connections, timeout)

    def _seat(self, number: int) -> Seat:
        threads = threads_of(number, num_workers=self._num_seats)
        return Seat(worker=number, num_workers=self._num_seats, threads=threads, gathered=self._gathered)


@final
class _WorkerProcess(WorkerHandle):
    """One interpreter, the connection to it, and the pipe whose closing ends it."""

    def __init__(self, seat: Seat) -> None:
        ours, theirs = socket.socketpair()
        lifeline_read, self._lifeline = os.pipe()
        command = COMMAND.format(root=str(ROOT), handle=theirs.fileno(), lifeline=lifeline_read)
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", command],
            pass_fds=(theirs.fileno(), lifeline_read),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=_environment(seat),
            # Ctrl-C in the terminal reaches the whole foreground group; the coordinator decides what it means.
            start_new_session=True,
        )
        theirs.close()
        os.close(lifeline_read)
        self.connection = Connection(ours.detach())
        self._name = f"worker {seat.worker} (process {self._process.pid})"

    @property
    def name(self) -> str:
        """What people call it."""
        return self._name

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def send(self, request: Request) -> None:
        """Sends a request; a dead process is noticed when its answer is awaited."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(request)

    def receive(self) -> list[Reply]:
        """Returns what has arrived, without waiting.

        Raises:
            EOFError: The process has ended, and everything it said was returned before.
        """
        replies: list[Reply] = []
        try:
            while self.connection.poll():
                replies.append(self.connection.recv())
        except (EOFError, OSError) as error:
            if not replies:
                raise EOFError from error
        return replies

    def cause_of_death(self) -> str:
        """Returns one line on why the process ended."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "the worker closed its connection"
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (the system kills with this signal when memory runs out)" if -code == signal.SIGKILL else ""
            return f"the worker was killed by {name}{hint}"
        self._output.seek(0)
        last = self._output.read().decode(errors="replace").strip().splitlines()[-1:]
        return f"the worker ended with code {code}{': ' + last[0] if last else ''}"

    def ask_where(self) -> None:
        """Has a process that hangs write to its log where; one that is stopped, or waits for a disk, does not."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(ASK_WHERE)
            time.sleep(WRITE_SECONDS)

    def kill(self) -> None:
        """Ends the process."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
            self.connection.close()
            self._process.kill()
            self._process.wait()
            self._output.close()


def _environment(seat: Seat) -> dict[str, str]:
    """Returns the variables of a worker process; what the user has set stays."""
    chosen = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if seat.threads:
        # NumPy's libraries read these when they are loaded, long before the experiment is opened.
        chosen |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(seat.threads))
    return chosen | os.environ
