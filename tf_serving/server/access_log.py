"""One line of the log for every answer, when asked for. No TensorFlow here."""

from __future__ import annotations

from time import perf_counter

from tf_serving.server.logs import LOGGER


def log_answer(protocol: str, request: str, code: int | str, *, started: float, request_id: str, peer: str) -> None:
    """Write the line.

    Args:
        protocol: "REST" or "gRPC".
        request: Method and path; never the query, which may hold secrets.
        code: HTTP status, or name of the gRPC status.
        started: When the request was whole, of ``perf_counter``.
        request_id: The client's own, or made here.
        peer: Address of the client.
    """
    milliseconds = round((perf_counter() - started) * 1e3, 3)
    LOGGER.info(
        "%s %s %s in %.1f ms, request %s",
        protocol,
        request,
        code,
        milliseconds,
        request_id,
        extra={
            "protocol": protocol,
            "request": request,
            "code": code,
            "milliseconds": milliseconds,
            "request_id": request_id,
            "peer": peer,
        },
    )
