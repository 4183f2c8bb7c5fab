"""Whatever bytes a client sends over gRPC, it gets an answer that is not the server's fault."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

GARBLED = "The request is no message of this method"
PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"
METHODS = [
    *(PREDICTION + name for name in ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")),
    MODEL + "GetModelStatus",
    MODEL + "HandleReloadConfigRequest",
]


@pytest.fixture(scope="module")
def send(server: Any) -> Iterator[Any]:
    """Sends bytes to a method, and returns the code and details of the answer."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        calls = {method: channel.unary_unary(method) for method in METHODS}

        def to(method: str, content: bytes) -> tuple[str, str]:
            try:
                calls[method](content, timeout=20)
            except grpc.RpcError as error:
                return error.code().name, error.details()
            return "OK", ""

        yield to


def valid_requests() -> list[bytes]:
    import tensorflow as tf
    from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, inference_pb2, predict_pb2

    predict = predict_pb2.PredictRequest()
    predict.model_spec.name = "half_plus_two"
    predict.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name = "half_plus_two"
    classify.model_spec.signature_name = "classify_x_to_y"
    classify.input.example_list.examples.add().features.feature["x"].float_list.value.append(1.0)
    inference = inference_pb2.MultiInferenceRequest(input=classify.input)
    inference.tasks.add(model_spec=classify.model_spec, method_name="tensorflow/serving/classify")
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=predict.model_spec, metadata_field=["signature_def"]
    )
    return [message.SerializeToString() for message in (predict, classify, inference, metadata)]


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_bytes_are_an_internal_error(send: Any, data: st.DataObject) -> None:
    method = data.draw(st.sampled_from(METHODS))
    content = data.draw(st.binary(max_size=40) | st.sampled_from(valid_requests()))
    # Bytes are changed, cut out and put in, so that much of it still reads as a message.
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content)))
        content = content[:place] + data.draw(st.binary(max_size=3)) + content[place + data.draw(st.integers(0, 3)) :]
    code, details = send(method, content)
    assert code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "UNAUTHENTICATED")
    assert "Traceback" not in details


def test_half_a_connection_holds_up_nobody(server: Any, send: Any) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings_frame = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    beginnings = [b"", preface[:10], preface, preface + settings_frame, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100]
    held = []
    for beginning in beginnings * 3:
        connection = socket.create_connection(("127.0.0.1", server.grpc), timeout=20)
        connection.sendall(beginning)
        held.append(connection)
    assert send(PREDICTION + "Predict", valid_requests()[0])[0] == "OK"
    for connection in held:
        connection.close()
    assert send(PREDICTION + "Predict", valid_requests()[0])[0] == "OK"


def test_what_is_no_message_is_told(send: Any) -> None:
    for method in METHODS[:-1]:
        assert send(method, b"\xff\xff\xff") == ("INVALID_ARGUMENT", GARBLED)
        assert send(method, valid_requests()[0][:-3]) == ("INVALID_ARGUMENT", GARBLED)
