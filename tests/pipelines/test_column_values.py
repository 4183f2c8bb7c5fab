from __future__ import annotations

import datetime
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.column_values import (
    PLAIN_TYPES,
    has_leading_zeros,
    is_whole,
    numbers_of,
    parse_numbers,
    plain_array,
    plain_table,
    text_of,
    truth_of,
)
from pipelines.errors import DataError


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None], pa.int8()), [1, None]),
        (pa.array([1, 2**64 - 1], pa.uint64()), [1.0, float(2**64 - 1)]),
        (pa.array([1.5, float("nan")], pa.float32()), [1.5, None]),
        (pa.array([Decimal("1.25"), None]), [1.25, None]),
        (pa.array([" x ", "  "], pa.large_string()), ["x", None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([datetime.date(2020, 1, 2)]), [datetime.datetime(2020, 1, 2)]),
        (pa.array([datetime.timedelta(seconds=90)]), [90.0]),
        (pa.array([datetime.time(1, 0)], pa.time32("s")), [3_600.0]),
        (pa.array([None, None]), [None, None]),
    ],
)
def test_every_source_type_becomes_plain(array: pa.Array, expected: list[object]) -> None:
    column = plain_table(pa.table({"a": array})).column("a")
    assert column.type in PLAIN_TYPES
    assert column.to_pylist() == expected


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_uuids_become_the_text_that_other_files_have_for_them(num_chunks: int) -> None:
    stored = pa.array([uuid.UUID("00112233-4455-6677-8899-aabbccddeeff").bytes, None], pa.binary(16))
    column = pa.chunked_array([pa.ExtensionArray.from_storage(pa.uuid(), stored)] * num_chunks)
    expected = ["00112233-4455-6677-8899-aabbccddeeff", None] * num_chunks
    table = pa.table({"a": column})
    assert plain_table(table).column("a").to_pylist() == expected
    assert plain_array(table, "a").type == pa.string()


def test_other_types_are_carried_along() -> None:
    assert plain_table(pa.table({"a": [[1], [2]]})).column("a").to_pylist() == [[1], [2]]


def test_empty_and_chunked_columns_become_one_array() -> None:
    assert len(plain_array(pa.table({"a": pa.chunked_array([], pa.int64())}), "a")) == 0
    assert plain_array(pa.table({"a": pa.chunked_array([[1], [2, 3]])}), "a").to_pylist() == [1, 2, 3]


def test_unknown_column_is_refused_with_the_nearest_name() -> None:
    table = pa.table({"age": [1], "job": ["x"]})
    with pytest.raises(DataError, match=r"no column 'Age'\. Did you mean 'age'\? Its columns are 'age', 'job'"):
        plain_array(table, "Age")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.none(), min_size=1))
def test_written_numbers_are_parsed(values: list[float | int | None]) -> None:
    numbers = parse_numbers(pa.array([None if value is None else str(value) for value in values], pa.string()))
    assert numbers.to_pylist() == [None if value is None else float(value) for value in values]


def test_what_is_no_number_becomes_missing_without_harm_to_the_rest() -> None:
    text = pa.array(["1", "+2", ".5", "1.", "1e3", "-inf", "1_0", "0x1F", "1,5", "x", "1 2", "nan", None])
    assert parse_numbers(text).to_pylist()[:6] == [1.0, 2.0, 0.5, 1.0, 1000.0, float("-inf")]
    assert parse_numbers(text).null_count == 7


def test_leading_zeros_make_a_code() -> None:
    assert has_leading_zeros(pa.array(["12", "007"]))
    assert not has_leading_zeros(pa.array(["0", "0.5", "-0.5", "10", "05x", None]))


def test_whole_numbers_are_told_from_real_ones() -> None:
    assert is_whole(pa.array([1.0, None, -2.0]))
    assert not is_whole(pa.array([1.0, 2.5]))
    assert not is_whole(pa.array([1.0, float("inf")]))
    assert is_whole(pa.array([2**60]))


def test_columns_become_float64() -> None:
    expected = [1.0, np.nan, 0.0]
    for array in (pa.array([1, None, 0]), pa.array([True, None, False]), pa.array(["1", "x", "0"])):
        np.testing.assert_array_equal(numbers_of(array), expected)
    assert numbers_of(pa.array([2**60 + 1]))[0] == float(2**60)


def test_truth_is_read_from_words_and_numbers() -> None:
    expected = [True, False, None]
    assert truth_of(pa.array(["Yes", "no", "maybe"])).to_pylist() == expected
    assert truth_of(pa.array([1, 0, 2])).to_pylist() == expected
    assert truth_of(pa.array([1.0, 0.0, None])).to_pylist() == expected
    assert truth_of(pa.nulls(1)).to_pylist() == [None]


def test_columns_become_text() -> None:
    assert text_of(pa.array([1.0, None, -3.0])).to_pylist() == ["1", None, "-3"]
    assert text_of(pa.array([1.0, 0.25])).to_pylist() == ["1", "0.25"]
    assert text_of(pa.array([True, False])).to_pylist() == ["true", "false"]
    moment = pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5, 999_999), None], pa.timestamp("us"))
    assert text_of(moment).to_pylist() == ["2020-01-02T03:04:05", None]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_fractions_of_seconds_are_cut_off_as_a_clock_does_before_1970_too(unit: str, zone: str | None) -> None:
    ticks = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    # The least step before midnight is still the day before, and that many ticks after it the day itself.
    moments = pa.array([-1, 1, -86_400 * ticks - 1, None], pa.timestamp(unit, tz=zone))
    column = plain_table(pa.table({"built": moments})).column("built").combine_chunks()
    assert text_of(column).to_pylist() == [
        "1969-12-31T23:59:59",
        "1970-01-01T00:00:00",
        "1969-12-30T23:59:59",
        None,
    ]
