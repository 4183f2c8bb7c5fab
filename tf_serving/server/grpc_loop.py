"""gRPC's own core, driven by a loop: a short call is read, answered and sent by one thread.

``grpc.server`` hands every call from the thread that reads to one of a pool, over a queue and a condition; that costs
three to four times what the core itself does for a call. This loop drives the same core (``grpc._cython.cygrpc``). It
is not public, but is what ``grpc.server`` is made of; where a grpcio lacks any of it, ``grpc_library.py`` answers.

Calls that take long run in a pool, as there. Several loops share one queue, so that a processor is not idle while a
call runs on another.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from tf_serving.server.grpc_calls import GrpcCall, Metadata, Reply, Rpc
from tf_serving.server.logs import LOGGER

try:
    from grpc._cython import cygrpc
except ImportError:  # pragma: no cover - another grpcio
    cygrpc = None

QUICK_BYTES = 65_536
"""Longer messages are parsed in the pool, so that the loop goes on."""
MAX_LOOPS = 4
POLL_SECONDS = 1.0
CANCEL_SECONDS = 1.0
CLOSE_SECONDS = 0.01
NO_FLAGS = 0
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 3, 8, 12, 13
_NEEDED = (
    "CompletionQueue",
    "CompletionType",
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
    "Server",
)

Event = Any
Watch = Callable[[Any, Any, Callable[[Any], None]], object]


def is_available() -> bool:
    """Return whether this grpcio has what the loop is made of."""
    return cygrpc is not None and all(hasattr(cygrpc, name) for name in _NEEDED)


def _num_processors() -> int:
    # Only Linux tells which of them this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@final
class LoopTransport:
    """Answers calls of unary methods, and watches of health.

    Args:
        methods: By path, "/package.Service/Method".
        watch: Of health, by path likewise; None for none.
        options: Of the core.
        num_threads: For calls that are not quick.
        max_calls: Most calls at once; None for no limit.
        message_seconds: Longest time from a call to its message.
    """

    def __init__(
        self,
        methods: Mapping[str, Rpc],
        *,
        watch: tuple[str, Watch] | None,
        options: Sequence[tuple[str, int | str]],
        num_threads: int,
        max_calls: int | None,
        message_seconds: float,
    ) -> None:
        self._methods = {path.encode(): rpc for path, rpc in methods.items()}
        self._watch = {} if watch is None else {watch[0].encode(): watch[1]}
        self._max_calls = max_calls
        self._message_seconds = message_seconds
        self.pool = ThreadPoolExecutor(num_threads, thread_name_prefix="grpc")
        self._queue: Any = cygrpc.CompletionQueue()
        self._server: Any = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._queue)
        self.calls: set[_Call] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._is_closed = False
        self._is_shut_down = threading.Event()
        self._loops: list[threading.Thread] = []

    def listen(self, address: str, credentials: Any) -> None:
        """Open an address, in plain text where there are no credentials.

        Raises:
            RuntimeError: It cannot be used.
        """
        place = address.encode()
        port = (
            self._server.add_http2_port(place)
            if credentials is None
            else self._server.add_http2_port(place, credentials._credentials)
        )
        if not port:
            raise RuntimeError("the address cannot be bound")

    def start(self) -> None:
        """Take calls."""
        self._server.start()
        num_loops = min(MAX_LOOPS, _num_processors())
        for _ in range(num_loops):
            self._request_call()
        self._loops = [
            threading.Thread(target=self._run, name=f"grpc-loop-{number}", daemon=True) for number in range(num_loops)
        ]
        for loop in self._loops:
            loop.start()

    def stop(self, *, timeout: float) -> None:
        """Take no more calls, let running ones end for so many seconds, then cancel them."""
        if self._stopping:
            return
        self._stopping = True
        for call in list(self.calls):
            call.stop()
        if self._loops:
            self._server.shutdown(self._queue, self._shut_down)
            if not self._is_shut_down.wait(timeout):
                self._server.cancel_all_calls()
                self._is_shut_down.wait(CANCEL_SECONDS)
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self._close(CANCEL_SECONDS):
            self._queue.shutdown()
            for loop in self._loops:
                loop.join()
            self._server.destroy()

    def _close(self, seconds: float) -> bool:
        """Wait for the last call, for so many seconds; return whether there is none and will be none.

        The core ends the process when a call is answered whose queue is closed. So where a method does not end, the
        loops stay until the process ends.
        """
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                if not self.calls:
                    self._is_closed = True
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(CLOSE_SECONDS)

    def _request_call(self) -> None:
        self._server.request_call(self._queue, self._queue, self._called)

    def _shut_down(self, _: Event) -> None:
        self._is_shut_down.set()

    def _run(self) -> None:
        ended, timed_out = cygrpc.CompletionType.queue_shutdown, cygrpc.CompletionType.queue_timeout
        poll = self._queue.poll
        looked = time.monotonic()
        while True:
            event = poll(time.time() + POLL_SECONDS)
            kind = event.completion_type
            if kind == ended:
                return
            if kind != timed_out:
                try:
                    event.tag(event)
                except Exception:
                    LOGGER.exception("A gRPC call failed")
            # Before the next wait: an event that is kept keeps its call.
            event = None
            now = time.monotonic()
            if now - looked > POLL_SECONDS:
                looked = now
                self._end_silent_calls(now)

    def _end_silent_calls(self, now: float) -> None:
        for call in list(self.calls):
            if call.is_silent_since(now - self._message_seconds):
                call.cancel()

    def _called(self, event: Event) -> None:
        """Take a call: ask for its message, and for the next call."""
        if not event.success:
            return
        if not self._stopping:
            self._request_call()
        call = _Call(self, event)
        with self._lock:
            if self._is_closed:
                return
            is_full = self._max_calls is not None and len(self.calls) >= self._max_calls
            self.calls.add(call)
        method = event.call_details.method
        rpc = self._methods.get(method)
        if rpc is None and method not in self._watch:
            call.send(UNIMPLEMENTED, b"Method not found!")
        elif is_full:
            call.send(RESOURCE_EXHAUSTED, b"Concurrent RPC limit exceeded!")
        else:
            call.receive(rpc, self._watch.get(method))


@final
class _Call:
    """One call, from when it is there until its status is sent."""

    __slots__ = ("_event", "_rpc", "_since", "_transport", "_watch", "_watcher", "started", "trailing")

    def __init__(self, transport: LoopTransport, event: Event) -> None:
        self._transport = transport
        self._event = event
        self._rpc: Rpc | None = None
        self._watch: Watch | None = None
        self._watcher: _Watcher | None = None
        self._since = 0.0  # when the message was asked for; 0 when it is there
        self.started = 0.0
        self.trailing: Metadata = ()

    # What methods may ask.

    def metadata(self) -> Metadata:
        """Return what the client sent beside the message."""
        return self._event.invocation_metadata  # type: ignore[no-any-return]

    def time_remaining(self) -> float:
        """Return the seconds left; very many for no deadline."""
        return max(float(self._event.call_details.deadline) - time.time(), 0.0)

    def peer(self) -> str:
        """Return the client's address."""
        return str(self._event.call.peer().decode())

    # What the loop does.

    def receive(self, rpc: Rpc | None, watch: Watch | None) -> None:
        """Ask for the message."""
        self._rpc, self._watch = rpc, watch
        self._since = time.monotonic()
        self._event.call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def is_silent_since(self, moment: float) -> bool:
        """Return whether the message was asked for before a moment and is still not there."""
        return 0.0 < self._since < moment

    def cancel(self) -> None:
        """End the call without an answer."""
        self._event.call.cancel()

    def stop(self) -> None:
        """End a watch: nobody else would."""
        if self._watcher is not None:
            self.cancel()

    def _received(self, event: Event) -> None:
        self._since = 0.0
        self.started = perf_counter()
        content = event.batch_operations[0].message()
        rpc = self._rpc
        if content is None:
            self.send(UNIMPLEMENTED, b"The method requires exactly one request message.")
        elif rpc is None:
            self._start_watch(content)
        elif len(content) > QUICK_BYTES:
            self._in_pool(lambda _, call: rpc.finish(rpc.begin(content), call), None)
        else:
            request = rpc.begin(content)
            if rpc.is_quick(request):
                self._answer(rpc.finish, request)
            else:
                self._in_pool(rpc.finish, request)

    def _answer(self, answer: Callable[[Any, GrpcCall], Reply], request: Any) -> None:
        try:
            reply = answer(request, self)
        except Exception:
            LOGGER.exception("A gRPC call failed")
            reply = (INTERNAL, b"Internal error", b"")
        self.send(*reply)

    def _in_pool(self, answer: Callable[[Any, GrpcCall], Reply], request: Any) -> None:
        try:
            future = self._transport.pool.submit(self._answer, answer, request)
        except RuntimeError:  # the pool is closed, as the server is
            self.cancel()
            self._done(None)
        else:
            future.add_done_callback(lambda done: self._done(None) if done.cancelled() else None)

    def send(self, code: int, text: bytes, content: bytes = b"") -> None:
        """Send the answer, or the status where it is not OK."""
        status = cygrpc.SendStatusFromServerOperation(self.trailing, code, text, NO_FLAGS)
        closed = cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS)
        head = cygrpc.SendInitialMetadataOperation(None, NO_FLAGS)
        message = () if code else (cygrpc.SendMessageOperation(content, NO_FLAGS),)
        self._event.call.start_server_batch((head, *message, status, closed), self._done)

    def _done(self, _: Event) -> None:
        self._transport.calls.discard(self)

    # Health that is watched.

    def _start_watch(self, content: bytes) -> None:
        try:
            request = health_pb2.HealthCheckRequest.FromString(content)
        except DecodeError:
            self.send(INVALID_ARGUMENT, b"The request is no message of this method")
            return
        watch = self._watch
        if watch is None:
            raise RuntimeError("A call without a method has a message.")
        self._watcher = _Watcher(self._event.call, self._done)
        watch(request, self._watcher, self._watcher.send)


@final
class _Watcher:
    """A call that is told the state of a service whenever it changes, until the client goes or the server stops.

    Args:
        call: Of the core.
        done: To call at its end.
    """

    def __init__(self, call: Any, done: Callable[[Event], None]) -> None:
        self._call = call
        self._end = done
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._head: tuple[Any, ...] = (cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),)
        self._is_sending = False
        self._latest: bytes | None = None
        call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call something when the client is gone."""
        self._callbacks.append(callback)

    def send(self, response: Any) -> None:
        """Send a state as soon as the one before it is sent; of several that wait the last one counts."""
        if response is None:
            return
        with self._lock:
            self._latest = response.SerializeToString()
            if not self._is_sending:
                self._send_latest()

    def _send_latest(self) -> None:
        message = cygrpc.SendMessageOperation(self._latest, NO_FLAGS)
        operations, self._head, self._latest, self._is_sending = (*self._head, message), (), None, True
        self._call.start_server_batch(operations, self._sent)

    def _sent(self, event: Event) -> None:
        with self._lock:
            self._is_sending = False
            if self._latest is not None and event.success:
                self._send_latest()

    def _closed(self, event: Event) -> None:
        for callback in self._callbacks:
            callback()
        self._end(event)
