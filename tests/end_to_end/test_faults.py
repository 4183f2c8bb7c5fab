"""One search of the fault benchmark, which says what it looks at; many more of them take too long for every change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "faults.py"


def test_a_search_whose_coordinator_and_worker_are_killed_ends_as_if_nothing_had_happened() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of a coordinator, 1 of a worker" in done.stdout
    assert done.stdout.rstrip().endswith("wrong: 0")
