"""TensorFlow Serving's gRPC interface, seen from the client (imports TensorFlow: the protos are its own)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import: a client has nothing to say about oneDNN

import grpc
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_serving.client_errors import Code, error_of
from tf_serving.client_transport import Connection, ModelCall, Transport, VersionStatus
from tf_serving.tensor_values import Array, Signature, Tensor, text_array

_UNLIMITED = -1


@final
class GrpcTransport(Transport):
    """Calls over one HTTP/2 connection.

    Args:
        connection: Where the server is.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # gRPC's own limit of 4 MB is below a batch of answers; its own retries would not know our deadline.
        options = [
            ("grpc.max_receive_message_length", _UNLIMITED),
            ("grpc.max_send_message_length", _UNLIMITED),
            ("grpc.enable_retries", 0),
        ]
        self._metadata = tuple((name.lower(), value) for name, value in connection.headers.items())
        target = f"{connection.host}:{connection.port}"
        if connection.secure:
            authority = connection.ca_certificate.read_bytes() if connection.ca_certificate else None
            credentials = grpc.ssl_channel_credentials(root_certificates=authority)
            self._channel = grpc.secure_channel(target, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self, call: ModelCall, arrays: Mapping[str, Array], *, signature: Signature, timeout: float
    ) -> dict[str, Array]:
        """Return the outputs by name."""
        request = predict_pb2.PredictRequest(model_spec=_spec(call))
        for name, array in arrays.items():
            dtype = types_pb2.DataType.Value(signature.inputs[name].dtype)
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=dtype, shape=array.shape))
        reply = self._call(self._predictions.Predict, request, timeout=timeout)
        outputs = {name: tf.make_ndarray(value) for name, value in reply.outputs.items()}
        return {
            name: text_array(array) if array.dtype == object and not name.endswith("_bytes") else array
            for name, array in outputs.items()
        }

    def signatures(self, call: ModelCall, *, timeout: float) -> dict[str, Signature]:
        """Return the signatures of a model by name."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_spec(call), metadata_field=["signature_def"]
        )
        reply = self._call(self._predictions.GetModelMetadata, request, timeout=timeout)
        found = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(found)
        return {
            name: Signature(inputs=_tensors(value.inputs), outputs=_tensors(value.outputs))
            for name, value in found.signature_def.items()
        }

    def status(self, call: ModelCall, *, timeout: float) -> list[VersionStatus]:
        """Return the versions, newest first."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(call))
        reply = self._call(self._models.GetModelStatus, request, timeout=timeout)
        names = get_model_status_pb2.ModelVersionStatus.State
        entries = sorted(reply.model_version_status, key=lambda entry: -entry.version)
        return [VersionStatus(entry.version, names.Name(entry.state), entry.status.error_message) for entry in entries]

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any, *, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            code = Code(error.code().name)
            message = str(error.details())
            if code is Code.DEADLINE_EXCEEDED:
                message = f"{self._connection.place} gave no answer in {timeout:.3g} seconds."
            elif code is Code.UNAVAILABLE and "connect" in message:
                message = f"{self._connection.place} cannot be reached: {message}"
            raise error_of(code, message) from error


def _spec(call: ModelCall) -> Any:
    spec = model_pb2.ModelSpec(name=call.model, signature_name=call.signature)
    if call.version is not None:
        spec.version.value = call.version
    elif call.label:
        spec.version_label = call.label
    return spec


def _tensors(found: Any) -> dict[str, Tensor]:
    return {
        name: Tensor(
            types_pb2.DataType.Name(value.dtype),
            None if value.tensor_shape.unknown_rank else tuple(dim.size for dim in value.tensor_shape.dim),
        )
        for name, value in found.items()
    }
