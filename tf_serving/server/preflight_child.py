"""The process behind ``preflight``: started anew, or split off from one that has just imported TensorFlow.

No TensorFlow here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Protocol, final


class _Process(Protocol):
    pid: int

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


@final
class PreflightChild:
    """A process that reads jobs and writes answers, a line of JSON each.

    Args:
        process: To end it.
        jobs: To write to.
        answers: To read from.
    """

    def __init__(self, process: _Process, jobs: IO[bytes], answers: IO[bytes]) -> None:
        self._process = process
        self.jobs = jobs
        self.answers = answers

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end; return the exit code, or minus the signal that ended it."""
        return self._process.wait()

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self.jobs, self.answers):
            with contextlib.suppress(OSError):  # what it still held goes with the child
                pipe.close()


def spawn_child(*, at_once: bool) -> PreflightChild:
    """Return a new process, which imports TensorFlow by itself.

    Args:
        at_once: Whether nobody is served yet, so that it may run at full speed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_serving.server.preflight_process", *(["--at-once"] if at_once else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("The preflight process was started without pipes.")
    return PreflightChild(process, process.stdin, process.stdout)


def fork_child() -> PreflightChild | None:
    """Return a process with everything that this one has imported, seconds sooner than a new one.

    Only for a process of one thread: another one might hold a lock that nobody would ever release in the child. None
    where there are more, or where that cannot be seen; and no session or device may be open yet.
    """
    try:
        num_threads = len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return None  # not Linux
    if num_threads != 1:
        return None
    (jobs_out, jobs_in), (answers_out, answers_in) = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.close(jobs_in)
        os.close(answers_out)
        _work(jobs_out, answers_in)
    os.close(jobs_out)
    os.close(answers_in)
    return PreflightChild(_Forked(pid), os.fdopen(jobs_in, "wb", 0), os.fdopen(answers_out, "rb", 0))


def _work(jobs: int, answers: int) -> Any:
    """Be the child; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends the child
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        from tf_serving.server.preflight_process import answer_jobs

        answer_jobs(os.fdopen(jobs, encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8"))
        code = 0
    finally:
        os._exit(code)  # what the parent has open is not the child's to close


@final
class _Forked:
    """A child of ``os.fork`` with the few methods of ``subprocess.Popen`` that are needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
