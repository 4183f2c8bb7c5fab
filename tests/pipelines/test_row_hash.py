from __future__ import annotations

import datetime
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipelines.row_hash import hash_rows


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
