"""Versions that come, go and fail while requests run.

``HOT_SWAPS=100 pytest -k wrong_or_lost -s tests/tf_serving/server/test_hot_swap.py`` runs more swaps, and counts.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tf_serving.server.config_files import ModelConfig, VersionPolicy
from tf_serving.server.served_version import State
from tf_serving.server.status import Code, ServingError

TRIES = 900
SWAPS = int(os.environ.get("HOT_SWAPS", "12"))


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(TRIES):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def copy_version(source: Path, target: Path) -> None:
    """As an export does: a hidden copy, then one rename."""
    hidden = target.parent / f".{target.name}"
    shutil.copytree(source, hidden)
    hidden.rename(target)


@pytest.fixture(scope="module")
def swapping(run_server: Callable[..., Any], models: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("swapping") / "m"
    copy_version(models / "half_plus_two" / "1", base / "1") if base.mkdir() is None else None
    return (
        run_server(
            model_name="m", model_base_path=str(base), file_system_poll_wait_seconds=0.05, load_retry_interval_micros=1
        ),
        base,
    )


def test_no_answer_is_wrong_or_lost_while_versions_are_swapped(swapping: Any, models: Path) -> None:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    running, base = swapping
    answers: list[Any] = []
    stop = threading.Event()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0, 4.0]))

    def ask() -> None:
        while not stop.is_set():
            answers.append(running.http.predict("m", {"instances": [0.0, 4.0]}))

    def ask_over_grpc() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not stop.is_set():
                try:
                    answer = stub.Predict(request, timeout=60)
                except grpc.RpcError as error:
                    answers.append((error.code(), error.details()))
                else:
                    answers.append((200, {"predictions": list(answer.outputs["y"].float_val)}))

    askers = [threading.Thread(target=target) for target in (ask, ask, ask_over_grpc)]
    for asker in askers:
        asker.start()
    try:
        for number in range(2, SWAPS + 2):
            copy_version(models / "half_plus_two" / str(1 + number % 2), base / str(number))
            wait_for(lambda number=number: running.server.models.available("m") == (number,))
            shutil.rmtree(base / str(number - 1))
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    allowed = ({"predictions": [2.0, 4.0]}, {"predictions": [3.0, 5.0]})
    assert all(status == 200 and body in allowed for status, body in answers)
    assert {str(body) for _, body in answers} == set(map(str, allowed))
    states = {one.version: one.state for one in running.server.store.status("m")}
    assert states[SWAPS + 1] is State.AVAILABLE
    print(f"{SWAPS} swaps, {len(answers)} answers, none wrong, none lost")
    wait_for(lambda: running.server.store.status("m", 5)[0].state is State.END)


def test_a_version_that_does_not_load_leaves_the_old_one(swapping: Any, models: Path) -> None:
    running, base = swapping
    (old,) = running.server.models.available("m")
    broken = base / "30"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"no model at all")
    wait_for(lambda: any(one.version == 30 and one.state is State.END for one in running.server.store.status("m")))
    status = running.http("GET", "/v1/models/m/versions/30")[1]["model_version_status"][0]
    assert status["state"] == "END"
    assert status["status"]["error_code"] == "DATA_LOSS"
    assert "Can't parse the SavedModel" in status["status"]["error_message"]
    assert running.server.models.available("m") == (old,)
    assert running.http.predict("m", {"instances": [0.0]})[0] == 200
    # Once its files are right, it is taken.
    shutil.copytree(models / "half_plus_two" / "1", broken, dirs_exist_ok=True)
    wait_for(lambda: running.server.models.available("m") == (30,))


def test_a_version_that_is_deleted_while_it_serves_gives_way_to_the_one_before(swapping: Any, models: Path) -> None:
    running, base = swapping
    (old,) = running.server.models.available("m")
    answers: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(running.http.predict("m", {"instances": [0.0]}))

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        copy_version(models / "half_plus_two" / "2", base / "31")
        wait_for(lambda: running.server.models.available("m") == (31,))
        shutil.rmtree(base / "31")
        wait_for(lambda: running.server.models.available("m") == (old,))
    finally:
        stop.set()
        asker.join()
    assert {str(answer) for answer in answers} <= {"(200, {'predictions': [2.0]})", "(200, {'predictions': [3.0]})"}


def test_a_base_path_that_goes_away_changes_nothing(swapping: Any) -> None:
    running, base = swapping
    away = base.with_name("away")
    base.rename(away)
    time.sleep(0.3)
    assert running.http.predict("m", {"instances": [0.0]})[0] == 200
    away.rename(base)


def test_warm_up_is_replayed_and_a_bad_record_fails_the_load(swapping: Any, models: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    running, base = swapping
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))

    def publish(number: int, records: list[bytes] | bytes) -> None:
        hidden = base / f".{number}"
        shutil.copytree(models / "half_plus_two" / "1", hidden)
        (hidden / "assets.extra").mkdir()
        file = hidden / "assets.extra" / "tf_serving_warmup_requests"
        if isinstance(records, bytes):
            file.write_bytes(records)
        else:
            with tf.io.TFRecordWriter(str(file)) as writer:
                for record in records:
                    writer.write(record)
        hidden.rename(base / str(number))
        wait_for(lambda: any(one.version == number for one in running.server.store.status("m")))
        wait_for(lambda: running.server.store.status("m", number)[0].state is not State.LOADING)

    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    good = log.SerializeToString()
    publish(40, [good, good])
    wait_for(lambda: running.server.models.available("m") == (40,))
    page = running.http("GET", "/monitoring/prometheus/metrics")[1].decode()
    assert f':tensorflow:serving:model_warmup_records_read{{model_path="{base}/40"}} 2' in page
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(["text"]))
    log.predict_log.request.CopyFrom(request)
    cases: list[tuple[list[bytes] | bytes, str]] = [
        ([log.SerializeToString()], ""),
        ([b"\xff\xff"], "Failed to parse warmup record"),
        ([prediction_log_pb2.PredictionLog().SerializeToString()], "Unsupported log_type for warmup"),
        (b"this is no TFRecord file at all", "Please verify your warmup data is in TFRecord format."),
        ([good] * 1001, "Number of warmup records exceeds the maximum (1000) at"),
    ]
    for number, (records, message) in enumerate(cases, 41):
        publish(number, records)
        status = running.server.store.status("m", number)[0]
        assert status.state is State.END
        assert message in status.message
    assert running.server.models.available("m") == (40,)


def test_an_empty_base_path_unloads_everything(swapping: Any) -> None:
    running, base = swapping
    for entry in base.iterdir():
        shutil.rmtree(entry)
    wait_for(lambda: running.server.models.available("m") == ())
    assert running.http.predict("m", {"instances": [0.0]}) == (
        404,
        {"error": "Servable not found for request: Latest(m)"},
    )
    assert running.http("GET", "/readyz")[0] == 503


def test_reload_serves_exactly_what_it_names(run_server: Callable[..., Any], models: Path) -> None:
    running = run_server(model_name="pair", model_base_path=str(models / "pair"))
    half = ModelConfig("half", models / "half_plus_two", policy=VersionPolicy("specific", versions=(1,)))
    # A new version and its label in one go, which TensorFlow Serving cannot do.
    labelled = ModelConfig("half", half.base_path, policy=VersionPolicy("all"), labels={"old": 1, "new": 2})
    assert running.server.reload((half,)) == []
    assert running.server.models.names() == ("half",)
    assert running.http.predict("pair", {"instances": [1]})[0] == 404
    assert running.server.models.available("half") == (1,)
    assert running.server.reload((labelled,)) == []
    assert running.server.models.labels("half") == {"old": 1, "new": 2}
    wrong = ModelConfig("half", half.base_path, policy=VersionPolicy("all"), labels={"next": 3})
    with pytest.raises(ServingError) as raised:
        running.server.reload((wrong,))
    assert raised.value.code is Code.FAILED_PRECONDITION
    assert raised.value.message.startswith(
        "Request to assign label to version 3 of model half, which is not currently available for inference"
    )
    # What cannot be had leaves the labels as they were.
    assert running.server.models.labels("half") == {"old": 1, "new": 2}
    latest = ModelConfig("half", half.base_path)
    assert running.server.reload((latest, ModelConfig("none", models / "missing"))) == ["none"]
    assert running.server.models.available("half") == (2,)


def test_a_new_label_may_be_ahead_of_its_version_where_allowed_and_a_moved_one_never(
    run_server: Callable[..., Any], models: Path
) -> None:
    base = models / "half_plus_two"
    running = run_server(
        model_name="half", model_base_path=str(base), allow_version_labels_for_unavailable_models=True, port=0
    )

    def label(**labels: int) -> list[str]:
        missing: list[str] = running.server.reload((ModelConfig("half", base, labels=labels),))
        return missing

    assert label(stable=2, next=3) == []
    answer = running.http("POST", "/v1/models/half/labels/next:predict", {"instances": [0.0]})
    assert answer[:2] == (404, {"error": "Servable not found for request: Specific(half, 3)"})
    with pytest.raises(ServingError, match="Request to assign label to version 4 of model half"):
        label(stable=4)
    assert running.server.models.labels("half") == {"stable": 2, "next": 3}
