from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tf_serving.server.config_files import ModelConfig, VersionPolicy
from tf_serving.server.extensions import (
    Arrays,
    Call,
    Extensions,
    HttpRequest,
    HttpResponse,
    ModelsView,
    Route,
    SignatureView,
)
from tf_serving.server.status import Code, ServingError


class KeyGate:
    def admit(self, headers: Mapping[str, str], *, path: str, peer: str) -> None:
        if headers.get("x-key") != "right":
            raise ServingError(Code.UNAUTHENTICATED, f"No key for {path} from {bool(peer)}")


class OldRouter:
    def choose(self, model: str, available: Sequence[int], headers: Mapping[str, str]) -> int | None:
        return available[-1] if model and headers.get("x-old") else None


class Memory:
    """Answers 99 from memory, fails on 98, and sees everything."""

    def __init__(self) -> None:
        self.seen: list[tuple[Call, Arrays | None, ServingError | None]] = []

    def before(self, call: Call) -> Arrays | None:
        first = call.inputs.get("x", np.zeros(1))[0]
        if first == 98:
            raise ValueError("a mistake in a hook")
        return {"y": np.float32([-1.0])} if first == 99 else None

    def after(self, call: Call, outputs: Arrays | None, *, error: ServingError | None, seconds: float) -> None:
        self.seen.append((call, outputs, error))
        if seconds < 0 or call.inputs.get("x", np.zeros(1))[0] == 97:
            raise ValueError("another mistake")


def page(request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
    name = groups["name"]
    text = f"{name} {models.available(name)} {sorted(models.signatures(name, 1))[:1]} {request.query}"
    return HttpResponse(200, text.encode(), "text/plain")


def read_lines(body: bytes, signature: SignatureView) -> Arrays:
    (alias,) = signature.inputs
    return {alias: np.array(body.split(), dtype=signature.inputs[alias][0])}


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


@pytest.fixture(scope="module")
def extended(run_server: Callable[..., Any], models: Path, memory: Memory) -> Any:
    extensions = Extensions(
        gates=(KeyGate(),),
        routers=(OldRouter(),),
        hooks=(memory,),
        routes=(Route("GET", r"/pages/(?P<name>[a-z]+)", page, open=True), Route("GET", "/closed", page)),
        body_formats={"text/lines": read_lines},
    )
    running = run_server(model_name="half", model_base_path=str(models / "half_plus_two"), extensions=extensions)
    both = ModelConfig("half", models / "half_plus_two", policy=VersionPolicy("all"))
    running.server.reload((both,))
    return running


def ask(running: Any, value: float, **headers: str) -> Any:
    body = {"instances": [value]}
    return running.http("POST", "/v1/models/half:predict", body, {"x-key": "right", **headers})[:2]


def test_gates_stand_before_everything_but_open_routes(extended: Any) -> None:
    assert extended.http.predict("half", {"instances": [1]})[0] == 401
    assert extended.http("GET", "/v1/models/half")[0] == 401
    assert extended.http("GET", "/closed")[0] == 401
    assert extended.http("GET", "/healthz")[0] == 200
    status, body, _ = extended.http("GET", "/pages/half?q=1")
    assert (status, body) == (200, b"half (2, 1) ['classify_x_to_y'] q=1")


def test_gates_stand_before_grpc(extended: Any) -> None:
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{extended.grpc}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predict(predict_pb2.PredictRequest())
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_router_chooses_where_no_version_is_named(extended: Any) -> None:
    assert ask(extended, 0.0)[1] == {"predictions": [3.0]}
    assert ask(extended, 0.0, **{"x-old": "1"})[1] == {"predictions": [2.0]}
    named = extended.http(
        "POST", "/v1/models/half/versions/2:predict", {"instances": [0.0]}, {"x-key": "right", "x-old": "1"}
    )
    assert named[1] == {"predictions": [3.0]}


def test_hooks_answer_see_and_may_fail(extended: Any, memory: Memory) -> None:
    assert ask(extended, 99.0)[1] == {"predictions": [-1.0]}
    assert ask(extended, 98.0)[1] == {"predictions": [52.0]}
    assert ask(extended, 97.0)[1] == {"predictions": [51.5]}
    call, outputs, error = memory.seen[-1]
    assert (call.model, call.version, call.signature, call.method, call.protocol) == (
        "half", 2, "serving_default", "predict", "REST",
    )  # fmt: skip
    assert error is None
    assert outputs is not None
    assert outputs["y"].tolist() == [51.5]
    assert call.request_id


def test_another_body_format_has_its_decoder(extended: Any) -> None:
    headers = {"x-key": "right", "Content-Type": "text/lines; charset=utf-8"}
    answer = extended.http("POST", "/v1/models/half:predict", b"1\n2\n", headers)
    assert answer[:2] == (200, {"predictions": [3.5, 4.0]})
    answer = extended.http("POST", "/v1/models/half:regress", b"1\n", headers)
    assert answer[0] == 400


def test_the_view_of_the_models(extended: Any) -> None:
    view = extended.server.models
    assert view.predict("half", 1, signature="", inputs={"x": np.float32([4])})["y"].tolist() == [4.0]
    assert view.directory("half", 1).endswith("half_plus_two/1")
    assert view.available("none") == ()
    assert view.labels("none") == {}
    with pytest.raises(ServingError, match=r"Specific\(none, 1\)"):
        view.directory("none", 1)
    with pytest.raises(ServingError, match='signature name: "s" not found'):
        view.predict("half", 1, signature="s", inputs={})
