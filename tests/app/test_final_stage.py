from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np

from app.data_files import read_arrow
from app.evaluation.sealed_test import SealedTestReport
from app.final_stage import card_text, sample_instance
from pipelines.splits import Split


def test_the_sample_is_the_first_validation_row_as_a_request_holds_it(small_run: Any) -> None:
    table = small_run.data.table.filter(small_run.data.splits == Split.VALIDATION)
    first = table.slice(0, 1).to_pylist()[0]
    instance = sample_instance(small_run.directory, small_run.data.schema)
    assert list(instance) == ["size", "shop[1]"]
    assert instance["shop[1]"] == first["shop[1]"]
    np.testing.assert_equal(instance["size"], np.nan if first["size"] is None else first["size"])


def test_the_card_shows_how_to_call_the_model_with_that_row(small_run: Any, tested: SealedTestReport) -> None:
    text = card_text(small_run.directory, small_run.config, tested)
    instance = sample_instance(small_run.directory, small_run.data.schema)
    assert json.dumps({"instances": [instance]}) in text
    assert "saved_model_cli run --dir export/small/1" in text


def test_a_metric_without_interval_leaves_its_cell_empty(small_run: Any, tested: SealedTestReport) -> None:
    text = card_text(small_run.directory, small_run.config, tested)
    assert "| roc\\_auc | 0.9 | 0.8 to 0.97 | 0.5 | 0.89 |" in text
    assert "| brier | 0.1234 |  | 0.25 |  |" in text
    assert "nan" not in text.split("## Inputs")[0].lower()


def test_the_stored_rows_are_all_but_the_sealed_ones(small_run: Any) -> None:
    development, sealed = read_arrow(small_run.directory.development_file), read_arrow(small_run.directory.test_file)
    assert sealed.num_rows == int((small_run.data.splits == Split.TEST).sum())
    assert development.num_rows + sealed.num_rows == 120


def test_the_coordinator_side_needs_no_tensorflow() -> None:
    program = "import sys, app.final_stage; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
