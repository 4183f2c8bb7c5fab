"""A client of TensorFlow Serving, of tamiz and of whatever else speaks its interface.

    with Client("localhost:8501") as client:
        client.predict("adult", rows)

Over REST it needs no TensorFlow; over gRPC it does, because the messages are TensorFlow's own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, final, overload
from urllib.parse import urlsplit

from tf_serving.client_errors import (
    AccessDeniedError,
    Code,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ServerFaultError,
    ServingError,
    UnavailableError,
)
from tf_serving.client_transport import API_KEY_HEADER, Connection, ModelCall, Retries, Transport, VersionStatus
from tf_serving.tensor_values import Array, Rows, Signature, answers_frame, input_arrays

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AccessDeniedError",
    "Client",
    "ClientOptions",
    "Code",
    "DeadlineExceededError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "Retries",
    "ServerFaultError",
    "ServingError",
    "UnavailableError",
    "VersionStatus",
]

REST_PORT, GRPC_PORT = 8501, 8500
"""TensorFlow Serving's own."""

_SCHEMES = {"http": False, "https": True, "grpc": False, "grpcs": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How a client calls.

    Attributes:
        timeout: Seconds for a call, all its attempts together.
        retries: When to try again.
        api_key: Key to be let in with; "" for none.
        ca_certificate: PEM file of the authority that signed the server's certificate; None for the system's.
        headers: Sent with every call.
    """

    timeout: float = 30.0
    retries: Retries = field(default_factory=Retries)
    api_key: str = ""
    ca_certificate: Path | None = None
    headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ValueError(f"Expected a timeout of more than 0 seconds, received {self.timeout:g}.")


@final
class Client:
    """Calls a model server; several threads may share it, and its connections are kept.

    Args:
        address: ``host:port``, with ``http://``, ``https://``, ``grpc://`` or ``grpcs://`` before it. Without a scheme
            it is REST, except on port 8500, which is TensorFlow Serving's for gRPC.
        options: How to call.

    Raises:
        ValueError: The address cannot be read.
    """

    def __init__(self, address: str, *, options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._transport = _transport(address, self._options)
        self._signatures: dict[tuple[str, int | None, str], dict[str, Signature]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # A DataFrame is neither a Mapping nor a Sequence, which mypy cannot know.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, model: str, data: pd.DataFrame, *, version: int | None = ..., label: str = ..., signature: str = ...,
        timeout: float | None = ...,
    ) -> pd.DataFrame: ...  # fmt: skip
    @overload
    def predict(
        self, model: str, data: Rows, *, version: int | None = ..., label: str = ..., signature: str = ...,
        timeout: float | None = ...,
    ) -> dict[str, Array]: ...  # fmt: skip
    def predict(
        self,
        model: str,
        data: Rows,
        *,
        version: int | None = None,
        label: str = "",
        signature: str = "serving_default",
        timeout: float | None = None,
    ) -> dict[str, Array] | pd.DataFrame:
        """Return what a model answers.

        Args:
            model: Name of the model.
            data: A DataFrame, columns by name, rows by name, or one array for a model of one input. Missing values
                become NaN, or "" in text.
            version: Version; None for the newest.
            label: Label of a version instead, such as ``canary``.
            signature: Name of the signature.
            timeout: Seconds for this call; None for those of the options.

        Returns:
            Arrays by name of the output, each with the rows first, text as str; for a DataFrame, a DataFrame with the
            same index.

        Raises:
            InvalidRequestError: The data do not fit the model.
            ModelNotFoundError: There is no such model or version.
            DeadlineExceededError: No answer came in time.
            UnavailableError: The server cannot be reached or is overloaded.
            AccessDeniedError: The key or certificate is not accepted.
            ServerFaultError: The server failed.
        """
        call = ModelCall(model=model, version=version, label=label, signature=signature)
        seconds = self._options.timeout if timeout is None else timeout
        try:
            outputs = self._predict(call, data, seconds)
        except InvalidRequestError:
            # A new version may take other columns than the one whose signature is remembered.
            if not self._forget(call):
                raise
            outputs = self._predict(call, data, seconds)
        if hasattr(data, "iloc") and hasattr(data, "index"):
            return answers_frame(outputs, data.index)
        return outputs

    def signatures(self, model: str, *, version: int | None = None, label: str = "") -> dict[str, Signature]:
        """Return what a model takes and answers, by name of the signature.

        Args:
            model: Name of the model.
            version: Version; None for the newest.
            label: Label of a version instead.

        Raises:
            ServingError: As `predict`.
        """
        call = ModelCall(model=model, version=version, label=label)
        return self._options.retries.call(
            lambda left: self._transport.signatures(call, timeout=left), timeout=self._options.timeout
        )

    def status(self, model: str, *, version: int | None = None) -> list[VersionStatus]:
        """Return the state of the versions of a model, newest first.

        Args:
            model: Name of the model.
            version: Only this one; None for all.

        Raises:
            ServingError: As `predict`.
        """
        call = ModelCall(model=model, version=version)
        return self._options.retries.call(
            lambda left: self._transport.status(call, timeout=left), timeout=self._options.timeout
        )

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _predict(self, call: ModelCall, data: Rows, timeout: float) -> dict[str, Array]:
        def attempt(left: float) -> dict[str, Array]:
            signature = self._signature(call, left)
            arrays = input_arrays(data, signature.inputs)
            return self._transport.predict(call, arrays, signature=signature, timeout=left)

        return self._options.retries.call(attempt, timeout=timeout)

    def _signature(self, call: ModelCall, timeout: float) -> Signature:
        key = (call.model, call.version, call.label)
        with self._lock:
            known = self._signatures.get(key)
        if known is None:
            known = self._transport.signatures(call, timeout=timeout)
            with self._lock:
                self._signatures[key] = known
        if call.signature not in known:
            names = ", ".join(repr(name) for name in sorted(known) if not name.startswith("__"))
            raise InvalidRequestError(f"Expected one of the signatures {names}, received {call.signature!r}.")
        return known[call.signature]

    def _forget(self, call: ModelCall) -> bool:
        """Forget a remembered signature if the server has another one by now."""
        key = (call.model, call.version, call.label)
        with self._lock:
            known = self._signatures.pop(key, None)
        return known is not None and self.signatures(call.model, version=call.version, label=call.label) != known


def parse_address(address: str, options: ClientOptions) -> tuple[Connection, bool]:
    """Return where a server is and whether it is spoken to over gRPC.

    Args:
        address: As for `Client`.
        options: Key, certificate and headers.

    Raises:
        ValueError: The address cannot be read.
    """
    scheme, separator, rest = address.rpartition("://")
    parts = urlsplit(f"//{rest}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"Expected an address such as localhost:8501, received {address!r}: {error}.") from error
    if not host or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"Expected an address such as localhost:8501 or grpc://host:8500, received {address!r}.")
    if separator and scheme not in _SCHEMES:
        raise ValueError(f"Expected one of {', '.join(_SCHEMES)} before ://, received {scheme!r}.")
    is_grpc = scheme.startswith("grpc") if separator else port == GRPC_PORT
    headers = dict(options.headers or {})
    if options.api_key:
        headers[API_KEY_HEADER] = options.api_key
    connection = Connection(
        host=host,
        port=port or (GRPC_PORT if is_grpc else REST_PORT),
        secure=_SCHEMES.get(scheme, False),
        ca_certificate=options.ca_certificate,
        headers=headers,
    )
    return connection, is_grpc


def _transport(address: str, options: ClientOptions) -> Transport:
    connection, is_grpc = parse_address(address, options)
    if is_grpc:
        from tf_serving.grpc_transport import GrpcTransport

        return GrpcTransport(connection)
    from tf_serving.rest_transport import RestTransport

    return RestTransport(connection)
