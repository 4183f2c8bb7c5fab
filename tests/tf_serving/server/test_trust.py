from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tf_serving.server.preflight import Preflight
from tf_serving.server.status import Code, ServingError
from tf_serving.server.trust import check_version
from tf_serving.version_manifest import write_manifest


def saved(directory: Path, function: Any, *, shape: tuple[int | None, ...] = ()) -> Path:
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(1.0)  # gives the graph its operations for saving and restoring
    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.string, name="x")])
    tf.saved_model.save(module, str(directory), signatures=traced)
    return directory


def refusal(directory: Path, *, allow_unverified: bool = True) -> ServingError:
    with pytest.raises(ServingError) as raised:
        check_version(directory, allow_unverified=allow_unverified)
    return raised.value


def test_a_model_without_a_manifest_needs_permission(models: Path) -> None:
    version = models / "half_plus_two" / "1"
    error = refusal(version, allow_unverified=False)
    assert error.code is Code.PERMISSION_DENIED
    assert "start the server with --allow-unverified" in error.message
    for known in ("half_plus_two/1", "types/1", "pair/7"):
        check_version(models / known, allow_unverified=True)


def lite_file(path: Path, *operations: str) -> Path:
    """A TensorFlow Lite file that names custom operations, and nothing else."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT()
    model.version, model.operatorCodes = 3, []
    for operation in operations:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = operation
        model.operatorCodes.append(code)
    builder = schema.flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def test_lite_files_that_call_tensorflow_are_refused(tmp_path: Path) -> None:
    lite_file(tmp_path / "model.tflite", "TFLite_Detection_PostProcess")
    check_version(tmp_path, allow_unverified=True, is_lite=True)
    lite_file(tmp_path / "model.tflite", "FlexAddV2", "TFLite_Detection_PostProcess")
    check_version(tmp_path, allow_unverified=True)  # it is not what is loaded
    with pytest.raises(ServingError, match=r"not allowed in a model without a manifest: FlexAddV2\.$") as raised:
        check_version(tmp_path, allow_unverified=True, is_lite=True)
    assert raised.value.code is Code.PERMISSION_DENIED
    (tmp_path / "model.tflite").write_bytes(b"no model")
    with pytest.raises(ServingError, match=r"Cannot load .*model\.tflite: it is no TensorFlow Lite model"):
        check_version(tmp_path, allow_unverified=True, is_lite=True)


def test_a_changed_export_is_refused_even_where_others_are_allowed(models: Path, tmp_path: Path) -> None:
    version = tmp_path / "1"
    shutil.copytree(models / "pair" / "7", version)
    write_manifest(version) if (version / "assets.extra").mkdir() is None else None
    check_version(version, allow_unverified=False)
    with (version / "saved_model.pb").open("ab") as file:
        file.write(b"x")
    error = refusal(version)
    assert error.code is Code.DATA_LOSS
    assert "was changed after the export" in error.message


def test_operations_that_reach_files_are_refused_wherever_they_hide(tmp_path: Path) -> None:
    import tensorflow as tf

    def reads(x: Any) -> Any:
        return {"y": tf.io.read_file(x)}

    def in_a_branch(x: Any) -> Any:
        return {"y": tf.cond(tf.equal(x, "k"), lambda: tf.io.read_file(x), lambda: x)}

    def in_a_dataset(x: Any) -> Any:
        data = tf.data.Dataset.from_tensors(x).map(lambda value: tf.io.read_file(value))
        return {"y": data.reduce(x, lambda _, value: value)}

    def writes(x: Any) -> Any:
        tf.io.write_file("/nowhere/at/all", x)
        return {"y": x}

    def by_python(x: Any) -> Any:
        return {"y": tf.numpy_function(lambda value: value, [x], tf.string)}

    for function, operation in (
        (reads, "ReadFile"),
        (in_a_branch, "ReadFile"),
        (in_a_dataset, "Dataset"),
        (writes, "WriteFile"),
        (by_python, "PyFunc"),
    ):
        error = refusal(saved(tmp_path / function.__name__, function))
        assert error.code is Code.PERMISSION_DENIED
        assert "contains operations that are not allowed" in error.message
        assert operation in error.message


def test_saving_is_allowed_only_where_nothing_leads_to_it(tmp_path: Path) -> None:
    import tensorflow as tf

    def harmless(x: Any) -> Any:
        return {"y": tf.strings.upper(x)}

    def saves(x: Any) -> Any:
        tf.raw_ops.SaveV2(prefix=x, tensor_names=["a"], shape_and_slices=[""], tensors=[x])
        return {"y": x}

    check_version(saved(tmp_path / "harmless", harmless), allow_unverified=True)
    error = refusal(saved(tmp_path / "saves", saves))
    assert "would write files when it is loaded or called (SaveV2)" in error.message


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 100)
    assert refusal(tmp_path).code is Code.DATA_LOSS


def test_a_version_is_tried_in_a_process_of_its_own(models: Path) -> None:
    from tf_serving.server.loading import LoadOptions

    preflight = Preflight()
    preflight.start()
    options = LoadOptions(allow_unverified=True)
    try:
        preflight(options, models / "half_plus_two" / "1", "half")
        with pytest.raises(ServingError, match="start the server with --allow-unverified"):
            preflight(LoadOptions(), models / "half_plus_two" / "1", "half")
        child = preflight._running()
        os.kill(child.pid, signal.SIGSTOP)
        preflight._timeout = 0.2
        with pytest.raises(ServingError, match="did not load within 0 seconds in a process of its own"):
            preflight(options, models / "pair" / "7", "pair")
        preflight._timeout = 60.0
        replacement = preflight._running()
        os.kill(replacement.pid, signal.SIGKILL)
        replacement.wait()
        assert preflight._running().pid != replacement.pid
    finally:
        preflight.close()
