from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow_serving.apis import predict_pb2

from tf_serving.server.predict_calls import MAX_LAYOUTS, PredictReader, predict_call
from tf_serving.server.tensor_protos import fill_proto

DTYPES = ["f4", "f8", "f2", "i1", "i4", "i8", "u8", "?", "c8", "c16"]
shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
tensors = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, shapes))


def _request(inputs: dict[str, Any], *, name: str = "a_model", as_content: bool = False) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for alias, array in inputs.items():
        fill_proto(request.inputs[alias], array, as_content=as_content)
    return request


def _assert_same(found: Any, request: Any) -> None:
    expected = predict_call(request)
    assert (found.spec, found.output_filter) == (expected.spec, expected.output_filter)
    one, other = found.inputs(), expected.inputs()
    assert one.keys() == other.keys()
    for alias, array in other.items():
        assert (one[alias].dtype, one[alias].shape) == (array.dtype, array.shape)
        assert one[alias].tobytes() == array.tobytes() if array.dtype != object else (one[alias] == array).all()


@settings(deadline=None, max_examples=150)
@given(
    inputs=st.dictionaries(st.text(max_size=4), st.tuples(tensors, st.binary(max_size=64)), max_size=3),
    as_content=st.booleans(),
)
def test_a_request_like_one_before_is_read_as_its_message(inputs: Any, as_content: bool) -> None:
    reader = PredictReader()
    first = _request({alias: array for alias, (array, _) in inputs.items()}, as_content=as_content)
    # The same shapes and types with other bytes: as they come, so that no number is special.
    other = {
        alias: np.frombuffer((noise * array.nbytes + bytes(array.nbytes))[: array.nbytes], array.dtype).reshape(
            array.shape
        )
        if array.dtype != bool
        else ~array
        for alias, (array, noise) in inputs.items()
    }
    second = _request(other, as_content=as_content)
    for request in (first, second, first, second):
        _assert_same(reader.read(request.SerializeToString(deterministic=True)), request)


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, 200), byte=st.integers(0, 255))
def test_another_byte_anywhere_is_read_as_the_message_says(place: int, byte: int) -> None:
    request = _request({"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.arange(3.0)})
    request.output_filter.append("out")
    reader = PredictReader()
    content = request.SerializeToString(deterministic=True)
    reader.read(content)
    changed = bytearray(content)
    changed[place % len(content)] = byte
    try:
        expected = predict_pb2.PredictRequest.FromString(bytes(changed))
    except DecodeError:
        with pytest.raises(DecodeError):
            reader.read(bytes(changed))
        return
    found, told = reader.read(bytes(changed)), predict_call(expected)
    assert (found.spec, found.output_filter) == (told.spec, told.output_filter)
    assert _outcome(found) == _outcome(told)


def _outcome(call: Any) -> Any:
    try:
        return {alias: (array.dtype, array.shape, array.tobytes()) for alias, array in call.inputs().items()}
    except Exception as error:
        return type(error), str(error)


def test_numbers_are_not_copied_where_the_request_is_known() -> None:
    reader = PredictReader()
    for value, is_known in ((1, False), (2, True)):
        content = _request({"x": np.full((4, 5), value, np.float32)}).SerializeToString(deterministic=True)
        array = reader.read(content).inputs()["x"]
        assert array.tolist() == [[value] * 5] * 4
        assert np.shares_memory(array, np.frombuffer(content, np.uint8)) is is_known


def test_values_that_stand_for_others_and_text_are_parsed_each_time() -> None:
    reader = PredictReader()
    for value in (1.0, 2.0):
        request = _request({})
        request.inputs["x"].dtype = 1
        request.inputs["x"].tensor_shape.dim.add().size = 3
        request.inputs["x"].float_val.append(value)
        request.inputs["text"].dtype = 7
        request.inputs["text"].tensor_shape.dim.add().size = 1
        request.inputs["text"].string_val.append(b"%d" % value)
        found = reader.read(request.SerializeToString(deterministic=True)).inputs()
        assert (found["x"].tolist(), found["text"].tolist()) == ([value] * 3, [b"%d" % value])


def test_so_many_kinds_of_requests_are_remembered_and_no_more() -> None:
    reader = PredictReader()
    for number in range(MAX_LAYOUTS + 10):
        request = _request({"x": np.ones((1, 2), np.float32)}, name=f"model_{number}_name")
        _assert_same(reader.read(request.SerializeToString(deterministic=True)), request)
    assert 0 < len(reader._layouts) <= MAX_LAYOUTS
