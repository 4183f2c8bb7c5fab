from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_serving.server.json_predict import read_inputs, signature_name
from tf_serving.server.json_text import DUMP_BYTES, dump, parse
from tf_serving.server.status import ServingError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("]", "The document is empty. at offset: 0"),
        (" ,", "The document is empty. at offset: 1"),
        ("nul", "Invalid value. at offset: 3"),
        ("nonsense", "Invalid value. at offset: 1"),
        ("x", "Invalid value. at offset: 0"),
        ('{"a":tru}', "Invalid value. at offset: 8"),
        ('{"a":[-]}', "Invalid value. at offset: 7"),
        ('{"a":[1.]}', "Miss fraction part in number. at offset: 8"),
        ('{"a":[1e]}', "Miss exponent in number. at offset: 8"),
        ('{"a":[1.5e+]}', "Miss exponent in number. at offset: 11"),
        ('{"a":[1.5.2]}', "Missing a comma or ] after an array element. at offset: 9"),
        ('{"a":[1,]}', "Invalid value. at offset: 8"),
        ('{"a":1, }', "Missing a name for object member. at offset: 8"),
        ('{"a":["b]}', "Missing a closing quotation mark in string. at offset: 10"),
        ('{"a":["\\u12g4"]}', "Incorrect hex digit after \\u escape in string. at offset: 7"),
        ('{"a":["\\q"]}', "Invalid escape character in string. at offset: 7"),
        ('{"é":["x\\u1"]}', "Incorrect hex digit after \\u escape in string. at offset: 9"),
        ('{"1e999":[1,1e999]}', "Number too big to be stored in double. at offset: 12"),
        ('{"a":NaX}', "Invalid value. at offset: 7"),
        ('{"a":[1}', "Missing a comma or ] after an array element. at offset: 7"),
        ('{"a":"x\x01"}', "Invalid escape character in string. at offset: 7"),
        ('{"a":[1e5e]}', "Missing a comma or ] after an array element. at offset: 9"),
        ('{"a":"1"e}', "Missing a comma or } after an object member. at offset: 8"),
        ("[1,2", "Missing a comma or ] after an array element. at offset: 4"),
        ('{"a":[01]}', "Missing a comma or ] after an array element. at offset: 7"),
        ('{"a":[0.e]}', "Miss fraction part in number. at offset: 8"),
    ],
)
def test_errors_have_the_words_and_the_place_of_rapidjson(body: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse(body.encode(), max_depth=32)

    assert caught.value.message == f"JSON Parse error: {message}"


@given(JSON)
@settings(deadline=None, max_examples=60)
def test_a_quoted_value_is_the_beginning_of_its_text(value: Any) -> None:
    whole = json.dumps(value, indent=4, ensure_ascii=False).encode("utf-8", "replace")
    assert dump(value) == whole[:DUMP_BYTES].decode("utf-8", "ignore")


@pytest.mark.parametrize("before", [b"", b'{"signature_name":', b'{"instances":1,"inputs":', b'{"instances":{"a":'])
def test_what_is_nested_too_deeply_to_be_printed_is_quoted(before: bytes) -> None:
    def read(body: bytes) -> None:
        document = parse(body, max_depth=32)
        signature_name(document)
        read_inputs(document, {"x": 1}, body=body, max_depth=32, max_rows=10)

    with pytest.raises(ServingError, match="JSON Value: "):
        read(before + b"[" * 1_000 + b"]" * 1_000 + b"}" * before.count(b"{"))
