"""gRPC by the library's own server: a thread of a pool for every call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, final

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from tf_serving.server.grpc_calls import Metadata, Rpc

_STATUS_OF = {code.value[0]: code for code in grpc.StatusCode}


@final
class LibraryTransport:
    """Answers calls of unary methods, and watches of health.

    Args:
        methods: By path, "/package.Service/Method".
        watched: Health to answer from; None for none.
        options: Of the server.
        num_threads: For all calls.
        max_calls: Most calls at once; None for no limit.
    """

    def __init__(
        self,
        methods: Mapping[str, Rpc],
        *,
        watched: health.HealthServicer | None,
        options: Sequence[tuple[str, int | str]],
        num_threads: int,
        max_calls: int | None,
    ) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="grpc")
        self._server = grpc.server(self._pool, options=list(options), maximum_concurrent_rpcs=max_calls)
        services: dict[str, dict[str, Any]] = {}
        for path, rpc in methods.items():
            _, service, method = path.split("/")
            services.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(_handler(rpc))
        for service, handlers in services.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        if watched is not None:
            health_pb2_grpc.add_HealthServicer_to_server(watched, self._server)

    def listen(self, address: str, credentials: Any) -> None:
        """Open an address, in plain text where there are no credentials.

        Raises:
            RuntimeError: It cannot be used.
        """
        if credentials is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, credentials)

    def start(self) -> None:
        """Take calls."""
        self._server.start()

    def stop(self, *, timeout: float) -> None:
        """Take no more calls, let running ones end for so many seconds, then cancel them."""
        self._server.stop(timeout).wait()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _handler(rpc: Rpc) -> Callable[[bytes, Any], bytes]:
    def handle(content: bytes, context: Any) -> bytes:
        call = _Call(context)
        code, text, answer = rpc.finish(rpc.begin(content), call)
        if call.trailing:
            context.set_trailing_metadata(call.trailing)
        if code:
            context.abort(_STATUS_OF[code], text.decode())
        return answer

    return handle


class _Call:
    """A call as methods see it."""

    __slots__ = ("_context", "started", "trailing")

    def __init__(self, context: Any) -> None:
        self._context = context
        self.started = perf_counter()
        self.trailing: Metadata = ()

    def metadata(self) -> Metadata:
        """Return what the client sent beside the message."""
        return self._context.invocation_metadata()  # type: ignore[no-any-return]

    def time_remaining(self) -> float:
        """Return the seconds left; very many for no deadline."""
        left = self._context.time_remaining()
        return float("inf") if left is None else float(left)

    def peer(self) -> str:
        """Return the client's address."""
        return str(self._context.peer())
