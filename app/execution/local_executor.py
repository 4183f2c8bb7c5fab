"""Workers on this machine: fresh interpreters that hold TensorFlow, replaced when they die or grow."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, final

import app
from app.errors import WorkerError
from app.execution.executor import Event, Executor
from app.execution.messages import (
    EpochEnded,
    OpenRun,
    Reply,
    Request,
    RequestFailed,
    RunOpened,
    RunTrial,
    StopTrial,
    TrialEnded,
)
from app.search.trial import Failed

ROOT = Path(app.__file__).resolve().parents[1]
MEMORY_SHARE = 0.6
"""Share of the machine's memory that all workers together may hold before they are recycled."""

# `-P` keeps the current folder off the path: a user's folder called `app` must not shadow ours.
COMMAND = "import sys; sys.path.insert(0, {root!r}); from app.execution.worker import main; main({handle}, {lifeline})"


@final
class LocalExecutor(Executor):
    """Runs trials in worker processes of this machine.

    The processes start at once and import TensorFlow while the coordinator goes on.

    Args:
        num_workers: Number of processes, at least 1.
    """

    def __init__(self, *, num_workers: int = 1) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}: expected at least 1")
        self._request: OpenRun | None = None
        self._memory_limit = int(MEMORY_SHARE * _machine_memory() / num_workers)
        self._workers = [_WorkerProcess() for _ in range(num_workers)]

    @property
    def num_free(self) -> int:
        """Trials that can be submitted now."""
        return sum(worker.trial is None for worker in self._workers)

    def open(self, request: OpenRun) -> RunOpened:
        """Opens an experiment on every worker, and on every worker that replaces one."""
        self._request = request
        for worker in self._workers:
            worker.send(request)
        opened = [worker.receive_opened() for worker in self._workers]
        return opened[0]

    def submit(self, request: RunTrial) -> None:
        """Starts a trial on a free worker."""
        worker = self._free_worker()
        worker.trial = request.number
        worker.send(request)

    def events(self, *, timeout: float) -> Sequence[Event]:
        """Returns what happened, waiting at most `timeout` seconds for the first event."""
        busy = {worker.connection: worker for worker in self._workers if worker.trial is not None}
        happened: list[Event] = []
        for connection in wait(list(busy), timeout):
            worker = busy[connection]  # type: ignore[index]
            happened.extend(self._events_of(worker))
        return happened

    def stop_trials(self) -> None:
        """Asks every trial in flight to end soon; each still sends its `TrialEnded`."""
        for worker in self._workers:
            if worker.trial is not None:
                worker.send(StopTrial())

    def call(self, request: Request, *, on_epoch: Callable[[EpochEnded], None] | None = None) -> Reply:
        """Sends a request to a free worker and waits for its answer."""
        worker = self._free_worker()
        worker.send(request)
        while True:
            try:
                reply = worker.receive()
            except EOFError:
                reason = worker.cause_of_death()
                self._replace(worker)
                raise WorkerError(f"{type(request).__name__}: {reason}") from None
            if isinstance(reply, EpochEnded):
                if on_epoch is not None:
                    on_epoch(reply)
                continue
            if isinstance(reply, RequestFailed):
                raise WorkerError(reply.reason)
            return reply

    def close(self) -> None:
        """Ends all workers; harmless when called twice."""
        for worker in self._workers:
            worker.close()

    def _events_of(self, worker: _WorkerProcess) -> list[Event]:
        """Returns all that has arrived from a worker; its death is the end of its trial."""
        happened: list[Event] = []
        try:
            while worker.connection.poll():
                reply = worker.receive()
                if isinstance(reply, RequestFailed):
                    reply = TrialEnded(trial=worker.trial or 0, outcome=Failed(reply.reason))
                if isinstance(reply, EpochEnded):
                    happened.append(reply)
                elif isinstance(reply, TrialEnded):
                    happened.append(reply)
                    worker.trial = None
                    if reply.memory > self._memory_limit:
                        self._replace(worker)
                    break
        except EOFError:
            reason = worker.cause_of_death()
            happened.append(TrialEnded(trial=worker.trial or 0, outcome=Failed(reason)))
            self._replace(worker)
        return happened

    def _replace(self, worker: _WorkerProcess) -> _WorkerProcess:
        worker.close()
        fresh = _WorkerProcess()
        self._workers[self._workers.index(worker)] = fresh
        if self._request is not None:
            fresh.send(self._request)
            fresh.receive_opened()
        return fresh

    def _free_worker(self) -> _WorkerProcess:
        for worker in self._workers:
            if worker.trial is None:
                # One that was killed while it had nothing to do must not take the next trial with it.
                return worker if worker.is_alive else self._replace(worker)
        raise WorkerError("all workers are busy: wait for a trial to end before the next request")


class _WorkerProcess:
    """One interpreter, the connection to it, and the pipe whose closing ends it."""

    def __init__(self) -> None:
        self.trial: int | None = None
        ours, theirs = socket.socketpair()
        lifeline_read, self._lifeline = os.pipe()
        command = COMMAND.format(root=str(ROOT), handle=theirs.fileno(), lifeline=lifeline_read)
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", command],
            pass_fds=(theirs.fileno(), lifeline_read),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")},
            # Ctrl-C in the terminal reaches the whole foreground group; the coordinator decides what it means.
            start_new_session=True,
        )
        theirs.close()
        os.close(lifeline_read)
        self.connection = Connection(ours.detach())

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def send(self, request: Request) -> None:
        # A worker that died is noticed when its answer is awaited.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(request)

    def receive(self) -> Reply:
        """Returns the next reply.

        Raises:
            EOFError: The process has ended.
        """
        try:
            reply: Reply = self.connection.recv()
        except (ConnectionResetError, OSError) as error:
            raise EOFError from error
        return reply

    def receive_opened(self) -> RunOpened:
        """Returns the answer to `OpenRun`.

        Raises:
            WorkerError: The experiment cannot be opened.
        """
        try:
            reply = self.receive()
        except EOFError:
            raise WorkerError(f"the worker could not start: {self.cause_of_death()}") from None
        if isinstance(reply, RequestFailed):
            raise WorkerError(reply.reason)
        if not isinstance(reply, RunOpened):
            raise WorkerError(f"the worker answered {type(reply).__name__}: expected RunOpened")
        return reply

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

    def close(self) -> None:
        """Ends the process."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
            self.connection.close()
            self._process.kill()
            self._process.wait()
            self._output.close()


def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
