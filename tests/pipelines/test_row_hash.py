from __future__ import annotations

import datetime
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.row_hash import hash_column, hash_rows


def _hashes(columns: Mapping[str, object], **options: int) -> np.ndarray:
    table = pa.table(columns)
    return hash_rows(table, columns=table.column_names, **options)


def test_equal_rows_have_equal_hashes_and_others_do_not() -> None:
    hashes = _hashes({"a": [1, 1, 2, None, None], "b": ["x", "x", "x", "x", None]})
    assert hashes[0] == hashes[1]
    assert np.unique(hashes).size == 4


def test_values_do_not_trade_places_between_columns() -> None:
    hashes = _hashes({"a": ["x", "y"], "b": ["y", "x"]})
    assert hashes[0] != hashes[1]
    assert _hashes({"a": ["x"], "b": ["y"]})[0] == _hashes({"b": ["y"], "a": ["x"]})[0]


def test_numbers_hash_by_value() -> None:
    whole = _hashes({"a": pa.array([0, 1, 5], pa.int64())})
    np.testing.assert_array_equal(whole, _hashes({"a": pa.array([-0.0, 1.0, 5.0])}))
    np.testing.assert_array_equal(whole[:2], _hashes({"a": pa.array([False, True])}))


def test_seeds_give_independent_hashes() -> None:
    columns = {"a": np.arange(1_000)}
    assert not np.isin(_hashes(columns, seed=1), _hashes(columns, seed=2)).any()


def test_hashes_are_spread_evenly() -> None:
    top = _hashes({"a": np.arange(16_000)}) >> np.uint64(60)
    counts = np.bincount(top.astype(np.int64), minlength=16)
    assert counts.min() > 900
    assert counts.max() < 1_100


def test_dates_lists_and_empty_columns_have_hashes() -> None:
    hashes = _hashes(
        {
            "t": pa.array([datetime.datetime(2020, 1, 1), None, datetime.datetime(2020, 1, 2)]),
            "l": [[1], [1], [2]],
            "n": pa.nulls(3),
            "e": pa.nulls(3, pa.string()),
        }
    )
    assert np.unique(hashes).size == 3


@pytest.mark.parametrize("layout", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"])
def test_a_date_in_iso_8601_hashes_as_its_timestamp(layout: str) -> None:
    times = pd.Series(pd.date_range("1969-12-31 23:59:59", periods=50, freq="37h"))
    text = times.dt.strftime(layout)
    stamps = pa.array(times).cast(pa.timestamp("us"))
    np.testing.assert_array_equal(hash_column(pa.array(text.tolist(), pa.string())), hash_column(stamps))


def test_what_only_looks_like_a_date_hashes_as_text_and_alters_no_other() -> None:
    mixed = pa.array(["2021-02-31", "2021-03-01", "x", None, "2021-03-01T10:00:00Z", "2021-13-01"])
    hashes = hash_column(mixed)
    assert len(set(hashes.tolist())) == 6
    for number in range(6):
        assert hash_column(mixed[number : number + 1])[0] == hashes[number]
    midnight = pa.array(pd.Series([pd.Timestamp("2021-03-01")])).cast(pa.timestamp("us"))
    assert hash_column(midnight)[0] == hashes[1]
