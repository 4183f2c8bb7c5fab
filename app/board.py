"""The real TensorBoard on a run directory."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from app.errors import RunDirectoryError, TamizError
from app.view import View

START_SECONDS = 60.0


def serve_board(run: Path, *, host: str, port: int, view: View) -> None:
    """Starts TensorBoard, prints its address when it answers, and stays until it ends or Ctrl-C.

    Args:
        run: A run directory, or a folder of several.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        view: Shows the address.

    Raises:
        RunDirectoryError: There is no such folder.
        TamizError: The port is taken, or TensorBoard does not start or ends by itself.
    """
    if not run.is_dir():
        raise RunDirectoryError(f"{run} is no folder: expected a run directory, or one that holds several")
    port = _checked_port(host, port)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run), "--host", host, "--port", str(port)]
    # Its messages go to a file: a pipe that nobody reads would block it some day.
    with tempfile.TemporaryFile() as log, _ended_by_signals():
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_until_ready(process, host, port, log)
            view.say(f"TensorBoard shows {run} at http://{host}:{port}/  (Ctrl-C ends it)")
            process.wait()
            raise TamizError(_how_it_ended(process, log))
        except KeyboardInterrupt:
            view.say("")
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM do what Ctrl-C does, so that TensorBoard never outlives the command."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_until_ready(process: subprocess.Popen[bytes], host: str, port: int, log: IO[bytes]) -> None:
    # A proxy that the environment names knows nothing of this machine's ports.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TamizError(_how_it_ended(process, log))
        with contextlib.suppress(OSError), direct.open(f"http://{host}:{port}/", timeout=2):
            return
        time.sleep(0.2)
    raise TamizError(f"TensorBoard did not answer on port {port} within {START_SECONDS:.0f} seconds")


def _how_it_ended(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    log.seek(0)
    last = log.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
    return f"TensorBoard ended with code {process.returncode}: {last[0]}"


def _checked_port(host: str, port: int) -> int:
    """Returns a port that is free now."""
    try:
        if port == 0:
            with socket.create_server((host, 0)) as server:
                return int(server.getsockname()[1])
    except OSError as error:
        raise TamizError(f"cannot listen on {host!r}: {error.strerror}; expected an address of this machine") from error
    if _answers(host, port):
        raise TamizError(f"port {port} is taken: give another with --port, or 0 for a free one")
    return port


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
