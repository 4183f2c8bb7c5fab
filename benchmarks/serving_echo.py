"""Our transports with no model behind them: what HTTP and gRPC cost by themselves.

serving_echo.py REST_PORT GRPC_PORT loop|library    constant answers over both; gRPC by our loop or by grpc.server
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

from tf_serving.server.extensions import HttpRequest, HttpResponse
from tf_serving.server.grpc_calls import GrpcCall, Reply, Rpc
from tf_serving.server.grpc_library import LibraryTransport
from tf_serving.server.grpc_loop import LoopTransport
from tf_serving.server.http_protocol import HttpServer
from tf_serving.server.metrics import Metrics
from tf_serving.server.ports import bind
from tf_serving.server.settings import Limits

HTTP_ANSWER = HttpResponse(200, b'{\n    "predictions": [[0.123456, 0.123456, 0.753086]\n    ]\n}')
GRPC_ANSWER = bytes(80)
PREDICT = "/tensorflow.serving.PredictionService/Predict"


async def main(rest: int, grpc: int, kind: str) -> None:
    """Answer until killed."""

    def http(_: HttpRequest) -> HttpResponse:
        return HTTP_ANSWER

    def rpc(_: Any, __: GrpcCall) -> Reply:
        return 0, b"", GRPC_ANSWER

    methods = {PREDICT: Rpc(bytes, rpc, is_quick=lambda _: True)}
    transport: LoopTransport | LibraryTransport
    if kind == "loop":
        transport = LoopTransport(methods, watch=None, options=(), num_threads=1, max_calls=None, message_seconds=60)
    else:
        # As many threads as the server has where there is one core.
        transport = LibraryTransport(methods, watched=None, options=(), num_threads=4, max_calls=None)
    transport.listen(f"127.0.0.1:{grpc}", None)
    transport.start()
    server = HttpServer(http, answer_quickly=http, limits=Limits(), num_threads=1, metrics=Metrics())
    await server.start(bind("127.0.0.1", rest, shared=False, purpose="REST"), None)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
