"""Bodies with keys: what the rows lack is looked up, what cannot be is told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tf_serving.answer_table import AnswerTable
from tf_serving.server.beyond.feature_lookup import CONTENT_TYPE, FeatureLookup
from tf_serving.server.beyond.options import BeyondOptions, build_extensions
from tf_serving.server.extensions import SignatureView
from tf_serving.server.status import Code, ConfigurationError, ServingError

SIGNATURE = SignatureView(
    name="serving_default",
    method_name="tensorflow/serving/predict",
    inputs={
        "amount": ("float32", (None,)),
        "income": ("float32", (None,)),
        "city": ("string", (None,)),
        "people_amount": ("float32", (None,)),
    },
    outputs={},
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, income REAL, city TEXT, amount REAL)")
    connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", [(1, 10.5, "Rome", 3.0), (2, None, None, 4.0)])
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def lookup(database: Path) -> Iterator[FeatureLookup]:
    lookup = FeatureLookup([AnswerTable(f"sqlite:///{database}#people", key="id")])
    yield lookup
    lookup.close()


def decoded(lookup: FeatureLookup, *rows: dict[str, Any]) -> dict[str, list[Any]]:
    arrays = lookup.decode(json.dumps({"instances": rows}).encode(), SIGNATURE)
    assert {name: array.dtype.str for name, array in arrays.items()} == {
        "amount": "<f4", "income": "<f4", "city": "|O", "people_amount": "<f4"
    }  # fmt: skip
    return {name: [None if value != value else value for value in array] for name, array in arrays.items()}


def test_features_are_looked_up_by_key_and_a_row_keeps_its_own(lookup: FeatureLookup) -> None:
    found = decoded(
        lookup,
        {"id": 1, "amount": 7},
        {"id": "2", "amount": 8.5},
        {"id": 99, "amount": None},
        {"id": None, "amount": 1},
        {"amount": 2, "income": 5, "city": "Oslo", "people_amount": 6},
    )
    assert found == {
        "amount": [7.0, 8.5, None, 1.0, 2.0],
        "income": [10.5, None, None, None, 5.0],
        "city": [b"Rome", b"", b"", b"", b"Oslo"],
        # The rows have an amount of their own: that of the group was learned under both names.
        "people_amount": [3.0, 4.0, None, None, 6.0],
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "JSON Parse error"),
        (b'{"inputs": {}}', r'Expected \{"instances": \[\{"KEY": ..., "COLUMN": ...\}, ...\]\}'),
        (b'{"instances": []}', "with at least one row"),
        (b'{"instances": [{"amount": 1}]}', "Row 1 has no key 'id' to look features up by"),
        (b'{"instances": [{"id": 1}]}', "Row 1 has no 'amount', and no feature table has such a column"),
        (b'{"instances": [{"id": 1, "amount": "much"}]}', "Expected a number as 'amount' of row 1, received 'much'"),
        (b'{"instances": [{"id": ' + b"[" * 1_000 + b"]" * 1_000 + b"}]}", "JSON is nested deeper than 8 levels"),
        (b'{"instances": [{"id": 1.5, "amount": 1}]}', "Expected text or a whole number as a key, received '1.5'"),
        (b'{"instances": [{"id": 1, "amount": 1, "city": [1]}]}', r"Expected text as 'city' of row 1, received '\[1"),
    ],
)
def test_bodies_that_cannot_be_answered_are_refused(lookup: FeatureLookup, body: bytes, message: str) -> None:
    with pytest.raises(ServingError, match=message) as refused:
        lookup.decode(body, SIGNATURE)
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_database_that_is_gone_is_no_mistake_of_the_client(lookup: FeatureLookup, database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("DROP TABLE people")
    connection.close()
    with pytest.raises(ServingError) as refused:
        decoded(lookup, {"id": 1, "amount": 7})
    assert refused.value.code is Code.UNAVAILABLE


def test_the_tables_are_flags_of_the_server(database: Path) -> None:
    extensions = build_extensions(BeyondOptions(feature_tables=(f"sqlite:///{database}#people:id",), table_bodies=True))
    assert {CONTENT_TYPE, "text/csv"} <= set(extensions.body_formats)
    arrays = extensions.body_formats[CONTENT_TYPE](b'{"instances": [{"id": 1, "amount": 7}]}', SIGNATURE)
    np.testing.assert_array_equal(arrays["income"], np.array([10.5], np.float32))
    (background,) = extensions.background
    background.close()
    for place, message in (
        ("x.db:id", "--feature_tables is PLACE#TABLE:KEY, such as x.db#people:id, not 'x.db:id'"),
        (f"{database}#people:who", "has no column 'who' but 'id', 'income'"),
        (f"{database}#absent:id", "There is no table 'absent'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            build_extensions(BeyondOptions(feature_tables=(place,)))
