from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.schema import Task
from tf_serving.errors import VerificationError
from tf_serving.hostile_rows import hostile_rows
from tf_serving.verify import VerificationProcess, VerificationReport, verify_in_fresh_process, write_cases

Columns = dict[str, Any]

HOSTILE_NAMES = {
    "a b": "float",
    "a.b": "text",
    "a_b": "integer",
    "a/b": "float",
    "Age": "float",
    "age": "float",
    "größe": "float",
    "日本": "text",
    "lambda": "integer",
    "None": "float",
    "self": "float",
    "column000000": "float",
    "inputs": "float",
    "x\ny": "float",
    "^c:0": "float",
    "%": "float",
    "n" * 300: "float",
}
KEYWORD_NAMES = {"größe": "float", "lambda": "integer", "column000001": "float", "column000000": "float"}


def all_rows(model: Any) -> Columns:
    """Real rows and hostile ones."""
    hostile = hostile_rows(model.raw)
    return {name: np.concatenate([values, hostile[name]]) for name, values in model.raw.items()}


def stage(model: Any, directory: Path) -> Path:
    from tf_serving.export import stage_saved_model

    return stage_saved_model(
        model.answer,
        track=model.track,
        schema=model.schema,
        directory=directory,
        sample=model.raw,
        extra_files={},
    )


def verify(
    verifier: VerificationProcess, exported: Path, *, cases: Path, raw: Columns, expected: Columns
) -> VerificationReport:
    write_cases(cases / "cases.npz", raw, expected)
    return verifier.verify(exported, cases / "cases.npz")


def test_a_faithful_export_is_accepted_on_real_and_hostile_rows(
    verifier: VerificationProcess, penguins: Any, exported: Path, tmp_path: Path
) -> None:
    raw = all_rows(penguins)
    report = verify(verifier, exported, cases=tmp_path, raw=raw, expected=penguins.expected(raw))
    assert report.num_rows == len(raw["island"])
    assert report.batch_sizes == (1, 7, report.num_rows, 1_000)
    assert 0.0 <= report.max_difference <= 1e-5


@pytest.mark.parametrize(("columns", "task"), [(HOSTILE_NAMES, Task.MULTICLASS), (KEYWORD_NAMES, Task.REGRESSION)])
def test_column_names_arrive_exactly_whatever_tensorflow_makes_of_them(
    verifier: VerificationProcess,
    model_of: Callable[..., Any],
    tmp_path: Path,
    columns: dict[str, str],
    task: Task,
) -> None:
    model = model_of(columns, task=task)
    staging = stage(model, tmp_path / "names")
    expected = model.expected(model.raw)
    verify(verifier, staging, cases=tmp_path, raw=model.raw, expected=expected)


def test_a_regression_export_is_accepted_in_the_units_of_the_target(
    verifier: VerificationProcess, model_of: Callable[..., Any], tmp_path: Path
) -> None:
    model = model_of({"area": "float", "rooms": "integer", "town": "text"}, task=Task.REGRESSION)
    raw = all_rows(model)
    verify(verifier, stage(model, tmp_path / "homes"), cases=tmp_path, raw=raw, expected=model.expected(raw))


def test_a_wrong_number_is_refused_with_its_place(
    verifier: VerificationProcess, penguins: Any, exported: Path, tmp_path: Path
) -> None:
    expected = penguins.expected(penguins.raw)
    expected["probabilities"][5, 1] += 1e-3
    with pytest.raises(
        VerificationError,
        match=r"output 'probabilities' of 'serving_default', row 5, in batches of 1: "
        r"expected 0\.\d+, got 0\.\d+, difference 0.001 \(allowed 1e-05\)",
    ):
        verify(verifier, exported, cases=tmp_path, raw=penguins.raw, expected=expected)


def test_a_wrong_label_is_refused_unless_the_best_classes_tie(
    verifier: VerificationProcess, penguins: Any, exported: Path, tmp_path: Path
) -> None:
    expected = penguins.expected(penguins.raw)
    expected["label"][3] = b"Dodo"
    with pytest.raises(VerificationError, match=r"output 'label' .* row 3, .* expected b'Dodo', got b'\w+'"):
        verify(verifier, exported, cases=tmp_path, raw=penguins.raw, expected=expected)


def test_either_label_is_accepted_where_the_best_classes_tie() -> None:
    from tf_serving.verify_process import Comparison, Problem

    probabilities = np.array([[0.4, 0.4, 0.2], [0.5, 0.3, 0.2]], np.float32)
    comparison = Comparison(
        {"probabilities": probabilities, "label": np.array([b"a", b"a"], dtype=object)}, tolerance=1e-5
    )
    rows = np.arange(2)
    tied = {"probabilities": probabilities, "label": np.array([b"b", b"a"], dtype=object)}
    comparison.compare(tied, rows, batch_size=2)
    wrong = {"probabilities": probabilities, "label": np.array([b"a", b"b"], dtype=object)}
    with pytest.raises(Problem, match=r"output 'label' .* row 1, in batches of 2: expected b'a', got b'b'"):
        comparison.compare(wrong, rows, batch_size=2)


def test_either_text_is_accepted_where_another_is_as_near_as_the_tolerance() -> None:
    """Of weighted classes, and of several labels, the probabilities alone do not say where that is."""
    from tf_serving.verify_process import Comparison, Problem

    expected = {"probabilities": np.array([[0.9], [0.5]], np.float32), "late": np.array([b"no", b"no"], dtype=object)}
    comparison = Comparison(expected, tolerance=1e-5, distances={"late": np.array([0.4, 1e-7])})
    either = {"probabilities": expected["probabilities"], "late": np.array([b"no", b"yes"], dtype=object)}
    comparison.compare(either, np.arange(2), batch_size=2)
    wrong = {"probabilities": expected["probabilities"], "late": np.array([b"yes", b"no"], dtype=object)}
    with pytest.raises(Problem, match=r"output 'late' .* row 0, in batches of 2: expected b'no', got b'yes'"):
        comparison.compare(wrong, np.arange(2), batch_size=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_where_another_was_expected_is_refused(value: float) -> None:
    from tf_serving.verify_process import Comparison, Problem

    comparison = Comparison({"prediction": np.array([1.0, 2.0])}, tolerance=1e-5)
    with pytest.raises(Problem, match=r"row 1, in batches of 2: expected 2, got (nan|inf)"):
        comparison.compare({"prediction": np.array([1.0, value])}, np.arange(2), batch_size=2)


def test_an_answer_of_nan_is_refused_even_if_keras_said_so_too() -> None:
    from tf_serving.verify_process import Comparison, Problem

    comparison = Comparison({"prediction": np.array([np.nan])}, tolerance=1e-5)
    with pytest.raises(Problem, match=r"expected nan, got nan"):
        comparison.compare({"prediction": np.array([np.nan])}, np.arange(1), batch_size=1)


def test_other_columns_than_the_signature_takes_are_refused(
    verifier: VerificationProcess, penguins: Any, exported: Path, tmp_path: Path
) -> None:
    raw = {("isle" if name == "island" else name): values for name, values in penguins.raw.items()}
    with pytest.raises(VerificationError, match=r"The cases hold the columns .*'isle'.*, the export's schema"):
        verify(verifier, exported, cases=tmp_path, raw=raw, expected=penguins.expected(penguins.raw))


def test_outputs_that_nobody_expected_are_refused(
    verifier: VerificationProcess, penguins: Any, exported: Path, tmp_path: Path
) -> None:
    expected = penguins.expected(penguins.raw)
    del expected["label"]
    with pytest.raises(VerificationError, match=r"answers \['label', 'probabilities'\], expected \['prob"):
        verify(verifier, exported, cases=tmp_path, raw=penguins.raw, expected=expected)


def test_a_model_that_does_not_load_is_refused(
    verifier: VerificationProcess, penguins: Any, exported: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "1"
    shutil.copytree(exported, broken)
    (broken / "saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(VerificationError, match=r"The exported model could not be checked: "):
        verify(verifier, broken, cases=tmp_path, raw=penguins.raw, expected=penguins.expected(penguins.raw))


def test_a_model_that_depends_on_the_batch_is_refused(
    verifier: VerificationProcess, penguins: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    def answer(raw: Columns) -> Columns:
        outputs: Columns = penguins.answer(raw)
        rows = tf.cast(tf.shape(outputs["label"])[0], tf.float32)
        return outputs | {"probabilities": outputs["probabilities"] * (1.0 + 1e-3 * tf.nn.relu(rows - 100.0))}

    wrong = type(penguins)(answer=answer, track=penguins.track, schema=penguins.schema, raw=penguins.raw)
    staging = stage(wrong, tmp_path / "penguins")
    with pytest.raises(VerificationError, match=r"in batches of 1000"):
        verify(verifier, staging, cases=tmp_path, raw=penguins.raw, expected=penguins.expected(penguins.raw))


def test_the_time_limit_ends_the_process_and_says_so(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"not verified within 0.01 seconds; allow more time"):
        verify_in_fresh_process(exported, tmp_path / "cases.npz", timeout_seconds=0.01)


def test_a_process_that_dies_shows_its_last_lines(exported: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho no tensorflow here >&2\nexit 1\n")
    interpreter.chmod(0o755)
    with VerificationProcess.start(interpreter=str(interpreter)) as process:
        with pytest.raises(VerificationError, match=r"died before it answered:\n.*no tensorflow here"):
            process.verify(exported, tmp_path / "cases.npz")
        with pytest.raises(VerificationError, match="has ended; start another one"):
            process.verify(exported, tmp_path / "cases.npz")


def test_an_interpreter_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"Cannot start .*/none to verify the export: No such file"):
        VerificationProcess.start(interpreter=str(tmp_path / "none"))
