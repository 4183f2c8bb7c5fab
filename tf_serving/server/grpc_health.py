"""Answers of the library's health service without the library's server."""

from __future__ import annotations

from typing import Any, final

from grpc_health.v1 import health, health_pb2

from tf_serving.server.grpc_calls import MALFORMED, GrpcCall, Reply, Rpc
from tf_serving.server.status import Code

SERVICE = "/grpc.health.v1.Health"


def check_method(servicer: health.HealthServicer) -> Rpc:
    """Return the method Check; it needs no key."""

    def finish(request: Any, _: GrpcCall) -> Reply:
        if request is MALFORMED:
            return int(Code.INVALID_ARGUMENT), b"The request is no message of this method", b""
        state = _State()
        response = servicer.Check(request, state)
        return state.code, b"", response.SerializeToString()

    return Rpc(health_pb2.HealthCheckRequest.FromString, finish, is_quick=lambda _: True)


@final
class _State:
    """What the service says beside its message."""

    code = 0

    def set_code(self, code: Any) -> None:
        """Take the status."""
        self.code = int(code.value[0])
