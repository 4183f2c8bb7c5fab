"""``--access_log``: a line for every answer, and what happens where the log cannot be written."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tf_serving.server.logs import LOGGER, JsonFormatter, set_up


@pytest.fixture(scope="module")
def noted(run_server: Callable[..., Any], models: Path) -> Any:
    return run_server(model_name="half", model_base_path=str(models / "half_plus_two"), access_log=True)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server writes, as JSON lines."""
    text = io.StringIO()
    before = LOGGER.handlers[:], LOGGER.level
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    yield text
    LOGGER.handlers[:], LOGGER.level = before


def lines(log: io.StringIO, number: int) -> list[dict[str, Any]]:
    """So many lines; they are written behind the answers."""
    wait_until(lambda: log.getvalue().count("\n") >= number)
    return [json.loads(line) for line in log.getvalue().splitlines()]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_rest_answer_is_a_line_without_query_and_body(noted: Any, log: io.StringIO) -> None:
    path = "/v1/models/half:predict"
    noted.http("POST", f"{path}?token=secret", {"instances": [123456.0]}, {"X-Request-Id": "mine"})
    noted.http("POST", path, b"secret", {"X-Request-Id": "bad"})
    noted.http("GET", "/healthz")
    first, second, third = lines(log, 3)
    assert {key: first[key] for key in ("protocol", "request", "code", "request_id", "peer", "level")} == {
        "protocol": "REST", "request": f"POST {path}", "code": 200, "request_id": "mine", "peer": "127.0.0.1",
        "level": "info",
    }  # fmt: skip
    assert first["milliseconds"] >= 0
    assert (second["code"], second["request_id"], third["request"]) == (400, "bad", "GET /healthz")
    assert "secret" not in log.getvalue()
    assert "123456" not in log.getvalue()


def test_every_grpc_answer_is_a_line_and_tells_its_request_id(noted: Any, log: io.StringIO) -> None:
    import grpc
    from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half"
    with grpc.insecure_channel(f"127.0.0.1:{noted.grpc}") as channel:
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
        _, call = status.with_call(request, metadata=(("x-request-id", "mine"),))
        assert dict(call.trailing_metadata())["x-request-id"] == "mine"
        request.model_spec.name = "none"
        with pytest.raises(grpc.RpcError) as raised:
            status(request)
        made = dict(raised.value.trailing_metadata())["x-request-id"]
    told = [(line["request"], line["code"], line["request_id"]) for line in lines(log, 2)]
    method = "tensorflow.serving.ModelService/GetModelStatus"
    assert told == [(method, "OK", "mine"), (method, "NOT_FOUND", made)]


class FullDisk(io.TextIOBase):
    """A stream to a device that is full."""

    def __init__(self) -> None:
        self.device = os.open("/dev/full", os.O_WRONLY)
        self.tries = 0

    def write(self, text: str) -> int:
        try:
            return os.write(self.device, text.encode())
        finally:
            self.tries += 1


def test_answers_go_on_where_the_log_cannot_be_written(
    noted: Any, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = FullDisk()
    LOGGER.handlers[:] = [logging.StreamHandler(disk)]
    for _ in range(3):
        assert noted.http.predict("half", {"instances": [0.0]}) == (200, {"predictions": [3.0]})
    wait_until(lambda: disk.tries == 3)
    LOGGER.handlers.clear()
    os.close(disk.device)
    assert "No space left on device" in capsys.readouterr().err
    assert log.getvalue() == ""


def test_lines_go_to_standard_error_as_it_is_when_they_are_written(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    set_up("text")
    LOGGER.info("one")
    monkeypatch.setattr(sys, "stderr", second)
    LOGGER.info("two")
    second_text = second.getvalue()
    second.close()
    # Nobody can read it any more: no traceback of the logging itself, and none for whoever logs.
    LOGGER.info("three")
    assert first.getvalue().split()[1:] == ["INFO", "one"]
    assert second_text.split()[1:] == ["INFO", "two"]
    assert log.getvalue() == ""
