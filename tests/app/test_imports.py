"""R2: the coordinator holds no TensorFlow, nor does what it takes from other rooms; `--help` holds nothing heavy."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import app.evaluation

ROOT = Path(__file__).resolve().parents[2]
COORDINATOR = (
    "tamiz",
    "app.cli",
    "app.experiment",
    "app.final_stage",
    "app.tensorboard",
    "app.execution.local_executor",
    "app.execution.worker_process",
    "search_spaces.context",
    "search_spaces.catalogue",
    "tf_serving.verify",
    "tf_serving.hostile_rows",
    "tf_serving.model_card",
    "tf_serving.model_versions",
    "tf_serving.version_manifest",
    "tf_serving.verification_cases",
    "tf_serving.sample_request",
    "tf_serving.errors",
    # The server says what is wrong with its flags before it holds TensorFlow.
    "tf_serving.server.main",
    "tf_serving.server.extensions",
)
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
    reports = [f"app.evaluation.{module.name}" for module in pkgutil.iter_modules(app.evaluation.__path__)]
    assert len(reports) >= 5
    # One process for all: a start of Python with pandas and scikit-learn costs seconds.
    script = f"""
import importlib, sys
for module in {(*COORDINATOR, *reports)!r}:
    importlib.import_module(module)
    found = [name for name in ("tensorflow", "keras", "keras_tuner") if name in sys.modules]
    if found:
        sys.exit(f"{{module}} imports {{found}}")
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after(HELP)
    assert "typer" in loaded
    assert not loaded & {"numpy", "pandas", "pyarrow", "scipy", "sklearn", "tensorflow", "keras"}
