from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.row_hash import hash_column
from pipelines.sketches import DistinctCounter, FrequentValues, Moments

BATCHES = st.lists(st.lists(st.integers(-5, 5), max_size=30), min_size=1, max_size=6)


@settings(deadline=None)
@given(BATCHES)
def test_what_fits_is_exact_however_it_comes(batches: list[list[int]]) -> None:
    counter, frequent, moments = DistinctCounter(), FrequentValues(), Moments()
    for batch in batches:
        array = pa.array(batch, pa.int64())
        counter.add(hash_column(array))
        frequent.add(array)
        moments.add(np.array(batch, np.float64))
    everything = np.array([value for batch in batches for value in batch], np.float64)
    assert counter.is_exact
    assert counter.count == np.unique(everything).size
    values, rows = frequent.counts()
    expected = dict(zip(*(column.tolist() for column in np.unique(everything, return_counts=True)), strict=True))
    assert dict(zip(values.to_pylist(), rows.tolist(), strict=True)) == expected
    assert frequent.most_missed == 0
    if everything.size:
        assert moments.mean == pytest.approx(everything.mean(), abs=1e-12)
        assert moments.deviation == pytest.approx(everything.std(), abs=1e-12)
        assert (moments.min, moments.max) == (everything.min(), everything.max())


def test_many_distinct_values_are_estimated_within_the_stated_error() -> None:
    capacity, distinct = 4_096, 100_000
    counter = DistinctCounter(capacity)
    for start in range(0, distinct, 10_000):
        hashes = hash_column(pa.array(range(start, start + 10_000)))
        counter.add(np.tile(hashes, 3))
    assert not counter.is_exact
    assert abs(counter.count / distinct - 1) < 4 / np.sqrt(capacity)


def test_values_that_are_frequent_survive_many_rare_ones() -> None:
    frequent = FrequentValues(capacity=100)
    for batch in range(50):
        frequent.add(pa.array(["often"] * 60 + [f"{batch} {row}" for row in range(40)]))
    values, rows = frequent.counts()
    found = dict(zip(values.to_pylist(), rows.tolist(), strict=True))
    assert len(found) <= 500
    assert 3_000 - frequent.most_missed <= found["often"] <= 3_000
    assert frequent.most_missed <= 5_000 / 100
