"""The real TensorBoard on a finished run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def board(finished: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "board", str(finished.run), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A proxy must not come between the command and this machine.
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "http_proxy": "http://192.0.2.1:1"},
    )
    yield process
    process.kill()
    process.communicate()


def test_it_prints_an_address_that_answers_and_ends_with_ctrl_c(board: subprocess.Popen[str]) -> None:
    line = board.stdout.readline() if board.stdout else ""
    address = re.search(r"TensorBoard shows .*penguins at (http://127.0.0.1:\d+/)  \(Ctrl-C ends it\)", line)
    assert address, line + (board.communicate()[1] if board.poll() is not None else "")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(address[1] + "data/environment", timeout=30) as answer:
        assert "penguins" in json.load(answer)["data_location"]
    with direct.open(address[1] + "data/plugins_listing", timeout=30) as answer:
        assert {"scalars", "hparams", "graphs"} <= set(json.load(answer))
    found: set[str] = set()
    for _ in range(300):  # it reads the files in the background
        with direct.open(address[1] + "data/runs", timeout=30) as answer:
            found = set(json.load(answer))
        if len(found) >= 4:
            break
        signal.sigtimedwait([], 0.1)
    assert {"trials/0000", "trials/0001", "trials/0002", "best"} <= found
    board.send_signal(signal.SIGINT)
    _, errors = board.communicate(timeout=60)
    assert (board.returncode, errors) == (0, "")
    with pytest.raises(OSError, match="refused"):
        direct.open(address[1], timeout=5)
