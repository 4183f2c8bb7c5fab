"""TensorFlow Serving's REST interface, seen from the client (no TensorFlow here).

Requests are in the columnar format, ``{"inputs": {name: [...]}}``: an array then becomes JSON without a loop over its
rows, and what comes back is arrays too.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import Mapping
from typing import Any, final
from urllib.parse import quote

import numpy as np
import orjson
import urllib3

from tf_serving.client_errors import Code, code_of_http, error_of
from tf_serving.client_transport import Connection, ModelCall, Transport, VersionStatus
from tf_serving.tensor_values import STRING, Array, Signature, Tensor, numpy_dtype

MAX_CONNECTIONS = 32


@final
class RestTransport(Transport):
    """Calls over HTTP/1.1 with connections that are kept.

    Args:
        connection: Where the server is.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        headers = {"content-type": "application/json", **connection.headers}
        shared: dict[str, Any] = {"port": connection.port, "maxsize": MAX_CONNECTIONS, "headers": headers}
        if connection.secure:
            context = ssl.create_default_context(cafile=connection.ca_certificate)
            self._pool: urllib3.HTTPConnectionPool = urllib3.HTTPSConnectionPool(
                connection.host, ssl_context=context, **shared
            )
        else:
            self._pool = urllib3.HTTPConnectionPool(connection.host, **shared)

    def predict(
        self, call: ModelCall, arrays: Mapping[str, Array], *, signature: Signature, timeout: float
    ) -> dict[str, Array]:
        """Return the outputs by name."""
        body = _request_body(call.signature, arrays)
        answer = self._send("POST", f"{_path(call)}:predict", body=body, timeout=timeout)
        outputs = answer.get("outputs") if isinstance(answer, dict) else None
        if len(signature.outputs) == 1 and outputs is not None:
            outputs = dict.fromkeys(signature.outputs, outputs)
        if not isinstance(outputs, dict) or outputs.keys() != signature.outputs.keys():
            raise error_of(Code.INTERNAL, f"{self._connection.place} answered no outputs but {_shown(answer)}.")
        try:
            return {name: _output(outputs[name], name, tensor) for name, tensor in signature.outputs.items()}
        except (TypeError, ValueError) as error:
            raise error_of(Code.INTERNAL, f"{self._connection.place} answered no tensor ({error}).") from error

    def signatures(self, call: ModelCall, *, timeout: float) -> dict[str, Signature]:
        """Return the signatures of a model by name."""
        answer = self._send("GET", f"{_path(call)}/metadata", timeout=timeout)
        try:
            found = answer["metadata"]["signature_def"]["signature_def"]
            return {
                name: Signature(inputs=_tensors(value["inputs"]), outputs=_tensors(value["outputs"]))
                for name, value in found.items()
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise error_of(
                Code.INTERNAL, f"{self._connection.place} answered no metadata: {_shown(answer)}."
            ) from error

    def status(self, call: ModelCall, *, timeout: float) -> list[VersionStatus]:
        """Return the versions, newest first."""
        answer = self._send("GET", _path(call), timeout=timeout)
        try:
            return [
                VersionStatus(int(entry["version"]), str(entry["state"]), str(entry["status"]["error_message"]))
                for entry in answer["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise error_of(Code.INTERNAL, f"{self._connection.place} answered no status: {_shown(answer)}.") from error

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _send(self, method: str, path: str, *, timeout: float, body: bytes | None = None) -> Any:
        place = self._connection.place
        limits = urllib3.Timeout(total=timeout)
        try:
            reply = self._pool.urlopen(method, path, body=body, timeout=limits, retries=False, redirect=False)
        except urllib3.exceptions.NewConnectionError as error:
            raise error_of(Code.UNAVAILABLE, f"{place} cannot be reached: {_reason(error)}.") from error
        except urllib3.exceptions.ConnectTimeoutError as error:
            raise error_of(Code.UNAVAILABLE, f"{place} accepts no connection.") from error
        except urllib3.exceptions.TimeoutError as error:
            raise error_of(Code.DEADLINE_EXCEEDED, f"{place} gave no answer in {timeout:.3g} seconds.") from error
        except urllib3.exceptions.SSLError as error:
            raise error_of(Code.UNAUTHENTICATED, f"No trusted TLS connection to {place}: {error}.") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise error_of(Code.UNAVAILABLE, f"{place} cannot be reached: {_reason(error)}.") from error
        answer = _parsed(reply.data)
        if reply.status == 200 and answer is not None:
            return answer
        message = answer.get("error") if isinstance(answer, dict) else None
        if reply.status < 400:
            raise error_of(Code.INTERNAL, f"{place} answered no JSON but {_shown(reply.data)}; is it a model server?")
        raise error_of(
            code_of_http(reply.status),
            str(message) if message else f"{place} answered HTTP {reply.status} {reply.reason or ''}".rstrip() + ".",
            retry_after=_seconds(reply.headers.get("retry-after", "")),
        )


def _path(call: ModelCall) -> str:
    path = f"/v1/models/{quote(call.model, safe='')}"
    if call.version is not None:
        return f"{path}/versions/{call.version}"
    return f"{path}/labels/{quote(call.label, safe='')}" if call.label else path


def _request_body(signature: str, arrays: Mapping[str, Array]) -> bytes:
    inputs = {name: _json_value(array) for name, array in arrays.items()}
    request = {"signature_name": signature, "inputs": inputs}
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays.values()):
        # orjson would write null for NaN; TensorFlow Serving takes the bare token.
        return json.dumps(request, default=lambda array: array.tolist(), separators=(",", ":")).encode()
    return orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_value(array: Array) -> Any:
    if array.dtype == object:
        flat = [_json_text(value) for value in array.reshape(-1)]
        return _nested(flat, array.shape)
    if array.dtype.kind == "f" and array.dtype.itemsize == 4 and not np.isfinite(array).all():
        # The shortest digits of a float32, as orjson writes it: 0.1, not 0.10000000149011612.
        flat = [float(str(value)) for value in array.reshape(-1)]
        return _nested(flat, array.shape)
    return array if array.ndim and array.dtype.name in _WRITTEN_BY_ORJSON else array.tolist()


_WRITTEN_BY_ORJSON = {
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
}  # fmt: skip


def _json_text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    width = len(flat) // shape[0] if shape[0] else 0
    return [_nested(flat[row * width : (row + 1) * width], shape[1:]) for row in range(shape[0])]


def _tensors(found: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {}
    for name, value in found.items():
        shape = value["tensor_shape"]
        sizes = None if shape["unknown_rank"] else tuple(int(dim["size"]) for dim in shape["dim"])
        tensors[name] = Tensor(str(value["dtype"]), sizes)
    return tensors


def _output(values: Any, name: str, tensor: Tensor) -> Array:
    if tensor.dtype != STRING:
        return np.asarray(values, dtype=numpy_dtype(tensor.dtype))
    array = np.asarray(values, dtype=object)
    if not name.endswith("_bytes"):
        return array
    decoded = np.empty(array.size, dtype=object)
    try:
        decoded[:] = [base64.b64decode(value["b64"], validate=True) for value in array.reshape(-1)]
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"{name!r} is no base64") from error
    return decoded.reshape(array.shape)


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            return json.loads(content)  # knows NaN and Infinity, as TensorFlow Serving writes them
        except (ValueError, RecursionError):
            return None


def _shown(answer: Any) -> str:
    text = repr(answer)
    return text if len(text) <= 120 else text[:117] + "..."


def _reason(error: BaseException) -> str:
    # urllib3 names its own object first: "HTTPConnection(host=..., port=...): Failed to establish ...".
    return str(error).rpartition(": ")[2].rstrip(".") or type(error).__name__


def _seconds(text: str) -> float:
    try:
        return max(float(text), 0.0)
    except ValueError:  # an HTTP date, or nothing
        return 0.0
