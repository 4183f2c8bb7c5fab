from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tf_serving.server import tensor_types as types
from tf_serving.server.status import ServingError
from tf_serving.server.tensor_protos import fill_proto, from_proto, output_entry

DTYPES = ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@settings(deadline=None, max_examples=200)
@given(array=st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, shapes)), as_content=st.booleans())
def test_tensorflow_reads_what_is_written_and_the_other_way(array: Any, as_content: bool) -> None:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto()
    fill_proto(proto, array, as_content=as_content)
    for got in (tf.make_ndarray(proto), from_proto(proto, "x"), from_proto(tf.make_tensor_proto(array), "x")):
        assert got.dtype == array.dtype
        assert got.shape == array.shape
        assert got.tobytes() == array.tobytes()


@settings(deadline=None, max_examples=100)
@given(
    array=st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, shapes)),
    alias=st.text(max_size=200),
    as_content=st.booleans(),
)
def test_an_output_on_the_wire_is_the_entry_of_a_response(array: Any, alias: str, as_content: bool) -> None:
    from tensorflow_serving.apis import predict_pb2

    expected = predict_pb2.PredictResponse()
    fill_proto(expected.outputs[alias], array, as_content=as_content)
    found = predict_pb2.PredictResponse.FromString(output_entry(alias, array, as_content=as_content))
    # NaN is not equal to itself, its bytes are.
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_an_output_of_text_on_the_wire() -> None:
    import numpy as np
    from tensorflow_serving.apis import predict_pb2

    array = np.array([[b"a", b"\x00"], [b"", b"\xff"]], dtype=object)
    found = predict_pb2.PredictResponse.FromString(output_entry("text", array)).outputs["text"]
    assert list(found.string_val) == [b"a", b"\x00", b"", b"\xff"]
    assert [size.size for size in found.tensor_shape.dim] == [2, 2]


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=60))
def test_any_message_is_read_or_refused(content: bytes) -> None:
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import tensor_pb2

    try:
        proto = tensor_pb2.TensorProto.FromString(content)
    except DecodeError:
        return
    with contextlib.suppress(ServingError):
        assert from_proto(proto, "x").dtype == types.NUMPY[proto.dtype]


def test_the_last_value_stands_for_the_rest() -> None:
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto(dtype=1)
    proto.tensor_shape.dim.add(size=4)
    assert from_proto(proto, "x").tolist() == [0, 0, 0, 0]
    proto.float_val.extend([1.0, 2.0])
    assert from_proto(proto, "x").tolist() == [1, 2, 2, 2]
    proto.tensor_shape.dim[0].size = 1 << 40
    with pytest.raises(ServingError, match="tensor parsing error: x"):
        from_proto(proto, "x")


def test_text_in_binary_form() -> None:
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto(dtype=7, tensor_content=b"\x01\x00\x02abc")
    proto.tensor_shape.dim.add(size=3)
    assert from_proto(proto, "x").tolist() == [b"a", b"", b"bc"]
    proto.tensor_content = b"\x05\x00\x02abc"
    with pytest.raises(ServingError, match="tensor parsing error: x"):
        from_proto(proto, "x")
