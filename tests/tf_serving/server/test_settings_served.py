"""Flags that change what is answered, on a server that has them all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOKEN = (("authorization", "Bearer t"),)


@pytest.fixture(scope="module")
def batched(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path whose version says how it is batched."""
    base = tmp_path_factory.mktemp("batched") / "batched"
    shutil.copytree(models / "half_plus_two" / "1", base / "1")
    (base / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    return base


@pytest.fixture(scope="module")
def running(run_server: Callable[..., Any], models: Path, batched: Path) -> Any:
    return run_server(
        model_name="half", model_base_path=str(models / "half_plus_two"), admin_token="t",
        allowed_roots=(str(models), str(batched.parent)), enable_signature_method_name_check=True,
        enable_serialization_as_tensor_content=True, rest_api_enable_cors_support=True,
        enable_grpc_healthcheck_service=False, enable_batching=True, enable_per_model_batching_parameters=True,
        grpc_channel_arguments="grpc.max_concurrent_streams=7",
    )  # fmt: skip


@pytest.fixture(scope="module")
def channel(running: Any) -> Iterator[Any]:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as opened:
        yield opened


def failure(call: Callable[[], Any]) -> tuple[str, str]:
    import grpc

    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()


def test_browsers_of_other_origins_are_let_in(running: Any) -> None:
    path = "/v1/models/half:predict"
    for method, body, status in (("OPTIONS", None, 200), ("POST", {"instances": [1.0]}, 200), ("POST", b"", 400)):
        answer = running.http(method, path, body, {"Origin": "https://example.org"})
        assert answer[0] == status
        assert answer[2]["Access-Control-Allow-Origin"] == "*"
        assert answer[2]["Access-Control-Allow-Methods"] == "POST, GET"
        assert answer[2]["Access-Control-Allow-Headers"] == "Content-Type"


def test_tensors_come_as_content(channel: Any) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([2.0, 4.0]))
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request).outputs["y"]
    assert answer.tensor_content == np.float32([4.0, 5.0]).tobytes()
    assert not answer.float_val


def test_signatures_have_to_be_made_for_their_method(running: Any) -> None:
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}]}
    assert running.http.predict("half", body, "classify")[0] == 200
    assert running.http.predict("half", body, "regress") == (
        400,
        {
            "error": "Expected regression signature method_name to be tensorflow/serving/regress. Was: "
            "tensorflow/serving/classify"
        },
    )


def test_the_health_service_can_be_left_out(channel: Any) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    check = health_pb2_grpc.HealthStub(channel).Check
    assert failure(lambda: check(health_pb2.HealthCheckRequest()))[0] == "UNIMPLEMENTED"


def reload_request(*models: tuple[str, Path]) -> Any:
    from tensorflow_serving.apis import model_management_pb2

    request = model_management_pb2.ReloadConfigRequest()
    for name, base_path in models:
        request.config.model_config_list.config.add(name=name, base_path=str(base_path), model_platform="tensorflow")
    return request


def test_a_client_with_the_token_reloads_and_hears_what_was_counted(
    running: Any, channel: Any, models: Path, batched: Path, tmp_path: Path
) -> None:
    from tensorflow_serving.apis import model_service_pb2_grpc

    reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
    half = ("half", models / "half_plus_two")
    request = reload_request(half, ("batched", batched), ("pair", models / "pair"))
    names = ["/tensorflow/cc/saved_model/load_attempt_count", "/tensorflow/serving/request_count", "/unknown"]
    request.metric_names.extend(names)
    response = reload(request, metadata=TOKEN)
    assert response.status.error_code == 0
    assert {metric.name: metric.int64_value_increase for metric in response.metric} == {names[0]: 2, names[1]: 0}
    assert sorted(running.server.models.names()) == ["batched", "half", "pair"]

    elsewhere = reload_request(half, ("m", tmp_path / "models"))
    assert failure(lambda: reload(elsewhere, metadata=TOKEN)) == (
        "PERMISSION_DENIED",
        "base_path of model m is not below --allowed_roots",
    )
    climbing = reload_request(("m", models / ".." / ".." / "etc"))
    assert failure(lambda: reload(climbing, metadata=TOKEN))[0] == "PERMISSION_DENIED"
    missing = reload_request(half, ("batched", batched), ("none", models / "none"))
    assert failure(lambda: reload(missing, metadata=TOKEN)) == (
        "UNKNOWN",
        "1 model(s) did not become available: {none}",
    )
    twice = reload_request(half, half)
    assert failure(lambda: reload(twice, metadata=TOKEN)) == (
        "INVALID_ARGUMENT",
        "Illegal to list model half multiple times in config list",
    )

    # Only models that say how are batched.
    assert running.http.predict("batched", {"instances": [1.0] * 2})[0] == 200
    assert running.http.predict("batched", {"instances": [1.0] * 3}) == (
        400,
        {"error": "Task size 3 is larger than maximum input batch size 2"},
    )
    assert running.http.predict("half", {"instances": [1.0] * 2000})[0] == 200


def test_without_a_token_nobody_reloads(run_server: Callable[..., Any], models: Path) -> None:
    import grpc
    from tensorflow_serving.apis import model_service_pb2_grpc

    running = run_server(model_name="half", model_base_path=str(models / "half_plus_two"), rest_api_port=0)
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
        reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        request = reload_request(("half", models / "half_plus_two"))
        code, text = failure(lambda: reload(request, metadata=(("authorization", "Bearer "),)))
        assert (code, text.partition(":")[0]) == ("PERMISSION_DENIED", "HandleReloadConfigRequest is off")
