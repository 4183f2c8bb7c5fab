"""R2: the coordinator holds no TensorFlow; and `--help` holds nothing heavy at all."""

from __future__ import annotations

import subprocess
import sys

import pytest


def modules_after(statement: str) -> set[str]:
    """Names of the top-level modules in a fresh process after `statement`."""
    script = f"{statement}\nimport sys\nprint('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    last = done.stdout.strip().splitlines()[-1].split()
    if last[0] != "LOADED":
        pytest.fail(f"unexpected output: {done.stdout}")
    return set(last[1:])


def test_tensorflow_stays_out_of_the_coordinator() -> None:
    loaded = modules_after("import tamiz, app.cli, app.experiment, app.execution.local_executor, app.execution.worker")
    assert "pandas" in loaded
    assert not loaded & {"tensorflow", "keras", "keras_tuner"}


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; sys.argv = ['tamiz', '--help']\ntry:\n from app.cli import main; main()\nexcept SystemExit: pass"
    loaded = modules_after(script)
    assert "typer" in loaded
    assert not loaded & {"numpy", "pandas", "pyarrow", "scipy", "sklearn", "tensorflow", "keras"}
