"""Prove that an exported model answers as the Keras model did, in a process that holds TensorFlow alone.

The process takes seconds to import TensorFlow, so it can be started early and handed its job later:

    with VerificationProcess() as process:  # while the model is still training
        ...
        report = process.verify(directory, cases)
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, final

from tf_serving.errors import VerificationError
from tf_serving.hostile_rows import BATCH_SIZES
from tf_serving.verification_cases import write_cases

__all__ = ["VerificationProcess", "VerificationReport", "verify_in_fresh_process", "write_cases"]

SCRIPT = Path(__file__).with_name("verify_process.py")
DEFAULT_TOLERANCE = 1e-5
DEFAULT_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What was compared, all of it equal within the tolerance.

    Attributes:
        num_rows: Rows compared.
        batch_sizes: Batch sizes in which every signature on raw columns was called.
        max_difference: Largest difference seen: absolute for probabilities; for all other numbers divided by
            1 + max(|expected|, median of |expected| over all rows).
        seconds: Time of loading and comparing, without the import of TensorFlow.
    """

    num_rows: int
    batch_sizes: tuple[int, ...]
    max_difference: float
    seconds: float


@final
class VerificationProcess:
    """A process that imports TensorFlow and nothing of Keras or tamiz, and waits for models to check.

    Args:
        interpreter: Python interpreter that has TensorFlow; this one by default.
    """

    def __init__(self, *, interpreter: str = sys.executable) -> None:
        # Standard error goes to a file: a pipe that nobody reads would block TensorFlow's logging.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                [interpreter, "-I", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for this process, which decides what it means
            )
        except OSError as error:
            self._log.close()
            raise VerificationError(
                f"Cannot start {interpreter} to verify the export: {error.strerror}; name a Python with TensorFlow."
            ) from error

    @classmethod
    def start(cls, *, interpreter: str = sys.executable) -> Self:
        """Start the process and return at once; TensorFlow is imported meanwhile.

        Args:
            interpreter: Python interpreter that has TensorFlow; this one by default.

        Raises:
            VerificationError: The interpreter cannot be started.
        """
        return cls(interpreter=interpreter)

    def verify(
        self,
        saved_model_dir: Path,
        cases_path: Path,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        batch_sizes: Sequence[int] = BATCH_SIZES,
    ) -> VerificationReport:
        """Compare one SavedModel with the expected answers.

        Args:
            saved_model_dir: Directory that holds saved_model.pb, published or still staged.
            cases_path: What ``write_cases`` wrote.
            tolerance: Largest accepted difference, > 0, measured as ``VerificationReport.max_difference``.
            timeout_seconds: Longest wait in seconds, what is left of TensorFlow's import included.
            batch_sizes: Rows of a call, beside all rows at once and none.

        Raises:
            VerificationError: An answer differs (the message names output, row, expected, got), the model cannot be
                loaded, or the time is over.
        """
        job = {
            "directory": os.fspath(saved_model_dir.absolute()),
            "cases": os.fspath(cases_path.absolute()),
            "tolerance": tolerance,
            "batch_sizes": list(batch_sizes),
        }
        answer = self._ask(job, timeout_seconds=timeout_seconds)
        if "problem" in answer:
            raise VerificationError(str(answer["problem"]))
        return VerificationReport(
            num_rows=int(answer["num_rows"]),
            batch_sizes=tuple(answer["batch_sizes"]),
            max_difference=float(answer["max_difference"]),
            seconds=float(answer["seconds"]),
        )

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._log.closed:
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, job: Mapping[str, object], *, timeout_seconds: float) -> dict[str, Any]:
        if self._log.closed or self._process.stdin is None or self._process.stdout is None:
            raise VerificationError("The verification process has ended; start another one.")
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(timeout_seconds, expire)
        timer.start()
        try:
            with contextlib.suppress(OSError):  # a dead process shows as an empty answer below
                self._process.stdin.write(json.dumps(job) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        log = self._last_lines()
        self.close()
        if expired.is_set():
            raise VerificationError(
                f"The exported model was not verified within {timeout_seconds:g} seconds; allow more time."
            )
        raise VerificationError(f"The verification process died before it answered:\n{log}")

    def _last_lines(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-15:])


def verify_in_fresh_process(
    saved_model_dir: Path,
    cases_path: Path,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    interpreter: str = sys.executable,
) -> VerificationReport:
    """Start a process, compare one SavedModel with the expected answers, end the process.

    Args:
        saved_model_dir: Directory that holds saved_model.pb, published or still staged.
        cases_path: What ``write_cases`` wrote.
        tolerance: Largest accepted difference, > 0, measured as ``VerificationReport.max_difference``.
        timeout_seconds: Longest wait in seconds, the import of TensorFlow included.
        interpreter: Python interpreter that has TensorFlow.

    Raises:
        VerificationError: As ``VerificationProcess.verify``.
    """
    with VerificationProcess(interpreter=interpreter) as process:
        return process.verify(saved_model_dir, cases_path, tolerance=tolerance, timeout_seconds=timeout_seconds)
