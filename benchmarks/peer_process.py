"""Starts `keras_peer` in a process of its own, with a scratch folder of its own, and talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, final

PROGRAM = Path(__file__).with_name("keras_peer.py")


@final
class PeerProcess:
    """A warm peer: TensorFlow is imported and the rows are in memory when the constructor returns.

    Args:
        request: What `keras_peer.main` reads.
        log: Receives whatever the libraries print.
    """

    def __init__(self, request: Mapping[str, Any], *, log: IO[bytes]) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")},
        )
        self._expect("ready")

    def run_trial(self) -> float:
        """Runs one trial and returns its wall time, in seconds."""
        self._go()
        seconds = float(self._expect("trial")["seconds"])
        self._expect("ready")
        return seconds

    def search(self) -> list[float]:
        """Searches for the time that was asked for; returns the best loss of every completed trial.

        Raises:
            RuntimeError: The process or one of its trials failed: the peer is broken, and its count means nothing.
        """
        self._go()
        ended = list(self._messages())
        if self._process.wait():
            raise RuntimeError(self._failure())
        failed = [message for message in ended if message["loss"] is None]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(ended)} trials of the peer failed: {failed[-1]}")
        return [float(message["loss"]) for message in ended]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _go(self) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the peer has no standard input: expected a pipe")
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def _messages(self) -> Iterator[dict[str, Any]]:
        for line in self._process.stdout or ():
            yield json.loads(line)

    def _expect(self, event: str) -> dict[str, Any]:
        message = next(self._messages(), None)
        if message is None or message["event"] != event:
            raise RuntimeError(f"the peer said {message}: expected {event!r}; {self._failure()}")
        return message

    def _failure(self) -> str:
        self._log.seek(0)
        return "it printed:\n" + self._log.read().decode(errors="replace")[-4000:]


@contextmanager
def keras_peer(kind: str, *, directory: Path, epochs: int, **details: Any) -> Iterator[PeerProcess]:
    """Yields a warm peer and ends it afterwards.

    Args:
        kind: One of ``plain``, ``keras-tuner`` and ``search``.
        directory: The run whose rows it trains on.
        epochs: Most epochs of a trial.
        details: ``values`` of the fixed configuration, or ``seconds`` of the search.
    """
    with tempfile.TemporaryDirectory(prefix="keras-peer-") as scratch, tempfile.TemporaryFile() as log:
        request = {"kind": kind, "directory": str(directory), "epochs": epochs, "scratch": scratch, **details}
        peer = PeerProcess(request, log=log)
        try:
            yield peer
        finally:
            peer.close()
