from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tf_serving.server import tensor_types as types
from tf_serving.server.json_numbers import QUICK_NUMBERS_BYTES, NumberDocument, read_numbers
from tf_serving.server.json_predict import read_document, read_inputs, signature_name
from tf_serving.server.json_text import parse
from tf_serving.server.status import ServingError

DTYPES = [
    types.FLOAT, types.DOUBLE, types.INT8, types.UINT8, types.INT32, types.INT64, types.UINT32, types.UINT64,
    types.BOOL, types.STRING, types.HALF,
]  # fmt: skip
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.sampled_from([0, -1, 127, 128, 255, 256, 2**24 + 1, 2**53, 2**53 + 1, 2**60 + 1, 2**63 - 1, 2**63, 2**64])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
)
OTHERS = st.sampled_from([True, False, None, "1", "", {}, {"b64": "AA=="}, [], float("nan"), float("inf")])
DIGITS = ["1e999", "-1e-999", "-0", "-0.0", "1.0", "1e2", "01", "+1", "1.", ".5", "0x1", "1 2", "1,", "9" * 400, "NaN"]


def both(body: bytes, dtypes: dict[str, int], *, max_depth: int = 32, max_rows: int = 4) -> tuple[Any, Any]:
    """What the way without objects answers, whatever the length of the body, and what the other one does."""
    def quick(text: bytes) -> Any:
        return read_numbers(text) or parse(text, max_depth=32)

    def slow(text: bytes) -> Any:
        return parse(text, max_depth=32)

    return answer(quick, body, dtypes, max_depth, max_rows), answer(slow, body, dtypes, max_depth, max_rows)


def answer(read: Any, body: bytes, dtypes: dict[str, int], max_depth: int, max_rows: int) -> Any:
    try:
        document = read(body)
        name = signature_name(document)
        arrays, rows = read_inputs(document, dtypes, body=body, max_depth=max_depth, max_rows=max_rows)
    except ServingError as error:
        return error.code, error.message
    return name, rows, {key: (array.dtype.str, array.shape, array.tobytes()) for key, array in arrays.items()}


@st.composite
def regular(draw: st.DrawFn) -> Any:
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=9))
    if np.prod(shape) > 40:
        shape = shape[:3]
    whole = draw(st.booleans())
    one = st.integers(-200, 300) if whole else NUMBERS
    values = np.empty(int(np.prod(shape)), dtype=object)
    values[:] = draw(st.lists(one, min_size=len(values), max_size=len(values)))
    return values.reshape(shape).tolist()


ANY = st.recursive(NUMBERS | OTHERS, lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    key = draw(st.sampled_from(["instances", "inputs"]))
    members = [(key, draw(regular() | regular() | ANY))]
    for other in draw(st.lists(st.sampled_from(["signature_name", "instances", "inputs", "b64"]), max_size=2)):
        named = draw(st.sampled_from(["x", "", "serving_default", 'a"b', "]}", "\u00e9"]))
        members.insert(draw(st.integers(0, len(members))), (other, named if other == "signature_name" else [1.5]))
    space = draw(st.sampled_from(["", " ", "\n\t\r "]))
    body = ("," + space).join(f"{json.dumps(name)}{space}:{space}{json.dumps(value)}" for name, value in members)
    text = space + "{" + space + body + space + "}" + draw(st.sampled_from(["", "", " ", "\n", "x", "]", "}"]))
    if draw(st.integers(0, 4)) == 0:
        text = text.replace("1", draw(st.sampled_from(DIGITS)), 1)
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.sampled_from(["", ",", "[", "]", "{", '"', "\x00", "\u00e9"])) + text[cut + 1 :]
    return text.encode()


@settings(max_examples=60)
@given(body=bodies(), dtype=st.sampled_from(DTYPES), max_depth=st.sampled_from([2, 32]))
@example(b'{"instances":[[],[1,2]]}', types.FLOAT, 32)
@example(b'{"instances":[[1],[]]}', types.FLOAT, 32)
@example(b'{"instances":[]}', types.FLOAT, 32)
@example(b'{"instances":[[]]}', types.FLOAT, 32)
@example(b'{"instances":[9007199254740993,1.5]}', types.FLOAT, 32)
@example(b'{"instances":[1152921573326323713]}', types.FLOAT, 32)
@example(b'{"instances":[1.0]}', types.INT32, 32)
@example(b'{"instances":[1, true]}', types.FLOAT, 32)
@example(b'{"inputs":[[[1]]]}', types.FLOAT, 2)
@example(b'{"instances":[1],"signature_name":"a","signature_name":"b"}', types.FLOAT, 32)
@example(b'{"signature_name":"a","instances":[1],"signature_name":"b"}', types.FLOAT, 32)
@example(b'{"instances":[1,2,3,4,5]}', types.FLOAT, 32)
@example(b'{"instances":[1][2]}', types.FLOAT, 32)
@example(b'{"instances":[[1],[2]', types.FLOAT, 32)
@example(b'{"instances":[[1]],[2]]}', types.FLOAT, 32)
def test_both_ways_give_the_same_tensor_or_the_same_error(body: bytes, dtype: int, max_depth: int) -> None:
    quick, slow = both(body, {"x": dtype}, max_depth=max_depth)

    assert quick == slow


@settings(max_examples=20)
@given(values=st.lists(st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6), min_size=2, max_size=20))
def test_a_list_of_numbers_is_read_without_objects_and_equal_to_the_bit(values: list[float]) -> None:
    body = json.dumps({"signature_name": "s", "instances": [values, values]}).encode()

    document = read_numbers(body)

    assert document is not None
    array = document.array(types.FLOAT, max_rows=2, max_depth=32)
    assert array is not None
    assert array.tobytes() == np.array([values, values], dtype=np.float64).astype(np.float32).tobytes()
    assert array.flags.writeable


def test_several_inputs_go_the_way_that_says_what_is_wrong() -> None:
    quick, slow = both(b'{"instances":[[1,2],[3,4]]}', {"a": types.FLOAT, "b": types.FLOAT})

    assert quick == slow
    assert "expecting list of objects as multiple input tensors required" in quick[1]


@pytest.mark.parametrize("count", [1, QUICK_NUMBERS_BYTES])
def test_only_long_bodies_are_read_without_objects(count: int) -> None:
    document = read_document(json.dumps({"instances": [1] * count}).encode(), max_depth=32)

    assert (type(document) is NumberDocument) == (count > 1)
