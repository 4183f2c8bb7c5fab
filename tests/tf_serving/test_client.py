"""The client against sockets that answer what a test says; against the real server: test_client_and_server.py."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tf_serving.client import (
    AccessDeniedError,
    Client,
    ClientOptions,
    Code,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    Retries,
    ServerFaultError,
    UnavailableError,
)

Reply = tuple[int, bytes, dict[str, str]]

QUICK = Retries(attempts=4, first_wait=0.01, longest_wait=0.02)


def tensor(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}, "name": "x:0"}


def metadata(**inputs: str) -> Reply:
    signature = {
        "inputs": {name: tensor(dtype) for name, dtype in inputs.items()},
        "outputs": {"label": tensor("DT_STRING"), "score": tensor("DT_FLOAT")},
        "method_name": "tensorflow/serving/predict",
    }
    body = {"metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}}
    return 200, json.dumps(body).encode(), {}


def answer(num_rows: int = 1) -> Reply:
    return 200, json.dumps({"outputs": {"label": ["a"] * num_rows, "score": [0.5] * num_rows}}).encode(), {}


def error(status: int, message: str, **headers: str) -> Reply:
    return status, json.dumps({"error": message}).encode(), headers


class Script:
    """Answers POST requests with the replies of a test, the last one for ever; keeps what was asked."""

    def __init__(self, *replies: Reply | None, described: Reply | None = None) -> None:
        self.replies, self.described = list(replies), described or metadata(age="DT_FLOAT")
        self.bodies: list[Any] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.peers: set[Any] = set()
        self.address = ""

    def next(self) -> Reply | None:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


Serve = Callable[[Script], Script]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(script: Script) -> Script:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.note()
                self.send(script.described)

            def do_POST(self) -> None:
                self.note()
                script.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send(script.next())

            def note(self) -> None:
                script.paths.append(self.path)
                script.headers.append({name.lower(): value for name, value in self.headers.items()})
                script.peers.add(self.client_address)

            def send(self, reply: Reply | None) -> None:
                if reply is None:  # hang up without a word
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, body, headers = reply
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        script.address = f"127.0.0.1:{server.server_port}"
        return script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def client(script: Script, **options: Any) -> Client:
    return Client(script.address, options=ClientOptions(**{"retries": QUICK, **options}))


def test_columns_travel_as_columns_and_answers_come_as_arrays(serve: Serve) -> None:
    script = serve(Script(answer(2), described=metadata(age="DT_FLOAT", job="DT_STRING")))
    with client(script) as connected:
        outputs = connected.predict("adult", [{"age": 0.1, "job": "clerk"}, {"age": None, "job": b"\xff"}])
    assert script.paths == ["/v1/models/adult/metadata", "/v1/models/adult:predict"]
    inputs = script.bodies[0]["inputs"]
    assert inputs["age"][0] == 0.1
    assert np.isnan(inputs["age"][1])
    assert inputs["job"] == ["clerk", {"b64": "/w=="}]
    assert outputs["score"].dtype == np.float32
    assert outputs["label"].tolist() == ["a", "a"]


def test_a_frame_is_answered_by_a_frame_with_its_index(serve: Serve) -> None:
    script = serve(Script(answer(2)))
    with client(script) as connected:
        frame = connected.predict("adult", pd.DataFrame({"age": [1, 2]}, index=[10, 11]))
    assert frame.index.tolist() == [10, 11]
    assert frame["label"].tolist() == ["a", "a"]


def test_version_label_and_name_make_the_path(serve: Serve) -> None:
    script = serve(Script(answer()))
    with client(script, api_key="secret", headers={"x-team": "blue"}) as connected:
        connected.predict("a", {"age": [1]}, version=7)
        connected.predict("a/../b", {"age": [1]}, label="can ary")
    assert script.paths[1] == "/v1/models/a/versions/7:predict"
    assert script.paths[3] == "/v1/models/a%2F..%2Fb/labels/can%20ary:predict"
    assert script.headers[0]["x-api-key"] == "secret"
    assert script.headers[0]["x-team"] == "blue"


def test_connection_and_signature_are_kept(serve: Serve) -> None:
    script = serve(Script(answer()))
    with client(script) as connected:
        for _ in range(5):
            connected.predict("adult", {"age": [1]})
    assert len(script.peers) == 1
    assert len(script.paths) == 6


@pytest.mark.parametrize("failure", [None, error(503, "queue is full"), error(429, "slow down")])
def test_safe_failures_are_tried_again(serve: Serve, failure: Reply | None) -> None:
    script = serve(Script(failure, failure, answer()))
    with client(script) as connected:
        assert connected.predict("adult", {"age": [1]})["score"].tolist() == [0.5]
    assert len(script.bodies) == 3


def test_attempts_are_limited(serve: Serve) -> None:
    script = serve(Script(error(503, "queue is full")))
    with client(script) as connected, pytest.raises(UnavailableError, match=r"^queue is full$") as raised:
        connected.predict("adult", {"age": [1]})
    assert len(script.bodies) == QUICK.attempts
    assert raised.value.code is Code.UNAVAILABLE


def test_the_server_may_ask_for_patience(serve: Serve) -> None:
    script = serve(Script(error(429, "slow down", retry_after="0.2"), answer()))
    began = time.monotonic()
    with client(script) as connected:
        connected.predict("adult", {"age": [1]})
    assert time.monotonic() - began >= 0.2


def test_patience_beyond_the_deadline_is_not_had(serve: Serve) -> None:
    script = serve(Script(error(429, "slow down", retry_after="60")))
    with client(script, timeout=5.0) as connected, pytest.raises(UnavailableError, match="slow down") as raised:
        connected.predict("adult", {"age": [1]})
    assert raised.value.retry_after == 60
    assert len(script.bodies) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "message", "code"),
    [
        (error(400, "wrong width"), InvalidRequestError, "^wrong width$", Code.INVALID_ARGUMENT),
        (error(413, "too large"), InvalidRequestError, "too large", Code.INVALID_ARGUMENT),
        (error(501, "no half"), InvalidRequestError, "no half", Code.UNIMPLEMENTED),
        (error(404, "no adult"), ModelNotFoundError, "no adult", Code.NOT_FOUND),
        (error(401, "no key"), AccessDeniedError, "no key", Code.UNAUTHENTICATED),
        (error(403, "wrong key"), AccessDeniedError, "wrong key", Code.PERMISSION_DENIED),
        (error(504, "too slow"), DeadlineExceededError, "too slow", Code.DEADLINE_EXCEEDED),
        (error(500, "broken"), ServerFaultError, "broken", Code.INTERNAL),
        ((500, b"<html>", {}), ServerFaultError, "answered HTTP 500 Internal Server Error.", Code.INTERNAL),
        ((200, b"<html>", {}), ServerFaultError, "answered no JSON but b'<html>'; is it a model server", Code.INTERNAL),
        ((200, b"{}", {}), ServerFaultError, "answered no outputs but", Code.INTERNAL),
        ((200, b'{"outputs": {"label": ["a"], "score": ["x"]}}', {}), ServerFaultError, "no tensor", Code.INTERNAL),
        ((302, b"", {"location": "/"}), ServerFaultError, "answered no JSON", Code.INTERNAL),
    ],
)
def test_other_failures_are_told_at_once(
    serve: Serve, reply: Reply, kind: type[Exception], message: str, code: Code
) -> None:
    script = serve(Script(reply))
    with client(script) as connected, pytest.raises(kind, match=message) as raised:
        connected.predict("adult", {"age": [1]})
    assert raised.value.code is code  # type: ignore[attr-defined]
    assert len(script.bodies) == 1


def test_not_a_number_is_read_as_tensorflow_serving_writes_it(serve: Serve) -> None:
    script = serve(Script((200, b'{"outputs": {"label": ["a", "b"], "score": [NaN, -Infinity]}}', {})))
    with client(script) as connected:
        scores = connected.predict("adult", {"age": [1, 2]})["score"]
    np.testing.assert_array_equal(scores, np.array([np.nan, -np.inf], np.float32))


def test_a_new_version_with_other_columns_is_noticed(serve: Serve) -> None:
    script = serve(Script(answer()))
    with client(script) as connected:
        connected.predict("adult", {"age": [1]})
        script.described = metadata(years="DT_FLOAT")
        connected.predict("adult", {"years": [1]})
    assert script.bodies[1]["inputs"] == {"years": [1.0]}


def test_a_wrong_name_is_told_with_the_near_one(serve: Serve) -> None:
    script = serve(Script(answer()))
    with client(script) as connected, pytest.raises(InvalidRequestError, match=r"'age' is absent. Did you mean 'aeg'"):
        connected.predict("adult", {"aeg": [1]})
    with client(script) as connected, pytest.raises(InvalidRequestError, match="'serving_default', received 'other'"):
        connected.predict("adult", {"age": [1]}, signature="other")


def test_metadata_that_is_none_is_told(serve: Serve) -> None:
    script = serve(Script(answer(), described=(200, b'{"a": 1}', {})))
    with client(script) as connected:
        with pytest.raises(ServerFaultError, match="answered no metadata: "):
            connected.signatures("adult")
        with pytest.raises(ServerFaultError, match="answered no status: "):
            connected.status("adult")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_there_is_told() -> None:
    with (
        Client(f"127.0.0.1:{free_port()}", options=ClientOptions(retries=QUICK)) as connected,
        pytest.raises(UnavailableError, match=r"127.0.0.1:\d+ cannot be reached: .*refused"),
    ):
        connected.predict("adult", {"age": [1]})


def test_a_silent_server_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        options = ClientOptions(retries=QUICK, timeout=0.3)
        with (
            Client(f"127.0.0.1:{port}", options=options) as connected,
            pytest.raises(DeadlineExceededError, match=r"gave no answer in 0.3 seconds"),
        ):
            connected.predict("adult", {"age": [1]})


def test_plain_text_where_tls_is_expected_is_told(serve: Serve) -> None:
    script = serve(Script(answer()))
    with (
        Client(f"https://{script.address}", options=ClientOptions(retries=QUICK)) as connected,
        pytest.raises(AccessDeniedError, match=r"No trusted TLS connection to 127.0.0.1"),
    ):
        connected.predict("adult", {"age": [1]})


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "Expected an address such as localhost:8501"),
        ("localhost:no", "Expected an address such as localhost:8501, received 'localhost:no'"),
        ("localhost:8501/v1/models", "Expected an address such as localhost:8501 or grpc://host:8500"),
        ("user@localhost:8501", "Expected an address such as localhost:8501 or grpc"),
        ("ftp://localhost", "Expected one of http, https, grpc, grpcs before ://, received 'ftp'"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(address)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 0 seconds, received 0"):
        ClientOptions(timeout=0)
    with pytest.raises(ValueError, match="at least one attempt, received 0"):
        Retries(attempts=0)
    with pytest.raises(ValueError, match="0 <= first_wait <= longest_wait, received 3 and 2"):
        Retries(first_wait=3)
    with Client("localhost:1") as connected:
        with pytest.raises(ValueError, match="a version or a label, received both 1 and 'canary'"):
            connected.predict("adult", [], version=1, label="canary")
        with pytest.raises(ValueError, match="name of a model, received an empty one"):
            connected.predict("", [])


def test_rest_needs_no_tensorflow() -> None:
    code = (
        "import sys; from tf_serving.client import Client; Client('localhost:8501').close(); "
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'grpc', 'pandas') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
