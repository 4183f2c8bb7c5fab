from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def test_tensorflows_own_tool_runs_the_export_on_raw_columns(finished: Any, tmp_path: Path) -> None:
    schema = json.loads((finished.run / "schema.json").read_text())
    row = {
        "island": "Biscoe",
        "bill_length_mm": 47.0,
        "bill_depth_mm": 15.0,
        "flipper_length_mm": 217.0,
        "body_mass_g": 5000.0,
        "sex": "male",
        "year": 2008.0,
    }
    assert {feature["name"] for feature in schema["features"] if feature["used"]} == set(row)
    inputs = ";".join(f"{name}={[value]!r}" for name, value in row.items())
    command = [
        sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run",
        "--dir", str(finished.run / "export" / "penguins" / "1"),
        "--tag_set", "serve", "--signature_def", "serving_default", "--input_exprs", inputs,
    ]  # fmt: skip
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Result for output key label:\n[b'Gentoo']" in done.stdout
    assert "Result for output key probabilities:\n[[" in done.stdout
