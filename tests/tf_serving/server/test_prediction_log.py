"""``logging_config``: requests that were answered become records, which are warm-up data."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tf_serving.server.config_files import ModelConfig, RequestSampling


def records(folder: Path) -> list[Any]:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    found = []
    for path in sorted(folder.glob("half-m-*.tfrecord")):
        assert path.stat().st_mode & 0o777 == 0o600
        found += [
            prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))
        ]
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def logged(run_server: Callable[..., Any], models: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("logged") / "m"
    shutil.copytree(models / "half_plus_two" / "1", base / "1")
    return run_server(model_name="m", model_base_path=str(base), file_system_poll_wait_seconds=0.05), base


def test_answers_are_logged_as_asked_and_can_be_replayed(logged: Any, tmp_path: Path) -> None:
    import grpc
    from tensorflow_serving.apis import inference_pb2, prediction_service_pb2_grpc

    running, base = logged
    config = ModelConfig("m", base, sampling=RequestSampling(str(tmp_path / "half"), 1.0))
    running.http.predict("m", {"instances": [1.0]})  # not yet
    running.server.reload((config,))
    assert running.http.predict("m", {"instances": [4.0]})[0] == 200
    assert running.http.predict("m", {"instances": ["text"]})[0] == 400  # no answer, no record
    for verb, signature in (("classify", "classify_x_to_y"), ("regress", "regress_x_to_y")):
        body = {"signature_name": signature, "examples": [{"x": 2.0}]}
        assert running.http.predict("m", body, verb)[0] == 200
    request = inference_pb2.MultiInferenceRequest()
    task = request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "m", "regress_x_to_y"
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(6.0)
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).MultiInference(request)
    logs = running.server._logs
    wait_for(lambda: logs._metrics.log_count.total() == 4)
    running.server.reload((replace(config, sampling=None),))
    running.http.predict("m", {"instances": [1.0]})  # no more
    wait_for(lambda: len(records(tmp_path)) == 4)
    predict, classify, regress, multi = records(tmp_path)
    assert predict.predict_log.request.model_spec.version.value == 1
    assert list(predict.predict_log.request.inputs["x"].float_val) == [4.0]
    assert list(predict.predict_log.response.outputs["y"].float_val) == [4.0]
    assert predict.log_metadata.sampling_config.sampling_rate == 1.0
    assert classify.classify_log.response.result.classifications[0].classes[0].label == "yes"
    assert regress.regress_log.response.result.regressions[0].value == 3.0
    assert multi.multi_inference_log.response.results[0].regression_result.regressions[0].value == 5.0
    assert multi.multi_inference_log.request.tasks[0].model_spec == task.model_spec or task.model_spec.name == "m"

    # The file is warm-up data as it stands.
    hidden = base / ".2"
    shutil.copytree(base / "1", hidden)
    (hidden / "assets.extra").mkdir()
    (file,) = tmp_path.glob("half-m-*.tfrecord")
    shutil.copy(file, hidden / "assets.extra" / "tf_serving_warmup_requests")
    hidden.rename(base / "2")
    wait_for(lambda: running.server.models.available("m") == (2,))


def test_a_full_disk_drops_records_and_answers_go_on(logged: Any, tmp_path: Path) -> None:
    running, base = logged
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr}")
    try:
        (disk / "other").write_bytes(b"x" * 65_536)
        sampling = RequestSampling(str(disk / "half"), 1.0)
        running.server.reload((ModelConfig("m", base, sampling=sampling),))
        large = {"instances": [1.0] * 20_000}
        assert all(running.http.predict("m", large)[0] == 200 for _ in range(5))
        logs = running.server._logs
        wait_for(lambda: logs._queue.is_empty)
        running.server.reload((ModelConfig("m", base),))
        assert running.http.predict("m", {"instances": [0.0]})[0] == 200
        assert sum(path.stat().st_size for path in disk.glob("half*")) == 0
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
