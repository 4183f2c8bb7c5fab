from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.data_report import ColumnProfile, profile_columns
from pipelines.drift import MIN_ROWS, DriftCheck, find_drift, holm, stability_index


def rows(seed: int, num_rows: int = 4_000, *, shift: float = 0.0, share: float = 0.5) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "size": rng.normal(shift, 1.0, num_rows),
            "shop": np.where(rng.random(num_rows) < share, "north", "south"),
            "day": pd.date_range("2020-01-01", periods=num_rows),
        }
    )


KINDS = {"size": "numeric", "shop": "categorical", "day": "datetime"}
PROFILE = profile_columns(rows(0), KINDS)


def test_rows_of_the_same_kind_do_not_drift() -> None:
    for seed in range(1, 6):
        found = find_drift(rows(seed), PROFILE, num_rows=4_000)
        assert {drift.column for drift in found} == {"size", "shop"}
        assert not any(drift.drifts for drift in found)
        assert all(drift.psi < 0.02 for drift in found)


@pytest.mark.parametrize(
    ("new", "column"), [(rows(1, shift=0.5), "size"), (rows(1, shift=99.0), "size"), (rows(1, share=0.75), "shop")]
)
def test_what_moves_is_found_and_nothing_else(new: pa.Table, column: str) -> None:
    assert [drift.column for drift in find_drift(new, PROFILE, num_rows=4_000) if drift.drifts] == [column]


def test_a_difference_of_no_consequence_is_none_however_many_rows_prove_it() -> None:
    profile = profile_columns(rows(0, 200_000), KINDS)
    found = {drift.column: drift for drift in find_drift(rows(1, 200_000, shift=0.03), profile, num_rows=200_000)}
    assert found["size"].p < 1e-6
    assert not found["size"].drifts


def test_few_rows_say_nothing() -> None:
    assert find_drift(rows(1, MIN_ROWS - 1, shift=5.0), PROFILE, num_rows=4_000) == []
    assert find_drift(rows(1, MIN_ROWS, shift=5.0), PROFILE, num_rows=4_000)


def test_new_categories_count() -> None:
    new = rows(1).set_column(1, "shop", pa.array(["north", "south", "east", "east"] * 1_000))
    (drift,) = (drift for drift in find_drift(new, PROFILE, num_rows=4_000) if drift.column == "shop")
    assert drift.new_share == 0.5
    assert drift.drifts


def test_columns_that_cannot_be_compared_are_left_out() -> None:
    nothing = ColumnProfile(name="size", kind="numeric", type="null", missing_share=1.0, num_distinct=0)
    assert find_drift(rows(1), [nothing], num_rows=4_000) == []
    many = profile_columns(pa.table({"shop": [f"x{row}" for row in range(4_000)]}), KINDS)
    assert find_drift(rows(1), many, num_rows=4_000) == []
    assert find_drift(rows(1).drop_columns(["size", "shop"]), PROFILE, num_rows=4_000) == []


def test_the_distance_in_bins_is_near_that_of_kolmogorov_and_smirnov() -> None:
    old, new = rows(0).column("size").to_numpy(), rows(1, shift=0.3).column("size").to_numpy()
    (drift,) = (d for d in find_drift(rows(1, shift=0.3), PROFILE, num_rows=4_000) if d.column == "size")
    exact = stats.ks_2samp(old, new).statistic
    assert exact - 0.03 < drift.distance <= exact


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_corrected_chances_keep_their_order_and_are_no_smaller(p: list[float]) -> None:
    corrected = holm(p)
    assert (corrected >= np.array(p)).all()
    assert (corrected <= 1).all()
    order = np.argsort(p)
    assert (np.diff(corrected[order]) >= 0).all()


def test_the_stability_index_by_hand() -> None:
    first, second = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert stability_index(first, second) == pytest.approx(-0.25 * np.log(0.5) + 0.25 * np.log(1.5))
    assert stability_index(first, first) == 0.0


@pytest.mark.parametrize("size", [11, 700])
def test_rows_that_come_in_parts_drift_alike(size: int) -> None:
    table = rows(3, shift=0.4)
    check = DriftCheck(PROFILE, num_rows=4_000)
    for start in range(0, table.num_rows, size):
        check.add(table.slice(start, size))
    assert check.found() == find_drift(table, PROFILE, num_rows=4_000)
