"""The real TensorBoard on a run directory."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

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
        TamizError: The port is taken or TensorBoard does not start.
    """
    if not run.is_dir():
        raise RunDirectoryError(f"{run} is no folder: expected a run directory, or one that holds several")
    port = port or _free_port(host)
    if _answers(host, port):
        raise TamizError(f"port {port} is taken: give another with --port, or 0 for a free one")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run), "--host", host, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_ready(process, host, port)
        view.say(f"TensorBoard shows {run} at http://{host}:{port}/  (Ctrl-C ends it)")
        process.wait()
    except KeyboardInterrupt:
        view.say("")
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()


def _wait_until_ready(process: subprocess.Popen[str], host: str, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            output = process.stderr.read() if process.stderr else ""
            last = output.strip().splitlines()[-1:] or ["no message"]
            raise TamizError(f"TensorBoard ended with code {process.returncode}: {last[0]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{host}:{port}/", timeout=2):
            return
        time.sleep(0.2)
    raise TamizError(f"TensorBoard did not answer on port {port} within {START_SECONDS:.0f} seconds")


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
