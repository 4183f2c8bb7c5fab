"""Classify and regress: tf.Example in, classes and values out (imports TensorFlow's protos)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.example import example_pb2

from tf_serving.server import tensor_types as types
from tf_serving.server.json_tensors import decode_base64, is_base64, json_type
from tf_serving.server.json_text import dump
from tf_serving.server.status import Code, ServingError, invalid

Arrays = Mapping[str, NDArray[Any]]

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def serialized_examples(document: Mapping[str, Any], *, max_rows: int) -> NDArray[Any]:
    """Return the examples of a REST request, serialized, ``(num_examples,)``.

    Args:
        document: With ``examples`` and maybe ``context``.
        max_rows: Most examples.

    Raises:
        ServingError: With TensorFlow Serving's words.
    """
    context = b""
    if "context" in document:
        context = _example(document["context"]).SerializeToString()
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {dump(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if type(examples) is not list:
        raise invalid(f"JSON Value: {dump(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {dump(document)} 'examples' value is an empty array")
    if len(examples) > max_rows:
        raise invalid(f"Request has {len(examples)} examples, more than the {max_rows} that are allowed")
    # Concatenated protos are merged ones: an example's feature takes the place of the context's.
    return _objects([context + _example(example).SerializeToString() for example in examples])


def _example(value: Any) -> Any:
    if type(value) is not dict:
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for element in content if type(content) is list else [content]:
            _add(feature, name, element)
    return example


def _add(feature: Any, name: str, value: Any) -> None:
    kind, converted = _element(name, value)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}")
    getattr(feature, kind).value.append(converted)


def _element(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "int64_list", int(value)
    if type(value) is int:
        if value >= 1 << 64 or value < -(1 << 63):
            return "float_list", float(value)  # what a JSON parser with 64 bits makes of it
        if value >= 1 << 63:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64_list", value
    if type(value) is float:
        with np.errstate(over="ignore"):
            return "float_list", float(np.float32(value))
    if type(value) is str:
        return "bytes_list", value.encode("utf-8", "surrogatepass")
    if is_base64(value):
        return "bytes_list", decode_base64(value)
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")


def input_examples(message: Any) -> NDArray[Any]:
    """Return the examples of a gRPC ``Input``, serialized, ``(num_examples,)``.

    Raises:
        ServingError: INVALID_ARGUMENT where there are none.
    """
    kind = message.WhichOneof("kind")
    examples: list[bytes] = []
    if kind == "example_list":
        examples = [example.SerializeToString() for example in message.example_list.examples]
    elif kind == "example_list_with_context":
        context = message.example_list_with_context.context.SerializeToString()
        examples = [context + one.SerializeToString() for one in message.example_list_with_context.examples]
    if not examples:
        raise invalid("Input is empty.")
    return _objects(examples)


def _objects(values: Sequence[bytes]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def classifications(outputs: Arrays, num_examples: int) -> list[list[tuple[bytes, float]]]:
    """Return the (label, score) pairs of every example.

    Args:
        outputs: ``classes`` and ``scores``, each ``(num_examples, num_classes)``; one of them may be missing.
        num_examples: Rows of the request.

    Raises:
        ServingError: The model answered other shapes or types.
    """
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for name, array, dtype in (("classes", classes, types.STRING), ("scores", scores, types.FLOAT)):
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
        if types.number_of(array.dtype) != dtype:
            raise invalid(
                f"Expected {name} Tensor of {'DT_STRING' if dtype == types.STRING else 'DT_FLOAT'}. "
                f"Got: {types.type_name(types.number_of(array.dtype))}"
            )
        if len(array) != num_examples:
            raise invalid(f"Expected {name} output batch size of {num_examples}. Got: {len(array)}")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(array.shape[1] for array in (classes, scores) if array is not None)
    labels = classes.tolist() if classes is not None else [[b""] * width] * num_examples
    values = scores.tolist() if scores is not None else [[0.0] * width] * num_examples
    return [list(zip(*row, strict=True)) for row in zip(labels, values, strict=True)]


def regressions(outputs: Arrays, num_examples: int) -> NDArray[Any]:
    """Return the value of every example, ``(num_examples,)`` float32.

    Args:
        outputs: ``outputs``, ``(num_examples,)`` or ``(num_examples, 1)``.
        num_examples: Rows of the request.

    Raises:
        ServingError: The model answered another shape or type.
    """
    values = outputs["outputs"]
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(values)}"
        )
    if len(values) != num_examples:
        raise invalid(f"Input batch size did not match output batch size. Expected: {num_examples} Got: {len(values)}")
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT. Got: {types.type_name(types.number_of(values.dtype))}")
    return values.reshape(-1)


def _shape(array: NDArray[Any]) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def check_example_count(num_examples: int, max_rows: int) -> None:
    """Refuse a gRPC request with too many examples.

    Raises:
        ServingError: RESOURCE_EXHAUSTED.
    """
    if num_examples > max_rows:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"Request has {num_examples} examples, more than the {max_rows} that are allowed",
        )
