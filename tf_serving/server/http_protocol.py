"""HTTP/1.1 on an event loop: bytes to whole requests and back, with limits. No TensorFlow here.

httptools (the parser of Node.js) reads; it refuses what request smuggling is made of. Requests of one connection are
answered in order, one at a time. One timer for all connections ends those that are idle, send slowly or do not read.

What the parser said of a header is remembered, byte for byte: the next request behind the same bytes is not parsed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from socket import socket
from time import perf_counter
from typing import Any, final

import httptools

from tf_serving.server.access_log import log_answer
from tf_serving.server.extensions import HttpRequest, HttpResponse
from tf_serving.server.http_bodies import decompressed, json_error, too_large
from tf_serving.server.http_heads import ONLY_ONCE, Head, KnownHeads, first_lines, head_refusal
from tf_serving.server.logs import LOGGER
from tf_serving.server.metrics import Metrics
from tf_serving.server.settings import Limits

MAX_PIPELINED = 16
SWEEP_SECONDS = 0.5
_IDS = itertools.count(1)
_ID_PREFIX = f"{os.getpid():x}-{time.time_ns() // 1_000_000:x}"

Answer = Callable[[HttpRequest], HttpResponse]
QuickAnswer = Callable[[HttpRequest], HttpResponse | None]


@final
class HttpServer:
    """Connections of one listening socket.

    Args:
        answer: Blocking; never raises.
        answer_quickly: Answers on the event loop, or returns None for a request that is to be answered in a thread.
        limits: Of clients.
        num_threads: For requests that are not quick.
        metrics: To count connections.
        access_log: Whether every answer is a line of the log.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        answer_quickly: QuickAnswer,
        limits: Limits,
        num_threads: int,
        metrics: Metrics,
        access_log: bool = False,
    ) -> None:
        self.answer = answer
        self.access_log = access_log
        self.answer_quickly = answer_quickly
        self.limits = limits
        self.metrics = metrics
        self.connections: set[_Connection] = set()
        self.draining = False
        self.known_heads = KnownHeads()
        self._pending = 0
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="rest")
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listener: socket, tls: ssl.SSLContext | None) -> None:
        """Accept connections on a bound socket."""
        loop = asyncio.get_running_loop()
        timeouts: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": self.limits.header_seconds} if tls else {}
        self._server = await loop.create_server(
            lambda: _Connection(self, loop), sock=listener, backlog=1024, **timeouts
        )
        self._sweep(loop)

    async def stop(self, *, timeout: float) -> None:
        """Accept no more connections, let running requests end, close the others.

        Args:
            timeout: In seconds.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        deadline = time.monotonic() + timeout
        while self.connections and time.monotonic() < deadline:
            for connection in list(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def in_thread(self, request: HttpRequest) -> asyncio.Future[HttpResponse] | None:
        """Answer in a thread; None when too many requests wait."""
        if self._pending >= self.limits.queue:
            return None
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, self.answer, request)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object) -> None:
        self._pending -= 1

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self.connections):
            connection.check_time(now)
        self.metrics.connections.set(len(self.connections))
        self.metrics.queue_depth.labels("rest").set(self._pending)
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep, loop)


@final
class _Connection(asyncio.Protocol):
    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._limits = server.limits
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[HttpRequest, bool] | HttpResponse] = deque()
        self._busy = False
        self._closing = False
        self._close_after = False  # the last request that can be read waits or runs
        self._phase = "idle"  # idle, header, body
        self._since = loop.time()
        self._blocked_since: float | None = None
        self._header_bytes = 0
        self._now = self._since
        self._piece = b""  # what came at once and begins with a request
        self._peer = ""
        self._started = 0.0
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._refusal: HttpResponse | None = None

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if len(self._server.connections) >= self._limits.connections or self._server.draining:
            self._write(json_error(503, "Too many connections", ("Retry-After", "1")), keep_alive=False)
            return
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) and peer else "local"
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own signature
        self._closing = True
        self._waiting.clear()
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._close_after:
            return
        self._now = self._loop.time()
        if self._phase == "idle":
            known = self._server.known_heads.find(data)
            if known is not None:
                self._since = self._now
                self._accept(*known, keep_alive=True)
                return
            self._piece = data
            self._enter("header")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # refused when its header was complete
        except httptools.HttpParserError as error:
            self._refuse(json_error(400, f"Malformed request: {error}"))
            return
        finally:
            self._piece = b""
        if self._phase == "header":
            # Headers that never end are kept by the parser: count what came without any end of them.
            self._header_bytes += len(data)
            if self._header_bytes > self._limits.header_bytes:
                self._refuse(json_error(431, f"Header is larger than {self._limits.header_bytes} bytes"))

    def eof_received(self) -> bool:
        # A client may close its side and still read the answer; behind the last one the connection is closed.
        self._close_after = True
        return self._busy or bool(self._waiting)

    def pause_writing(self) -> None:
        self._blocked_since = self._loop.time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._blocked_since = None
        if not self._closing:
            self._transport.resume_reading()
            self._next()

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._begin()
        self._enter("header")

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        key = name.decode("latin-1").lower()
        if key in ONLY_ONCE and key in self._headers:
            self._refusal = json_error(400, f"Malformed request: there are two headers {key}")
        self._headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        headers = self._headers
        self._refusal = self._refusal or head_refusal(
            headers,
            version=self._parser.get_http_version(),
            upgrades=self._parser.should_upgrade(),
            num_bytes=self._header_bytes + len(self._url),
            limits=self._limits,
        )
        if self._refusal is None and headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        self._header_bytes = 0
        self._enter("body")

    def on_body(self, body: bytes) -> None:
        if self._closing or self._refusal is not None:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._refusal = too_large(self._limits.body_bytes)
            self._refuse(self._refusal)
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._closing or self._refusal is not None:
            return
        self._enter("idle")
        keep_alive = self._parser.should_keep_alive()
        method, headers = self._parser.get_method().decode("latin-1"), self._headers
        path, _, query = self._url.decode("latin-1").partition("?")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        head = Head(method, path, query, headers, len(body))
        if keep_alive:
            self._server.known_heads.remember(self._piece, head)
        self._piece = b""
        encoding = headers.get("content-encoding", "")
        if encoding and body:
            content = decompressed(body, encoding, limit=self._limits.decompressed_bytes)
            if isinstance(content, HttpResponse):
                self._close_after = self._close_after or not keep_alive
                self._waiting.append(content)
                self._next()
                return
            body = content
        self._accept(head, body, keep_alive=keep_alive)

    def _accept(self, head: Head, body: bytes, *, keep_alive: bool) -> None:
        """Answer a whole request, or let it wait for those before it."""
        request_id = head.headers.get("x-request-id", "")
        if not request_id or len(request_id) > 128 or not request_id.isprintable():
            request_id = f"{_ID_PREFIX}-{next(_IDS):x}"
        request = HttpRequest(head.method, head.path, head.query, head.headers, body, self._peer, request_id)
        if not self._waiting and not self._busy and not self._closing and self._blocked_since is None:
            self._start(request, keep_alive=keep_alive and not self._close_after)
            return
        self._waiting.append((request, keep_alive))
        if len(self._waiting) >= MAX_PIPELINED:
            self._transport.pause_reading()

    # Answers.

    def _next(self) -> None:
        while self._waiting and not self._busy and not self._closing and self._blocked_since is None:
            item = self._waiting.popleft()
            if len(self._waiting) == MAX_PIPELINED - 1:
                self._transport.resume_reading()
            is_last = self._close_after and not self._waiting
            if isinstance(item, HttpResponse):
                self._write(item, keep_alive=not is_last)
                continue
            self._start(item[0], keep_alive=item[1] and not is_last)

    def _start(self, request: HttpRequest, *, keep_alive: bool) -> None:
        """Answer a request at once, or let a thread do it."""
        self._started = perf_counter()
        response = self._server.answer_quickly(request)
        if response is None:
            future = self._server.in_thread(request)
            if future is not None:
                self._busy = True
                future.add_done_callback(partial(self._answered, request=request, keep_alive=keep_alive))
                return
            response = json_error(503, "Too many requests wait; try again later", ("Retry-After", "1"))
        self._finish(response, request, keep_alive)

    def _answered(self, done: asyncio.Future[HttpResponse], *, request: HttpRequest, keep_alive: bool) -> None:
        self._busy = False
        if done.cancelled() or self._transport.is_closing():
            return
        error = done.exception()
        if error is not None:
            LOGGER.error("A request failed: %r", error, extra={"request_id": request.request_id})
        response = json_error(500, "Internal error") if error is not None else done.result()
        self._finish(response, request, keep_alive and not (self._close_after and not self._waiting))
        self._next()

    def _finish(self, response: HttpResponse, request: HttpRequest, keep_alive: bool) -> None:
        self._write(
            response, keep_alive=keep_alive, request_id=request.request_id, without_body=request.method == "HEAD"
        )
        if self._server.access_log:
            log_answer(
                "REST",
                f"{request.method} {request.path}",
                response.status,
                started=self._started,
                request_id=request.request_id,
                peer=self._peer,
            )

    def _write(
        self, response: HttpResponse, *, keep_alive: bool, request_id: str = "", without_body: bool = False
    ) -> None:
        status, body, content_type, headers = response
        keep_alive = keep_alive and not self._server.draining and not self._closing
        further = b"X-Request-Id: %b\r\n" % request_id.encode("latin-1", "replace") if request_id else b""
        for name, value in headers:
            further += f"{name}: {value}\r\n".encode("latin-1")
        if not keep_alive:
            further += b"Connection: close\r\n"
        first, content = first_lines(status, content_type), b"" if without_body else body
        self._transport.write(b"%bContent-Length: %d\r\n%b\r\n%b" % (first, len(body), further, content))
        if not keep_alive:
            self._closing = True
            self._transport.close()

    def _refuse(self, response: HttpResponse) -> None:
        """Answer a request that was not read to its end, after those before it; nothing after it can be read."""
        if self._busy or self._waiting:
            self._waiting.append(response)
            self._close_after = True
            self._transport.pause_reading()
            return
        self._write(response, keep_alive=False)

    # Time.

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._since = self._now
        if phase == "idle":
            self._header_bytes = 0

    def check_time(self, now: float) -> None:
        """End the connection where the client takes too long."""
        limits = self._limits
        if self._blocked_since is not None and now - self._blocked_since > limits.body_seconds:
            self.abort()
        elif self._busy or self._waiting:
            return
        elif self._phase == "idle":
            if now - self._since > limits.idle_seconds:
                self._transport.close()
        elif now - self._since > (limits.header_seconds if self._phase == "header" else limits.body_seconds):
            self._refuse(json_error(408, "The request took too long to arrive"))

    def close_if_idle(self) -> None:
        """Close a connection on which nothing runs."""
        if not self._busy and not self._waiting and self._phase == "idle":
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()
