"""Both ways in which gRPC calls come to methods, without a model behind them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tf_serving.server.grpc_calls import MALFORMED, GrpcCall, Reply, Rpc, Transport

ECHO, SLOW, HELD, BROKEN = "/test.Service/Echo", "/test.Service/Slow", "/test.Service/Held", "/test.Service/Broken"
MAX_CALLS = 20
MAX_BYTES = 1_000_000
LOOP, LIBRARY = "loop", "library"


@dataclass(frozen=True)
class Service:
    """A transport that listens, and what its methods share."""

    transport: Transport
    health: Any
    channel: Any
    may_end: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def call(self, path: str, content: bytes = b"", **options: Any) -> bytes:
        return bytes(self.channel.unary_unary(path)(content, timeout=20, **options))

    def begin(self, path: str, content: bytes = b"") -> Any:
        return self.channel.unary_unary(path).future(content, timeout=20)


def _parse(content: bytes) -> bytes:
    from google.protobuf.message import DecodeError

    if content.startswith(b"bad"):
        raise DecodeError
    return content


def _echo(request: Any, call: GrpcCall) -> Reply:
    if request is MALFORMED:
        return 3, "no message: ümlaut".encode(), b""
    metadata = dict(call.metadata())
    call.trailing = (("was", str(metadata.get("given", ""))), ("thread", threading.current_thread().name))
    if request == b"deadline":
        return 0, b"", b"soon" if call.time_remaining() < 60 else b"never"
    return 0, b"", request + str(metadata.get("given", "")).encode() if call.peer() else b""


@pytest.fixture(params=[LOOP, LIBRARY])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    service = _service(request.param)
    yield service
    service.may_end.set()
    service.channel.close()
    service.transport.stop(timeout=5)


@pytest.fixture
def loop() -> Iterator[Service]:
    service = _service(LOOP)
    yield service
    service.may_end.set()
    service.channel.close()
    service.transport.stop(timeout=5)


def _service(kind: str) -> Service:
    import grpc
    from grpc_health.v1 import health

    from tf_serving.server.grpc_health import SERVICE, check_method
    from tf_serving.server.grpc_library import LibraryTransport
    from tf_serving.server.grpc_loop import LoopTransport
    from tf_serving.server.ports import bind

    may_end, entered = threading.Event(), threading.Semaphore(0)

    def held(request: Any, _: GrpcCall) -> Reply:
        entered.release()
        may_end.wait(20)
        return 0, b"", request

    def broken(_: Any, __: GrpcCall) -> Reply:
        raise ValueError("on purpose")

    servicer = health.HealthServicer()
    methods = {
        ECHO: Rpc(_parse, _echo, is_quick=lambda _: True),
        SLOW: Rpc(_parse, _echo, is_quick=lambda _: False),
        HELD: Rpc(_parse, held, is_quick=lambda _: False),
        BROKEN: Rpc(_parse, broken, is_quick=lambda request: request == b"quick"),
    }
    options: list[tuple[str, int | str]] = [("grpc.max_receive_message_length", MAX_BYTES)]
    common: dict[str, Any] = {"options": options, "num_threads": MAX_CALLS, "max_calls": MAX_CALLS}
    transport: Transport
    if kind == LOOP:
        methods[f"{SERVICE}/Check"] = check_method(servicer)
        watch = (f"{SERVICE}/Watch", servicer.Watch)
        transport = LoopTransport(methods, watch=watch, message_seconds=0.2, **common)
    else:
        transport = LibraryTransport(methods, watched=servicer, **common)
    with bind("127.0.0.1", 0, shared=False, purpose="gRPC") as listener:
        port = listener.getsockname()[1]
    transport.listen(f"127.0.0.1:{port}", None)
    transport.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    return Service(transport, servicer, channel, may_end, entered)


def failure(call: Callable[[], Any]) -> tuple[str, str]:
    import grpc

    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()


@pytest.mark.parametrize("path", [ECHO, SLOW])
@pytest.mark.parametrize("size", [0, 1, 70_000, 900_000])
def test_bytes_come_and_go(service: Service, path: str, size: int) -> None:
    content = b"x" * size
    assert service.call(path, content) == content


def test_metadata_come_and_go(service: Service) -> None:
    answer, call = service.channel.unary_unary(ECHO).with_call(b"a", timeout=20, metadata=(("given", "b"),))
    assert answer == b"ab"
    assert dict(call.trailing_metadata())["was"] == "b"


def test_deadlines_are_told(service: Service) -> None:
    assert service.call(ECHO, b"deadline") == b"soon"
    assert service.channel.unary_unary(ECHO)(b"deadline") == b"never"


def test_compressed_messages_are_read(service: Service) -> None:
    import grpc

    content = b"again " * 1000
    assert service.call(ECHO, content, compression=grpc.Compression.Gzip) == content


@pytest.mark.parametrize("content", [b"bad", b"bad" + b"x" * 70_000])
def test_bytes_that_are_no_message_have_their_status(service: Service, content: bytes) -> None:
    assert failure(lambda: service.call(ECHO, content)) == ("INVALID_ARGUMENT", "no message: ümlaut")


def test_unknown_methods_and_long_messages_are_refused(service: Service) -> None:
    assert failure(lambda: service.call("/test.Service/Other"))[0] == "UNIMPLEMENTED"
    assert failure(lambda: service.call("/other.Service/Echo"))[0] == "UNIMPLEMENTED"
    assert failure(lambda: service.call(ECHO, b"x" * (MAX_BYTES + 1)))[0] == "RESOURCE_EXHAUSTED"
    assert service.call(ECHO, b"still here") == b"still here"


def test_a_call_without_a_message_is_refused(service: Service) -> None:
    call = service.channel.stream_unary(ECHO)
    assert failure(lambda: call(iter(()), timeout=20))[0] == "UNIMPLEMENTED"


def test_short_calls_are_answered_by_the_loop_and_long_ones_beside_it(loop: Service) -> None:
    def thread(path: str) -> str:
        _, call = loop.channel.unary_unary(path).with_call(b"", timeout=20)
        return str(dict(call.trailing_metadata())["thread"])

    assert thread(ECHO).startswith("grpc-loop")
    assert not thread(SLOW).startswith("grpc-loop")


def test_long_calls_hold_nobody_up(service: Service) -> None:
    held = [service.begin(HELD, b"%d" % number) for number in range(8)]
    assert [service.call(path, b"short") for path in (ECHO, SLOW)] == [b"short", b"short"]
    service.may_end.set()
    assert [future.result() for future in held] == [b"%d" % number for number in range(8)]


def test_more_calls_than_allowed_are_refused_and_forgotten(service: Service) -> None:
    held = [service.begin(HELD, b"held") for _ in range(MAX_CALLS)]
    for _ in held:
        assert service.entered.acquire(timeout=20)
    assert failure(lambda: service.call(ECHO)) == ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!")
    service.may_end.set()
    assert {future.result() for future in held} == {b"held"}
    assert service.call(SLOW, b"free again") == b"free again"


def test_many_clients_at_once_all_hear_their_own_answer(service: Service) -> None:
    contents = [b"%d" % number for number in range(500)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda content: service.call(ECHO, content), contents)) == contents


@pytest.mark.parametrize("content", [b"quick", b"in the pool"])
def test_a_method_that_raises_does_not_end_the_loop(loop: Service, content: bytes) -> None:
    assert failure(lambda: loop.call(BROKEN, content))[0] == "INTERNAL"
    assert loop.call(ECHO, b"still here") == b"still here"


def test_a_client_that_never_sends_its_message_is_let_go(loop: Service) -> None:
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait(20)
        yield b"too late"

    try:
        code, _ = failure(lambda: loop.channel.stream_unary(ECHO)(silent(), timeout=20))
    finally:
        never.set()
    assert code == "CANCELLED"


def test_a_client_that_goes_away_leaves_nothing_behind(loop: Service) -> None:
    held = loop.begin(HELD, b"held")
    assert loop.entered.acquire(timeout=20)
    held.cancel()
    loop.may_end.set()
    assert loop.call(ECHO, b"still here") == b"still here"
    _eventually(lambda: not loop.transport.calls)  # type: ignore[attr-defined]


def test_running_calls_end_before_the_server_does(service: Service) -> None:
    held = service.begin(HELD, b"accepted")
    assert service.entered.acquire(timeout=20)
    stopping = threading.Thread(target=service.transport.stop, kwargs={"timeout": 20.0})
    stopping.start()
    service.may_end.set()
    assert held.result() == b"accepted"
    stopping.join(20)
    assert not stopping.is_alive()


def test_calls_that_do_not_end_are_cancelled_at_the_end(service: Service) -> None:
    held = service.begin(HELD, b"accepted")
    assert service.entered.acquire(timeout=20)
    service.transport.stop(timeout=0.1)
    assert failure(held.result)[0] in ("CANCELLED", "UNAVAILABLE")
    service.may_end.set()


def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    from tf_serving.server.grpc_loop import LoopTransport

    transport = LoopTransport({}, watch=None, options=(), num_threads=1, max_calls=None, message_seconds=1.0)
    transport.stop(timeout=1)
    service = _service(LOOP)
    service.channel.close()
    service.transport.stop(timeout=1)


def test_health_is_told_and_watched(service: Service) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    stub = health_pb2_grpc.HealthStub(service.channel)
    request = health_pb2.HealthCheckRequest(service="model")
    assert failure(lambda: stub.Check(request, timeout=20))[0] == "NOT_FOUND"
    watch = stub.Watch(request, timeout=20)
    states = (health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    for state in states:
        service.health.set("model", state)
        assert next(watch).status == state
        assert stub.Check(request, timeout=20).status == state
    watch.cancel()
    _eventually(lambda: not service.health._send_response_callbacks["model"])
    service.health.set("model", states[0])
    assert stub.Check(request, timeout=20).status == states[0]


def test_a_watch_does_not_keep_the_server_from_stopping(loop: Service) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    watch = health_pb2_grpc.HealthStub(loop.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    loop.transport.stop(timeout=20)
    assert failure(lambda: next(watch))[0] in ("CANCELLED", "UNAVAILABLE")


def test_nonsense_to_watch_is_refused(loop: Service) -> None:
    answers = loop.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff\xff", timeout=20)
    assert failure(lambda: list(answers))[0] == "INVALID_ARGUMENT"


def _eventually(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(400):
        if condition():
            return
        waiting.wait(0.05)
    pytest.fail("it did not come to pass within 20 seconds")
