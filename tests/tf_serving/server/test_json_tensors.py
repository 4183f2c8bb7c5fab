from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_serving.server import tensor_types as types
from tf_serving.server.json_answers import write_outputs
from tf_serving.server.json_predict import read_inputs
from tf_serving.server.json_tensors import TensorBuilder, to_array
from tf_serving.server.json_text import check_depth, dump, parse
from tf_serving.server.status import ServingError

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.just({"b64": "eA=="})
)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=8)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3),
    max_leaves=10,
)


def outcome(function: Any) -> Any:
    try:
        array = function()
    except ServingError as error:
        return error.code, error.message
    return array.dtype, array.shape, [repr(value) for value in array.reshape(-1).tolist()]


@settings(deadline=None, max_examples=300)
@given(value=nested, dtype=st.sampled_from(sorted(types.NAMES)))
def test_the_quick_way_answers_as_the_slow_one(value: Any, dtype: int) -> None:
    def slow() -> Any:
        builder = TensorBuilder(dtype)
        builder.add(value)
        return builder.array()

    booleans = "true" in json.dumps(value) or "false" in json.dumps(value)
    assert outcome(lambda: to_array(value, dtype, may_hold_booleans=booleans)) == outcome(slow)


@settings(deadline=None, max_examples=300)
@given(document=st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), documents, max_size=2))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    for dtypes in ({"x": types.FLOAT}, {"a": types.STRING, "b": types.INT64}):
        with contextlib.suppress(ServingError):
            inputs, _ = read_inputs(parse(body, max_depth=32), dtypes, body=body, max_depth=32, max_rows=10)
            assert inputs.keys() == dtypes.keys()


@settings(deadline=None, max_examples=300)
@given(body=st.binary(max_size=40) | st.text(alphabet='[]{}":,0123.eE+-tfn\\u ', max_size=30).map(str.encode))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        json.dumps(parse(body, max_depth=32))


def test_depth_is_checked_without_recursion() -> None:
    value: Any = 1
    for _ in range(20_000):
        value = [value]
    with pytest.raises(ServingError, match="nested deeper than 32 levels"):
        check_depth(value, 32)
    check_depth([[1], {"a": 2}], 32)


def test_dumps_are_cut() -> None:
    assert dump([1]) == "[\n    1\n]"
    assert len(dump("é" * 1000).encode()) <= 256


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(st.lists(finite, min_size=2, max_size=2), min_size=1, max_size=4))
def test_floats_keep_their_value(rows: list[list[float]]) -> None:
    array = np.array(rows, dtype=np.float32)
    names = np.array([b"%d" % index for index in range(len(rows))], dtype=object)
    body = json.loads(write_outputs({"a%d": array, "b": array[:, 0], "c": names}, row_format=True))
    assert np.array([row["a%d"] for row in body["predictions"]], np.float32).tobytes() == array.tobytes()
    assert np.array([row["b"] for row in body["predictions"]], np.float32).tobytes() == array[:, 0].tobytes()
    assert [row["c"] for row in body["predictions"]] == [str(index) for index in range(len(rows))]


def test_not_a_number_keeps_its_neighbours_digits() -> None:
    array = np.array([[0.1, math.nan], [math.inf, -math.inf]], np.float32)
    expected = b'{\n    "predictions": [[0.1, NaN], [Infinity, -Infinity]\n    ]\n}'
    assert write_outputs({"y": array}, row_format=True) == expected
    assert b"".join(write_outputs({"y": array, "z": array[:, 0]}, row_format=True).split()) == (
        b'{"predictions":[{"y":[0.1,NaN],"z":0.1},{"y":[Infinity,-Infinity],"z":Infinity}]}'
    )


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ServingError, match="Cannot convert empty tensor map to JSON"):
        write_outputs({}, row_format=True)
    with pytest.raises(ServingError, match="Failed to write JSON value for tensor type: complex64"):
        write_outputs({"y": np.zeros(2, np.complex64)}, row_format=True)
