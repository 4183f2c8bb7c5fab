"""What a call of a server can end with, the same over REST and gRPC."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import final


class Code(StrEnum):
    """gRPC's canonical codes, which TensorFlow Serving maps to HTTP statuses."""

    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class ServingError(RuntimeError):
    """A server refused or failed a call.

    Args:
        message: What the server said.
        code: Its code.
        retry_after: Seconds after which the server asked to try again; 0 if it did not say.
    """

    def __init__(self, message: str, *, code: Code, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


@final
class InvalidRequestError(ServingError, ValueError):
    """The request does not fit the model; sending it again changes nothing."""

    def __init__(self, message: str, *, code: Code = Code.INVALID_ARGUMENT, retry_after: float = 0.0) -> None:
        super().__init__(message, code=code, retry_after=retry_after)


@final
class ModelNotFoundError(ServingError):
    """There is no such model or version."""


@final
class DeadlineExceededError(ServingError):
    """No answer came within the time that was given."""


@final
class UnavailableError(ServingError):
    """The server cannot be reached, is overloaded or asks for patience; every attempt was in vain."""


@final
class AccessDeniedError(ServingError):
    """The API key or certificate is missing or wrong."""


@final
class ServerFaultError(ServingError):
    """The server itself failed."""


RETRIED = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED})
"""Codes after which the same request may be sent again: the model was not run, and running it changes nothing."""

_ERRORS: dict[Code, type[ServingError]] = {
    Code.INVALID_ARGUMENT: InvalidRequestError,
    Code.FAILED_PRECONDITION: InvalidRequestError,
    Code.OUT_OF_RANGE: InvalidRequestError,
    Code.UNIMPLEMENTED: InvalidRequestError,
    Code.NOT_FOUND: ModelNotFoundError,
    Code.DEADLINE_EXCEEDED: DeadlineExceededError,
    Code.UNAVAILABLE: UnavailableError,
    Code.RESOURCE_EXHAUSTED: UnavailableError,
    Code.PERMISSION_DENIED: AccessDeniedError,
    Code.UNAUTHENTICATED: AccessDeniedError,
}

_HTTP_CODES = {
    HTTPStatus.BAD_REQUEST: Code.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: Code.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: Code.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: Code.NOT_FOUND,
    HTTPStatus.CONFLICT: Code.ABORTED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Code.INVALID_ARGUMENT,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Code.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: Code.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: Code.RESOURCE_EXHAUSTED,
    HTTPStatus.NOT_IMPLEMENTED: Code.UNIMPLEMENTED,
    HTTPStatus.BAD_GATEWAY: Code.UNAVAILABLE,
    HTTPStatus.SERVICE_UNAVAILABLE: Code.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: Code.DEADLINE_EXCEEDED,
}


def error_of(code: Code, message: str, *, retry_after: float = 0.0) -> ServingError:
    """Return the error for a code.

    Args:
        code: The server's code.
        message: What it said.
        retry_after: Seconds after which it asked to try again.
    """
    return _ERRORS.get(code, ServerFaultError)(message, code=code, retry_after=retry_after)


def code_of_http(status: int) -> Code:
    """Return the code that an HTTP status stands for.

    Args:
        status: A status of 400 or more.
    """
    if status in _HTTP_CODES:
        return _HTTP_CODES[HTTPStatus(status)]
    return Code.INVALID_ARGUMENT if status < 500 else Code.INTERNAL
