"""Clients that are slow, large, many, rude or wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tf_serving.server.extensions import HttpResponse
from tf_serving.server.http_protocol import HttpServer
from tf_serving.server.metrics import Metrics
from tf_serving.server.settings import Limits
from tf_serving.server.status import ServingError

BODY = json.dumps({"instances": [[1.0, 2.0]]}).encode()


@pytest.fixture(scope="module")
def limited(run_server: Callable[..., Any], models: Path) -> Any:
    limits = Limits(
        body_bytes=4096,
        header_bytes=2048,
        connections=40,
        header_seconds=0.5,
        body_seconds=0.5,
        idle_seconds=2.0,
        batch_rows=50,
        decompressed_bytes=8192,
    )
    return run_server(model_name="half", model_base_path=str(models / "half_plus_two"), limits=limits)


def connect(running: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.rest), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def ask(running: Any, content: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    with connect(running) as connection:
        connection.sendall(content)
        return read_all(connection)


def request(body: bytes, *headers: str, path: str = "/v1/models/half:predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


SMALL = b'{"instances": [0.0]}'


def test_requests_in_one_packet_are_answered_in_order(limited: Any) -> None:
    last = request(b'{"instances": [8.0]}', "Connection: close")
    answer = ask(limited, request(SMALL) * 20 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 21
    assert answer.endswith(b'{\n    "predictions": [7.0\n    ]\n}')
    assert b"Connection: close" in answer


def test_a_body_in_chunks_and_byte_by_byte(limited: Any) -> None:
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, bytes([byte])) for byte in SMALL) + b"0\r\n\r\n"
    assert ask(limited, head + chunks).endswith(b'{\n    "predictions": [3.0\n    ]\n}')
    with connect(limited) as connection:
        for byte in request(SMALL, "Connection: close"):
            connection.sendall(bytes([byte]))
        assert read_all(connection).endswith(b'{\n    "predictions": [3.0\n    ]\n}')


def test_an_expected_continue_is_sent(limited: Any) -> None:
    with connect(limited) as connection:
        head, _, body = request(SMALL, "Expect: 100-continue", "Connection: close").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert b"200 OK" in read_all(connection)


LONG = b"x" * 5000
REFUSED = [
    (request(LONG), b"413", b"Body is larger than 4096 bytes"),
    (b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413", b"Body is larger"),
    (
        b"POST /v1/models/half:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n"
        + LONG
        + b"\r\n0\r\n\r\n",
        b"413",
        b"Body is larger",
    ),
    (b"GET /healthz HTTP/1.1\r\nX-Long: " + LONG + b"\r\n\r\n", b"431", b"Header is larger than 2048 bytes"),
    (b"GET /healthz HTTP/1.1\r\nX-Long: " + LONG, b"431", b"Header is larger than 2048 bytes"),
    (b"GET /" + LONG + b" HTTP/1.1\r\n\r\n", b"431", b"Header is larger than 2048 bytes"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"400", b"Malformed request"),
    (b"GET /healthz\r\n\r\n", b"400", b"Malformed request"),
    (request(SMALL, "Transfer-Encoding: chunked"), b"400", b"Malformed request"),
    (request(SMALL, "Content-Length: 3"), b"400", b"Malformed request"),
    (request(SMALL, "Transfer-Encoding: chunked, identity"), b"400", b"Malformed request"),
    (b"GET /healthz HTTP/1.1\r\nA b: c\r\n\r\n", b"400", b"Malformed request"),
    (b"GET /healthz HTTP/1.1\r\nA: b\x00\r\n\r\n", b"400", b"Malformed request"),
    (b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400", b"Malformed request"),
    (b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"400", b"upgrades"),
]
# What a proxy in front might see otherwise: where the body ends, and whose request comes next.
HEAD = b"POST /v1/models/half:predict HTTP/1.1\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"
SMUGGLED = [
    *(HEAD + b"%b\r\n\r\n" % header + NEXT for header in (
        b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"Content-Length : 5", b"Content-Length: +5",
        b"Content-Length: 0x5", b"Content-Length: 5, 5", b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 18446744073709551621", b"Content-Length: ", b" Content-Length: 5", b"A\x00: b",
        b"Host: one\r\nHost: other",
    )),
    *(CHUNKED + chunk + b"\r\n" + NEXT for chunk in (
        b"0x3\r\nabc", b"-3\r\nabc", b"+3\r\nabc", b"fffffffffffffffff3\r\nabc", b"3 \r\nabc", b"3\nabc", b"3\r\nabcd",
        b"3;a\nb\r\nabc",
    )),
    CHUNKED[:-4].replace(b"1.1", b"1.0") + b"\r\nConnection: keep-alive\r\n\r\n" + NEXT,
    HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\n" + NEXT,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT localhost:1 HTTP/1.1\r\n\r\n" + NEXT,
]  # fmt: skip


@pytest.mark.parametrize("content", SMUGGLED, ids=range(len(SMUGGLED)))
def test_a_body_whose_end_is_in_doubt_is_refused_with_all_that_follows(limited: Any, content: bytes) -> None:
    answer = ask(limited, content)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Malformed request" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(("content", "status", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_too_large_or_malformed_is_refused_and_closed(
    limited: Any, content: bytes, status: bytes, message: bytes
) -> None:
    answer = ask(limited, content)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert message in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_that_grows_too_much_when_inflated_is_refused(limited: Any) -> None:
    small = gzip.compress(b" " * 8193)
    for content, status in ((small, b"413"), (gzip.compress(b" " * 8172 + SMALL), b"200")):
        assert ask(limited, request(content, "Content-Encoding: gzip", "Connection: close")).startswith(
            b"HTTP/1.1 " + status
        )
    bomb = gzip.compress(b" " * 3_000_000)
    assert len(bomb) < 4096  # the limit of what comes over the wire
    assert b"Decompressed body is larger than 8192 bytes" in ask(
        limited, request(bomb, "Content-Encoding: gzip", "Connection: close")
    )


def test_too_many_rows_are_refused(limited: Any) -> None:
    status, body = limited.http.predict("half", {"instances": [1.0] * 51})
    assert (status, body) == (400, {"error": "Request has 51 instances, more than the 50 that are allowed"})
    status, body = limited.http.predict("half", {"inputs": [1.0] * 51})
    assert (status, body) == (400, {"error": "Request has 51 rows, more than the 50 that are allowed"})


def test_slow_and_idle_clients_are_let_go(limited: Any) -> None:
    started = time.monotonic()
    with connect(limited) as header, connect(limited) as body, connect(limited) as idle:
        header.sendall(b"GET /heal")
        body.sendall(request(SMALL)[:-3])
        idle.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert read_all(header).startswith(b"HTTP/1.1 408")
        assert read_all(body).startswith(b"HTTP/1.1 408")
        assert read_all(idle).startswith(b"HTTP/1.1 200")
    assert time.monotonic() - started < 8


def test_a_client_that_closes_its_side_still_gets_the_answer(limited: Any) -> None:
    with connect(limited) as connection:
        connection.sendall(request(SMALL))
        connection.shutdown(socket.SHUT_WR)
        assert b"200 OK" in read_all(connection)


def test_a_client_that_closes_its_side_is_not_kept_waiting_after_a_slow_answer() -> None:
    def answer(_: Any) -> HttpResponse:
        time.sleep(0.05)  # the client's side is closed meanwhile
        return HttpResponse(200, b"{}")

    async def ask_slowly() -> bytes:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        # Nothing is answered quickly, but in a thread.
        server = HttpServer(answer, answer_quickly=lambda _: None, limits=Limits(), num_threads=1, metrics=Metrics())
        await server.start(listener, None)
        try:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(request(SMALL) * 2)
            writer.write_eof()
            async with asyncio.timeout(20):
                answers = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answers
        finally:
            await server.stop(timeout=0.0)

    assert asyncio.run(ask_slowly()).count(b"200 OK") == 2


def test_refused_requests_are_not_kept(limited: Any) -> None:
    from tf_serving.server.rest import _inference_path

    path = "/v1/models/half/versions/99999999999999999999:predict"
    kept = _inference_path(path)
    assert isinstance(kept, ServingError)
    before = len(list(traceback.walk_tb(kept.__traceback__)))
    for _ in range(3):
        assert limited.http("POST", path, {"instances": [1.0]})[0] == 400
    # Each frame of a traceback holds what was in it, the body included.
    assert len(list(traceback.walk_tb(kept.__traceback__))) == before


def test_a_client_that_goes_away_harms_nobody(limited: Any) -> None:
    for _ in range(10):
        connection = connect(limited)
        connection.sendall(request(SMALL) * 5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        connection.close()
    assert limited.http.predict("half", {"instances": [0.0]})[0] == 200


def test_connections_beyond_the_limit_are_refused(limited: Any) -> None:
    held = [connect(limited) for _ in range(45)]
    try:
        time.sleep(0.2)
        answers = []
        for connection in held[40:]:
            answers.append(connection.recv(200))
        assert all(answer.startswith(b"HTTP/1.1 503") for answer in answers)
        assert all(b"Retry-After: 1" in answer for answer in answers)
    finally:
        for connection in held:
            connection.close()


def test_a_head_request_has_no_body(limited: Any) -> None:
    answer = ask(limited, b"HEAD /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_a_thousand_connections_are_held(run_server: Callable[..., Any], models: Path) -> None:
    running = run_server(model_name="half", model_base_path=str(models / "half_plus_two"), port=0)
    held = [connect(running) for _ in range(1000)]
    answers: list[bytes] = []
    try:
        for connection in held:
            connection.sendall(request(SMALL))
        for connection in held:
            answers.append(connection.recv(500))
    finally:
        for connection in held:
            connection.close()
    assert all(answer.endswith(b'{\n    "predictions": [3.0\n    ]\n}') for answer in answers)


def test_many_clients_at_once_get_their_own_answers(limited: Any) -> None:
    wrong: list[Any] = []

    def client(offset: int) -> None:
        for value in range(offset, offset + 30):
            answer = limited.http.predict("half", {"instances": [value]})
            if answer != (200, {"predictions": [value / 2 + 3]}):
                wrong.append(answer)

    threads = [threading.Thread(target=client, args=(100 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_same_header_again_is_answered_as_the_first_one(limited: Any) -> None:
    first, other = (json.dumps({"instances": [[number, 2.0]]}).encode() for number in (1.0, 3.0))
    single = request(first)
    with connect(limited) as connection, connection.makefile("rb") as answers:

        def answer() -> Any:
            length = 0
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            return json.loads(answers.read(length))["predictions"]

        for pieces in (
            [single],
            [request(other)],
            [single[:30], single[30:]],
            [single[:-5], single[-5:]],
            [single + request(other)],
            [single + request(other)[:40], request(other)[40:]],
            [request(other, "X-Request-Id: mine")],
            [request(other)],
        ):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.02)
            expected = [[3.5, 4.0]] if first in b"".join(pieces) else []
            expected += [[4.5, 4.0]] if other in b"".join(pieces) else []
            assert [answer()[0] for _ in expected] == expected
