from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schema import FeatureKind, FeatureSpec, RawType


def feature(name: str, raw_type: RawType = RawType.FLOAT32, *, integer: bool = False) -> FeatureSpec:
    return FeatureSpec(name=name, kind=FeatureKind.NUMERIC, raw_type=raw_type, reason="", integer=integer)


FEATURES = (feature("size"), feature("a count", integer=True), feature("town", RawType.STRING))


def parse(*rows: dict[str, Any]) -> dict[str, list[Any]]:
    import tensorflow as tf

    from tf_serving.signatures import parse_examples

    serialized = []
    for row in rows:
        example = tf.train.Example()
        for name, (kind, values) in row.items():
            getattr(example.features.feature[name], kind).value.extend(values)
            getattr(example.features.feature[name], kind).SetInParent()
        serialized.append(example.SerializeToString())
    columns = parse_examples(tf.constant(serialized, shape=(len(rows),), dtype=tf.string), FEATURES)
    assert [value.dtype for value in columns.values()] == [tf.float32, tf.float32, tf.string]
    return {name: value.numpy().tolist() for name, value in columns.items()}


FULL = {"size": ("float_list", [1.5]), "a count": ("int64_list", [3]), "town": ("bytes_list", [b"Lima"])}


def test_an_example_becomes_raw_columns() -> None:
    assert parse(FULL, FULL) == {"size": [1.5, 1.5], "a count": [3.0, 3.0], "town": [b"Lima", b"Lima"]}


def test_absent_features_and_empty_lists_are_missing_values() -> None:
    empty: dict[str, Any] = {name: (kind, []) for name, (kind, _) in FULL.items()}
    columns = parse({}, FULL, empty)
    np.testing.assert_array_equal(columns["size"], [np.nan, 1.5, np.nan])
    np.testing.assert_array_equal(columns["a count"], [np.nan, 3.0, np.nan])
    assert columns["town"] == [b"", b"Lima", b""]


def test_no_example_gives_empty_columns() -> None:
    assert parse() == {"size": [], "a count": [], "town": []}


def test_two_values_for_a_column_are_refused() -> None:
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)at most one value for each feature.*a count"):
        parse(FULL | {"a count": ("int64_list", [1, 2])})


def test_ordinary_names_stay_readable() -> None:
    from tf_serving.signatures import parameter_names

    assert parameter_names(["age", "work class", "a.b", "1st"]) == ("age", "work_class", "a_b", "arg_1st")


@pytest.mark.parametrize(
    "columns", [["a b", "a.b"], ["Age", "age"], ["lambda"], ["self"], ["größe"], ["None", "x"], ["日本", "%"]]
)
def test_names_that_cannot_be_parameters_are_numbered(columns: list[str]) -> None:
    from tf_serving.signatures import parameter_names

    assert parameter_names(columns) == tuple(f"column{index:06d}" for index in range(len(columns)))


def test_a_number_is_never_the_name_of_another_column() -> None:
    from tf_serving.signatures import parameter_names

    assert parameter_names(["column000001", "column000000", "self"])[:2] == ("column_000000", "column_000001")


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True))
def test_parameters_are_distinct_identifiers(columns: list[str]) -> None:
    from tf_serving.signatures import parameter_names

    names = parameter_names(columns)
    assert len({name.lower() for name in names}) == len(columns)
    assert all(name.isidentifier() and name.isascii() for name in names)


@pytest.mark.parametrize("columns", [[], [""], ["a", "a"]])
def test_empty_and_repeated_names_are_refused(columns: list[str]) -> None:
    from tf_serving.signatures import parameter_names

    with pytest.raises(ValueError, match=r"Expected distinct, non-empty column names.*rename the columns"):
        parameter_names(columns)
