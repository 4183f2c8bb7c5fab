"""TensorFlow Serving's gRPC contract with its official stubs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

HALF = "half_plus_two"
ADMIN_TOKEN = "a token for tests"


def predict_request(model: str, signature: str = "", **inputs: Any) -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def example_request(kind: Any, signature: str, rows: list[dict[str, float]], model: str = HALF) -> Any:
    import tensorflow as tf

    request = kind()
    if hasattr(request, "model_spec"):
        request.model_spec.name = model
        request.model_spec.signature_name = signature
    for row in rows:
        example = tf.train.Example()
        for name, value in row.items():
            example.features.feature[name].float_list.value.append(value)
        request.input.example_list.examples.append(example)
    return request


def failure(call: Callable[[], Any]) -> tuple[str, str]:
    import grpc

    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()


@pytest.mark.parametrize("signature", ["", "serving_default"])
def test_requests_that_differ_in_their_numbers_only_get_their_own_answers(stubs: Any, signature: str) -> None:
    # The second one is not parsed any more; its numbers begin at any byte, depending on the names before them.
    for values in ([1.0, 2.0], [3.0, -5.0], [0.5, 1e30]):
        array = np.array(values, np.float32)
        response = stubs[0].Predict(predict_request(HALF, signature, x=array), timeout=20)
        assert np.array_equal(response.outputs["y"].float_val, array * np.float32(0.5) + np.float32(3.0))


def test_predict_names_what_answered(stubs: Any) -> None:
    import tensorflow as tf

    request = predict_request(HALF, x=np.float32([1, 2]))
    response = stubs[0].Predict(request, timeout=20)
    assert (response.model_spec.name, response.model_spec.version.value) == (HALF, 2)
    assert response.model_spec.signature_name == "serving_default"
    # The typed field, not tensor_content: clients read float_val.
    assert list(response.outputs["y"].float_val) == [3.5, 4.0]
    assert tf.make_ndarray(response.outputs["y"]).dtype == np.float32
    request.model_spec.version.value = 1
    assert list(stubs[0].Predict(request).outputs["y"].float_val) == [2.5, 3.0]
    request.model_spec.version_label = "canary"
    assert stubs[0].Predict(request).model_spec.version.value == 2


TYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "complex64")


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 2), (2, 3)])
def test_numbers_come_back_to_the_last_bit(stubs: Any, name: str, shape: tuple[int, ...]) -> None:
    import tensorflow as tf

    values = (np.random.default_rng(1).normal(size=shape) * 50).astype(name)
    answer = stubs[0].Predict(predict_request("types", name, values=values)).outputs["same"]
    got = tf.make_ndarray(answer)
    assert got.dtype == values.dtype
    assert got.shape == values.shape
    assert got.tobytes() == np.asarray(values).tobytes()


def test_text_and_truth_come_back(stubs: Any) -> None:
    import tensorflow as tf

    for name, values in (("string", [[b"\xff\x00", b""]]), ("bool", [True, False])):
        answer = stubs[0].Predict(predict_request("types", name, values=values)).outputs["same"]
        assert tf.make_ndarray(answer).tolist() == values


def test_answers_equal_the_loaded_model_to_the_last_bit(stubs: Any, models: Any) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(models / "pair" / "7"))
    a, b = np.random.default_rng(3).normal(size=(65, 2)).astype(np.float32), np.array([b"q"] * 65, object)
    expected = loaded.signatures["serving_default"](a=tf.constant(a), b=tf.constant(b))
    outputs = stubs[0].Predict(predict_request("pair", a=a, b=b)).outputs
    for alias, tensor in expected.items():
        assert tf.make_ndarray(outputs[alias]).tobytes() == tensor.numpy().tobytes() or tensor.dtype == tf.string
    assert tf.make_ndarray(outputs["text"]).tolist() == [b"Q"] * 65


def test_output_filter(stubs: Any) -> None:
    request = predict_request("pair", a=np.float32([[1, 2]]), b=[b"x"])
    request.output_filter.append("sum")
    assert list(stubs[0].Predict(request).outputs) == ["sum"]
    request.output_filter.append("sum")
    assert failure(lambda: stubs[0].Predict(request)) == ("INVALID_ARGUMENT", "duplicate output tensor alias: sum")
    request.output_filter[:] = ["z"]
    assert failure(lambda: stubs[0].Predict(request)) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {sum,text,twice}.",
    )


def test_predict_refuses_in_words(stubs: Any) -> None:
    from tensorflow_serving.apis import predict_pb2

    predict = stubs[0].Predict
    x = np.float32([1])
    assert failure(lambda: predict(predict_pb2.PredictRequest())) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert failure(lambda: predict(predict_request("", "s"))) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )
    assert failure(lambda: predict(predict_request("none", x=x))) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(none)",
    )
    assert failure(lambda: predict(predict_request(HALF, "s", x=x))) == (
        "FAILED_PRECONDITION",
        'Serving signature key "s" not found.',
    )
    assert failure(lambda: predict(predict_request("pair", a=x))) == (
        "INVALID_ARGUMENT",
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
    )
    code, text = failure(lambda: predict(predict_request(HALF, y=x)))
    assert code == "INVALID_ARGUMENT"
    assert text == (
        "Signature input alias: x(feed name: plain:0) not found in request and no default value provided. Inputs "
        "expected to be in the request {y}, or default input alias set: "
    )
    bad = predict_request(HALF, x=x)
    bad.inputs["x"].tensor_shape.dim[0].size = -5
    assert failure(lambda: predict(bad)) == ("INVALID_ARGUMENT", "tensor parsing error: x")
    label = predict_request(HALF, x=x)
    label.model_spec.version_label = "beta"
    assert failure(lambda: predict(label)) == ("INVALID_ARGUMENT", "Unrecognized servable version label: beta")


def test_classify_and_regress(stubs: Any) -> None:
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    request = example_request(classification_pb2.ClassificationRequest, "classify_x_to_y", [{"x": 2.0}, {"x": 4.0}])
    result = stubs[0].Classify(request).result.classifications
    assert [[(one.label, one.score) for one in row.classes] for row in result] == [
        [("yes", 4.0), ("no", -4.0)],
        [("yes", 5.0), ("no", -5.0)],
    ]
    request = example_request(regression_pb2.RegressionRequest, "regress_x_to_y", [{"x": 2.0}])
    assert [one.value for one in stubs[0].Regress(request).result.regressions] == [4.0]
    with_context = regression_pb2.RegressionRequest(model_spec=request.model_spec)
    context = with_context.input.example_list_with_context
    context.context.CopyFrom(request.input.example_list.examples[0])
    context.examples.add()
    assert stubs[0].Regress(with_context).result.regressions[0].value == 4.0
    del request.input.example_list.examples[:]
    assert failure(lambda: stubs[0].Regress(request)) == ("INVALID_ARGUMENT", "Input is empty.")
    request.model_spec.signature_name = "s"
    request.input.example_list.examples.add()
    assert failure(lambda: stubs[0].Regress(request)) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: s",
    )


def multi_request(*tasks: tuple[str, str, str]) -> Any:
    from tensorflow_serving.apis import inference_pb2

    request = example_request(inference_pb2.MultiInferenceRequest, "", [{"x": 2.0}])
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


def test_multi_inference(stubs: Any) -> None:
    call = stubs[0].MultiInference
    response = call(multi_request((HALF, "regress_x_to_y", "regress"), (HALF, "classify_x_to_y", "classify")))
    assert response.results[0].regression_result.regressions[0].value == 4.0
    assert response.results[1].classification_result.classifications[0].classes[0].label == "yes"
    assert response.results[1].model_spec.version.value == 2
    other = multi_request((HALF, "regress_x_to_y", "regress"), ("pair", "s", "regress"))
    assert failure(lambda: call(other)) == (
        "INVALID_ARGUMENT",
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    )
    twice = multi_request((HALF, "regress_x_to_y", "regress"), (HALF, "regress_x_to_y", "regress"))
    assert failure(lambda: call(twice)) == ("INVALID_ARGUMENT", "Duplicate evaluation of signature: regress_x_to_y")
    assert failure(lambda: call(multi_request((HALF, "regress_x_to_y", "predict")))) == (
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    )


def test_metadata(stubs: Any) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest()
    call = stubs[0].GetModelMetadata
    assert failure(lambda: call(request)) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.version.value = 1
    request.metadata_field.append("signature_def")
    assert failure(lambda: call(request)) == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")
    request.Clear()
    request.model_spec.name = HALF
    assert failure(lambda: call(request)) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("f")
    assert failure(lambda: call(request)) == ("INVALID_ARGUMENT", "Metadata field f is not supported")
    request.metadata_field[:] = ["signature_def"]
    response = call(request)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert found.signature_def["serving_default"].inputs["x"].name == "plain:0"
    assert response.model_spec.version.value == 2


def test_status(stubs: Any) -> None:
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = HALF
    statuses = stubs[1].GetModelStatus(request).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(status.version, status.state) for status in statuses] == [(2, available), (1, available)]
    request.model_spec.version.value = 9
    assert failure(lambda: stubs[1].GetModelStatus(request)) == (
        "NOT_FOUND",
        f"Could not find version 9 of model {HALF}",
    )


def test_health(server: Any) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "ModelService", "PredictionService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == 1


def test_a_deadline_is_kept(stubs: Any) -> None:
    request = predict_request("types", "slow", steps=np.int32([2_000_000_000]))
    code, _ = failure(lambda: stubs[0].Predict(request, timeout=0.5))
    assert code == "DEADLINE_EXCEEDED"


def test_bytes_that_are_no_message_are_refused(server: Any) -> None:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        for method in ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"):
            call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
            for content in (b"\xff\xff\xff", b"\x0a\xff\x01", bytes(range(256))):
                code, _ = failure(lambda call=call, content=content: call(content, timeout=20))
                assert code == "INVALID_ARGUMENT"
        session = channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
        assert failure(lambda: session(b"", timeout=20))[0] == "UNIMPLEMENTED"


def test_long_messages_are_cut(stubs: Any) -> None:
    code, text = failure(lambda: stubs[0].Predict(predict_request(HALF, "s" * 3000)))
    assert code == "FAILED_PRECONDITION"
    assert text.endswith("...TRUNCATED")
    assert len(text) == 1024 + len("...TRUNCATED")


def test_reload_is_only_for_those_with_the_token(stubs: Any) -> None:
    from tensorflow_serving.apis import model_management_pb2

    call = stubs[1].HandleReloadConfigRequest
    request = model_management_pb2.ReloadConfigRequest()
    assert failure(lambda: call(request))[0] == "UNAUTHENTICATED"
    metadata = (("authorization", f"Bearer {ADMIN_TOKEN}"),)
    assert failure(lambda: call(request, metadata=metadata)) == (
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
        "supported",
    )
    config = request.config.model_config_list.config.add(name="m", base_path="relative", model_platform="tensorflow")
    assert failure(lambda: call(request, metadata=metadata)) == (
        "INVALID_ARGUMENT",
        "Expected model m to have an absolute path or URI; got base_path()=relative",
    )
    assert config.name == "m"
