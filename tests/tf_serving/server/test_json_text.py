from __future__ import annotations

import pytest

from tf_serving.server.json_text import parse
from tf_serving.server.status import ServingError


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
