"""R2: the coordinator holds no TensorFlow; and `--help` holds nothing heavy at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP = """
import sys
from app.cli import main
sys.argv = ["tamiz", "--help"]
try:
    main()
except SystemExit:
    pass
"""


def modules_after(statement: str) -> set[str]:
    """Names of the top-level modules in a fresh process after `statement`."""
    script = f"{statement}\nimport sys\nprint('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT)
    last = done.stdout.strip().splitlines()[-1].split()
    if last[0] != "LOADED":
        pytest.fail(f"unexpected output: {done.stdout}")
    return set(last[1:])


def test_tensorflow_stays_out_of_the_coordinator() -> None:
    coordinator = "tamiz, app.cli, app.experiment, app.execution.local_executor"
    loaded = modules_after(f"import {coordinator}, app.execution.worker_process")
    assert "pandas" in loaded
    assert not loaded & {"tensorflow", "keras", "keras_tuner"}


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after(HELP)
    assert "typer" in loaded
    assert not loaded & {"numpy", "pandas", "pyarrow", "scipy", "sklearn", "tensorflow", "keras"}
