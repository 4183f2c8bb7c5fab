from __future__ import annotations

import pkgutil
import subprocess
import sys

import app.evaluation


def test_the_coordinators_reports_never_import_tensorflow() -> None:
    modules = [f"app.evaluation.{module.name}" for module in pkgutil.iter_modules(app.evaluation.__path__)]
    assert len(modules) >= 5
    lines = [f"import {module}" for module in [*modules, "app.tensorboard"]]
    lines += ["import sys", "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
