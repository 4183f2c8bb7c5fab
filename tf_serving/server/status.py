"""What can go wrong with a request: TensorFlow's status codes, and the HTTP codes TensorFlow Serving gives them."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Status codes, with the numbers of gRPC and of TensorFlow's error.proto."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class ServingError(Exception):
    """An answer that is not OK; the message goes to the client as it stands.

    Args:
        code: Status code.
        message: What TensorFlow Serving says in this case.
        http_status: The HTTP status where it is not the code's own one (413, 415, 431).
        retry_after: Seconds after which another try makes sense; becomes ``Retry-After``.
    """

    def __init__(
        self, code: Code, message: str, *, http_status: int | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = HTTP_STATUS[code] if http_status is None else http_status
        self.retry_after = retry_after


def invalid(message: str) -> ServingError:
    """Return the most common error: the client's mistake."""
    return ServingError(Code.INVALID_ARGUMENT, message)


class ConfigurationError(ValueError):
    """The server cannot start with these settings or files; the message says which and why."""
