from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.schema import DatasetSchema, Task
from tf_serving.errors import ExportError, VerificationError
from tf_serving.model_versions import versions
from tf_serving.version_manifest import verify_manifest

Columns = dict[str, Any]


def extra(exported: Path, name: str) -> Path:
    return exported / "assets.extra" / name


def stage(model: Any, directory: Path, **changes: Any) -> Path:
    from tf_serving.export import stage_saved_model

    arguments = {
        "track": model.track,
        "schema": model.schema,
        "directory": directory,
        "sample": model.raw,
        "extra_files": {},
    }
    return stage_saved_model(changes.pop("answer", model.answer), **(arguments | changes))


def signature_defs(exported: Path) -> dict[str, Any]:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    return dict(saved_model.meta_graphs[0].signature_def)


def test_the_signatures_are_what_tensorflow_serving_calls(exported: Path) -> None:
    import tensorflow as tf

    signatures = signature_defs(exported)
    default, classify = signatures["serving_default"], signatures["classify"]
    assert {name: value.dtype for name, value in default.inputs.items()} == {
        "island": tf.string.as_datatype_enum,
        "bill length": tf.float32.as_datatype_enum,
        "body_mass": tf.float32.as_datatype_enum,
    }
    assert {len(value.tensor_shape.dim) for value in default.inputs.values()} == {1}
    assert set(default.outputs) == {"probabilities", "label"}
    assert default.method_name == "tensorflow/serving/predict"
    assert list(classify.inputs) == ["inputs"]
    assert set(classify.outputs) == {"classes", "scores"}
    assert classify.method_name == "tensorflow/serving/classify"


def test_nothing_of_keras_is_in_the_object_graph(exported: Path) -> None:
    assert b"keras" not in (exported / "saved_model.pb").read_bytes().lower()


def test_the_fingerprint_is_that_of_the_file(exported: Path) -> None:
    from tensorflow.core.protobuf import fingerprint_pb2
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    written = fingerprint_pb2.FingerprintDef.FromString((exported / "fingerprint.pb").read_bytes())
    again = fingerprint_pb2.FingerprintDef.FromString(fingerprinting.CreateFingerprintDef(str(exported)))
    assert written.saved_model_checksum == again.saved_model_checksum


def test_classify_names_the_classes_beside_the_scores(exported: Path, penguins: Any) -> None:
    import tensorflow as tf

    classify = tf.saved_model.load(exported).signatures["classify"]
    answer = classify(inputs=tf.constant([b"", b""]))
    classes = penguins.schema.target.classes
    assert answer["classes"].numpy().tolist() == [[name.encode() for name in classes]] * 2
    assert answer["scores"].shape == (2, len(classes))


def test_an_export_is_complete_and_its_manifest_holds(exported: Path, penguins: Any) -> None:
    files = verify_manifest(exported)
    assert {path for path in files if path.startswith("assets.extra/")} == {
        f"assets.extra/{name}"
        for name in (
            "model_card.md",
            "profile.json",
            "sample_request.json",
            "schema.json",
            "tf_serving_warmup_requests",
        )
    }
    assert {"saved_model.pb", "variables/variables.index", "fingerprint.pb"} <= set(files)
    schema = DatasetSchema.from_json(json.loads(extra(exported, "schema.json").read_text(encoding="utf-8")))
    assert schema == penguins.schema


def test_a_tampered_export_is_refused(penguins: Any, tmp_path: Path) -> None:
    staging = stage(penguins, tmp_path / "penguins")
    with (staging / "variables" / "variables.data-00000-of-00001").open("r+b") as file:
        file.write(b"\x01")
    with pytest.raises(VerificationError, match=r"variables.data-00000-of-00001' in .* was changed"):
        verify_manifest(staging)


def test_the_sample_request_is_valid_for_tensorflow_serving(exported: Path, penguins: Any) -> None:
    text = extra(exported, "sample_request.json").read_text(encoding="utf-8")
    instances = json.loads(text)["instances"]
    assert len(instances) == 2
    assert "null" not in text
    for index, instance in enumerate(instances):
        assert list(instance) == list(penguins.raw)
        assert isinstance(instance["island"], str)
        for name in ("bill length", "body_mass"):
            np.testing.assert_array_equal(np.float32(instance[name]), penguins.raw[name][index])


def test_the_warm_up_requests_are_answered_by_the_export(exported: Path, penguins: Any) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(extra(exported, "tf_serving_warmup_requests"))).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    assert [log.WhichOneof("log_type") for log in logs] == ["predict_log", "classify_log"] * 2
    signatures = tf.saved_model.load(exported).signatures
    for log, num_rows in zip(logs, (1, 1, 32, 32), strict=True):
        request = getattr(log, log.WhichOneof("log_type")).request
        assert request.model_spec.name == "penguins"
        if log.HasField("predict_log"):
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        else:
            examples = [item.SerializeToString() for item in request.input.example_list.examples]
            inputs = {"inputs": tf.constant(examples)}
        answer = signatures[request.model_spec.signature_name](**inputs)
        scores = answer.get("probabilities", answer.get("scores")).numpy()
        rows = {name: np.resize(values, num_rows) for name, values in penguins.raw.items()}
        np.testing.assert_allclose(scores, penguins.expected(rows)["probabilities"], atol=1e-6)


def test_saved_model_cli_runs_on_raw_columns(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensorflow.python.tools import saved_model_cli

    # The two calls behind "saved_model_cli run --input_exprs"; a process of its own would import TensorFlow again.
    expressions = "island=['Dream','an island'];bill length=[39.1,40];body_mass=[3750,1]"
    feeds = saved_model_cli.load_inputs_from_input_arg_string("", expressions, "")
    saved_model_cli.run_saved_model_with_feed_dict(
        str(exported), "serve", "serving_default", feeds, outdir=None, overwrite_flag=False
    )
    printed = capsys.readouterr().out
    assert "Result for output key label:" in printed
    assert "Result for output key probabilities:" in printed


def test_versions_count_up_and_failed_exports_leave_none(penguins: Any, tmp_path: Path) -> None:
    from tf_serving.export import export_saved_model
    from tf_serving.model_versions import publish

    directory = tmp_path / "penguins"
    arguments = {"track": penguins.track, "schema": penguins.schema, "directory": directory, "extra_files": {}}
    staging = stage(penguins, directory)
    assert versions(directory) == ()
    assert publish(staging) == directory / "1"
    assert export_saved_model(penguins.answer, sample=penguins.raw, **arguments) == directory / "2"
    # Without the tables TensorFlow cannot save; what it had written is removed.
    with pytest.raises(AssertionError, match="untracked"):
        export_saved_model(penguins.answer, sample=penguins.raw, **(arguments | {"track": ()}))
    assert sorted(entry.name for entry in directory.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "columns", [{"a b": "float", "c": "text"}, {"a b": "float", "a.b": "float", "self": "integer"}]
)
def test_a_loaded_signature_is_called_with_any_column_names(
    model_of: Callable[..., Any], tmp_path: Path, columns: dict[str, str]
) -> None:
    import tensorflow as tf

    from tf_serving.signatures import call_signature

    model = model_of(columns)
    loaded = tf.saved_model.load(stage(model, tmp_path / "names"))
    tensors = {name: tf.constant(values) for name, values in model.raw.items()}
    outputs = call_signature(loaded.signatures["serving_default"], tensors)
    np.testing.assert_allclose(outputs["probabilities"], model.expected(model.raw)["probabilities"], atol=1e-6)


def test_a_full_disk_leaves_nothing_and_says_so(penguins: Any, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))  # the nearest thing to a full disk
    try:
        with pytest.raises(ExportError, match=r"Cannot write the export to \S+: File too large; check space"):
            stage(penguins, tmp_path / "penguins")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "penguins").iterdir()) == []


def test_an_unwritable_place_is_an_export_error(penguins: Any, tmp_path: Path) -> None:
    (tmp_path / "export").write_text("a file where a directory should be")
    with pytest.raises(ExportError, match="Cannot write the export"):
        stage(penguins, tmp_path / "export" / "penguins")


@pytest.mark.parametrize("name", ["../escape", "manifest.json", "tf_serving_warmup_requests"])
def test_extra_files_with_other_or_reserved_names_are_refused(penguins: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"Expected a file name|The export writes .* itself"):
        stage(penguins, tmp_path / "penguins", extra_files={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_model_name_is_refused(penguins: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a model name"):
        stage(penguins, tmp_path / "a model")


def wrong_shape(outputs: Columns) -> Columns:
    return {"probabilities": outputs["probabilities"][:, :2], "label": outputs["label"]}


def fixed_batch(outputs: Columns) -> Columns:
    import tensorflow as tf

    return outputs | {"probabilities": tf.ensure_shape(outputs["probabilities"], (8, 3))}


@pytest.mark.parametrize("change", [wrong_shape, fixed_batch, lambda outputs: {"label": outputs["label"]}])
def test_answers_that_break_the_contract_are_refused(
    penguins: Any, tmp_path: Path, change: Callable[[Columns], Columns]
) -> None:
    with pytest.raises(ValueError, match=r"Expected the model to answer 'probabilities' as float32 of shape"):
        stage(penguins, tmp_path / "penguins", answer=lambda raw: change(penguins.answer(raw)))


def test_a_sample_without_rows_or_of_other_types_is_refused(penguins: Any, tmp_path: Path) -> None:
    empty = {name: values[:0] for name, values in penguins.raw.items()}
    with pytest.raises(ValueError, match="Expected sample rows with a value for every used column"):
        stage(penguins, tmp_path / "penguins", sample=empty)
    text = penguins.raw | {"island": np.array(["Dream"] * 40)}
    with pytest.raises(ValueError, match=r"Expected sample values of 'island' as string .* received <U5"):
        stage(penguins, tmp_path / "penguins", sample=text)


def test_a_multilabel_model_needs_no_single_label(penguins: Any, tmp_path: Path) -> None:
    names = ("sings", "flies", "swims")
    target = replace(
        penguins.schema.target,
        task=Task.MULTILABEL,
        classes=names,
        columns=names,
        label_values=(("no", "yes"),) * 3,
    )

    def answer(raw: Any) -> Any:
        answered = penguins.answer(raw)
        return {"probabilities": answered["probabilities"]} | dict.fromkeys(names, answered["label"])

    schema = replace(penguins.schema, target=target)
    staging = stage(penguins, tmp_path / "penguins", schema=schema, answer=answer)
    assert set(signature_defs(staging)["serving_default"].outputs) == {"probabilities", *names}
