"""Request messages of TensorFlow Serving to response messages, on one version of a model (imports its protos).

gRPC requests and warm-up records both come this way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from tf_serving.server.examples import check_example_count, classifications, input_examples, regressions
from tf_serving.server.extensions import Arrays
from tf_serving.server.predict_calls import PredictCall, predict_call
from tf_serving.server.signatures import (
    CLASSIFY_METHOD,
    REGRESS_METHOD,
    SERVING_DEFAULT,
    ServedSignature,
    check_classify,
    check_outputs,
    check_regress,
)
from tf_serving.server.status import Code, ServingError, invalid
from tf_serving.server.tensor_protos import output_entry

Run = Callable[[ServedSignature, Arrays, tuple[str, ...]], Arrays]


class Target(NamedTuple):  # one is made for every request: a fourth of the time of a frozen dataclass
    """The version that answers, and how.

    Attributes:
        name: Of the model.
        number: Of the version.
        model: LoadedModel.
        run: Calls it, with whatever stands around it.
        strict_method: Whether signatures must be made for classify and regress.
        as_content: Whether answers carry ``tensor_content``.
        max_rows: Most examples.
    """

    name: str
    number: int
    model: Any
    run: Run
    strict_method: bool = False
    as_content: bool = False
    max_rows: int = 1_000_000


def answer(method: str, request: Any, target: Target) -> Any:
    """Return the response to a request.

    Args:
        method: "predict", "classify", "regress" or "multi_inference".
        request: Of that method.
        target: Which version answers.

    Raises:
        ServingError: With TensorFlow Serving's codes and words.
    """
    return _METHODS[method](request, target)


def predict(call: PredictCall, target: Target) -> bytes:
    """Return the PredictResponse to a request, on the wire: making it a message first takes ten times as long.

    Raises:
        ServingError: With TensorFlow Serving's codes and words.
    """
    key = call.spec.signature_name if call.spec is not None else ""
    signature = target.model.signature(key)
    if signature is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{key or SERVING_DEFAULT}" not found.')
    inputs = call.inputs()
    outputs = check_outputs(signature, call.output_filter) if call.output_filter else signature.output_names
    answers = target.run(signature, inputs, outputs)
    entries = [output_entry(alias, answers[alias], as_content=target.as_content) for alias in outputs]
    entries.append(_spec_on_the_wire(target.name, target.number, signature.name))
    return b"".join(entries)


@lru_cache(maxsize=256)
def _spec_on_the_wire(name: str, number: int, signature: str) -> bytes:
    response = predict_pb2.PredictResponse()
    response.model_spec.name = name
    response.model_spec.version.value = number
    response.model_spec.signature_name = signature
    return bytes(response.SerializeToString())


def _predict(request: Any, target: Target) -> Any:
    return predict_pb2.PredictResponse.FromString(predict(predict_call(request), target))


def _classify(request: Any, target: Target) -> Any:
    response = classification_pb2.ClassificationResponse()
    signature = example_signature(target.model, request.model_spec.signature_name)
    check_classify(signature, strict_method=target.strict_method)
    _classify_into(response.result, signature, _examples(request.input, target), target)
    _fill_spec(response.model_spec, target, signature)
    return response


def _regress(request: Any, target: Target) -> Any:
    response = regression_pb2.RegressionResponse()
    signature = example_signature(target.model, request.model_spec.signature_name)
    check_regress(signature, strict_method=target.strict_method)
    _regress_into(response.result, signature, _examples(request.input, target), target)
    _fill_spec(response.model_spec, target, signature)
    return response


def check_tasks(tasks: Any) -> None:
    """Check that the tasks of a MultiInference go together.

    Raises:
        ServingError: INVALID_ARGUMENT with TensorFlow Serving's words.
    """
    if not tasks:
        raise invalid("Inference tasks cannot be empty")
    signatures: set[str] = set()
    for task in tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or SERVING_DEFAULT
        if name in signatures:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signatures.add(name)


def _multi_inference(request: Any, target: Target) -> Any:
    check_tasks(request.tasks)
    response = inference_pb2.MultiInferenceResponse()
    examples = _examples(request.input, target)
    for task in request.tasks:
        signature = example_signature(target.model, task.model_spec.signature_name)
        result = response.results.add()
        if task.method_name == CLASSIFY_METHOD:
            check_classify(signature, strict_method=target.strict_method)
            _classify_into(result.classification_result, signature, examples, target)
        elif task.method_name == REGRESS_METHOD:
            check_regress(signature, strict_method=target.strict_method)
            _regress_into(result.regression_result, signature, examples, target)
        else:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        _fill_spec(result.model_spec, target, signature)
    return response


_METHODS = {"predict": _predict, "classify": _classify, "regress": _regress, "multi_inference": _multi_inference}


def example_signature(model: Any, name: str) -> ServedSignature:
    """Return the signature that a classify or regress request names.

    Raises:
        ServingError: INVALID_ARGUMENT where there is none.
    """
    signature: ServedSignature | None = model.signature(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name or SERVING_DEFAULT}")
    return signature


def _examples(message: Any, target: Target) -> Any:
    examples = input_examples(message)
    check_example_count(len(examples), target.max_rows)
    return examples


def _classify_into(result: Any, signature: ServedSignature, examples: Any, target: Target) -> None:
    outputs = target.run(signature, {"inputs": examples}, signature.output_names)
    for row in classifications(outputs, len(examples)):
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)


def _regress_into(result: Any, signature: ServedSignature, examples: Any, target: Target) -> None:
    outputs = target.run(signature, {"inputs": examples}, signature.output_names)
    for value in regressions(outputs, len(examples)).tolist():
        result.regressions.add(value=value)


def _fill_spec(spec: Any, target: Target, signature: ServedSignature) -> None:
    spec.name = target.name
    spec.version.value = target.number
    spec.signature_name = signature.name


def model_metadata(request: Any, *, name: str, number: int, model: Any) -> Any:
    """Return the response to GetModelMetadata."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = name
    response.model_spec.version.value = number
    for field in request.metadata_field:
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in model.signatures.items():
            signatures.signature_def[key].CopyFrom(signature.proto)
        response.metadata[field].Pack(signatures)
    return response


def check_metadata_fields(fields: Any) -> None:
    """Check what a GetModelMetadata request asks for.

    Raises:
        ServingError: INVALID_ARGUMENT with TensorFlow Serving's words.
    """
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != "signature_def":
            raise invalid(f"Metadata field {field} is not supported")
