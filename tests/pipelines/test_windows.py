"""Windows never forecast over a boundary, an embargo or a gap, and hold what stood in the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.series_steps import order_series
from pipelines.splits import cut_in_order
from pipelines.time_splits import LEFT_OUT, Embargo, embargoed
from pipelines.windows import (
    Reach,
    WindowSpec,
    check_static,
    find_windows,
    latest_windows,
    window_table,
)

SPEC = WindowSpec(target="y", time_column="t", series_id="s", context=4, horizon=2, past=("x",), known_future=("f",))


def series(lengths: tuple[int, ...], *, seed: int = 0, drop: tuple[int, ...] = ()) -> pa.Table:
    """Rows in random order; y is the time and x the series, so that every value says where it comes from."""
    t = np.concatenate([np.arange(length) for length in lengths])
    s = np.repeat(np.arange(len(lengths)), lengths)
    keep = ~np.isin(t, drop)
    order = np.random.default_rng(seed).permutation(int(keep.sum()))
    t, s = t[keep][order], s[keep][order]
    return pa.table({"t": t, "s": s, "y": t.astype(float), "x": s.astype(float), "f": 1000.0 + t})


@given(
    lengths=st.lists(st.integers(12, 60), min_size=1, max_size=4).map(tuple),
    context=st.integers(1, 6),
    horizon=st.integers(1, 5),
    stride=st.integers(1, 4),
    embargo=st.integers(0, 3),
    reach=st.sampled_from(Reach),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=80)
def test_no_window_crosses_a_split_or_the_embargo(
    lengths: tuple[int, ...], context: int, horizon: int, stride: int, embargo: int, reach: Reach, seed: int
) -> None:
    table = series((80, *lengths), seed=seed)
    times = table["t"].to_numpy()
    splits = embargoed(cut_in_order(times, shares=(0.2, 0.2)), times.astype(float), Embargo(steps=embargo), name="t")
    ordered = order_series(table, time_column="t", series_id="s")
    spec = replace(SPEC, context=context, horizon=horizon, stride=stride)
    windows = find_windows(ordered, splits, spec, reach=reach)
    found, whose = times[windows.rows], table["s"].to_numpy()[windows.rows]
    assert (np.diff(found, axis=1) == 1).all()
    assert (whose == whose[:, :1]).all()
    ahead = splits[windows.rows[:, context:]]
    assert (ahead == windows.splits[:, np.newaxis]).all()
    assert (windows.splits != LEFT_OUT).all()
    known = splits[windows.rows[:, :context]]
    if reach is Reach.INSIDE:
        assert (known == windows.splits[:, np.newaxis]).all()
    else:
        assert (known <= windows.splits[:, np.newaxis]).all()
    # Nothing that fits is left out.
    first = [(s, t) for s, t in zip(whose[:, 0].tolist(), found[:, 0].tolist(), strict=True)]
    assert len(set(first)) == len(first)
    fitting = sum(max(0, -(-(length - context - horizon + 1) // stride)) for length in (80, *lengths))
    assert len(first) + windows.over_boundary == fitting


def test_a_window_holds_the_lags_and_what_is_known_ahead() -> None:
    table = series((20, 15))
    ordered = order_series(table, time_column="t", series_id="s")
    windows = find_windows(ordered, np.zeros(35, np.int8), SPEC)
    framed = window_table(table, windows.rows, replace(SPEC, static=("s",))).to_pandas()
    now = framed["y_lag_1"]
    for lag in range(1, 5):
        np.testing.assert_array_equal(framed[f"y_lag_{lag}"], now - lag + 1)
        np.testing.assert_array_equal(framed[f"x_lag_{lag}"], framed["s"])
    for step in (1, 2):
        np.testing.assert_array_equal(framed[f"y_ahead_{step}"], now + step)
        np.testing.assert_array_equal(framed[f"f_ahead_{step}"], 1000 + now + step)
    assert len(framed) == 15 + 10
    assert WindowSpec.from_json(SPEC.to_json()) == SPEC


def test_no_window_reaches_over_a_gap() -> None:
    table = series((200,), drop=(50, 51))
    ordered = order_series(table, time_column="t")
    windows = find_windows(ordered, np.zeros(198, np.int8), replace(SPEC, series_id=""))
    times = table["t"].to_numpy()[windows.rows]
    assert (times[:, -1] - times[:, 0] == 5).all()
    assert windows.over_gap == 5
    assert (ordered.report.num_gaps, ordered.report.num_missing) == (1, 2)


def test_the_latest_window_ends_with_the_last_known_value() -> None:
    table = series((20, 15))
    times, whose = table["t"].to_numpy(), table["s"].to_numpy()
    known = times < np.where(whose == 0, 18, 15)
    rows = latest_windows(order_series(table, time_column="t", series_id="s"), known, SPEC)
    framed = window_table(table, rows, SPEC, with_targets=False).to_pydict()
    last = dict(zip(framed["x_lag_1"], framed["y_lag_1"], strict=True))
    assert last == {0.0: 17.0, 1.0: 14.0}
    ahead = dict(zip(framed["x_lag_1"], framed["f_ahead_2"], strict=True))
    assert ahead == {0.0: 1019.0, 1.0: None}
    with pytest.raises(DataError, match=r"Expected 4 steps without a gap up to the last known 'y' of series '1'"):
        latest_windows(order_series(table, time_column="t", series_id="s"), known & ((whose == 0) | (times < 3)), SPEC)


def test_bad_windows_are_refused() -> None:
    table = series((20, 15))
    ordered = order_series(table, time_column="t", series_id="s")
    with pytest.raises(DataError, match="one value of the static column 'f' in each series, but it changes within"):
        check_static(table, ordered, ("f",))
    check_static(table, ordered, ("x",))
    many = np.broadcast_to(np.zeros((1, 6), np.intp), (20_000_001, 6))
    with pytest.raises(DataError, match=r"leave some out \(--stride 2\)"):
        window_table(table, many, SPEC)


def test_batches_for_sequence_models_hold_the_same_windows() -> None:
    from pipelines.window_batches import window_batches

    table = series((30, 25))
    ordered = order_series(table, time_column="t", series_id="s")
    rows = find_windows(ordered, np.zeros(55, np.int8), SPEC).rows
    inputs, target = next(iter(window_batches(table, rows, SPEC, batch_size=len(rows))))
    past = inputs["past"].numpy()
    assert past.shape == (len(rows), 4, 2)
    np.testing.assert_array_equal(target.numpy(), past[:, -1:, 0] + [[1, 2]])
    np.testing.assert_array_equal(inputs["ahead"].numpy()[..., 0], 1000 + target.numpy())
    assert inputs["static"].shape == (len(rows), 0)
    first, again = (
        next(iter(window_batches(table, rows, SPEC, batch_size=8, seed=3)))[1].numpy() for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    words = table.append_column("w", pa.array(["a"] * 55))
    with pytest.raises(DataError, match="Expected numbers in column 'w' of the windows"):
        window_batches(words, rows, replace(SPEC, past=("w",)), batch_size=8)
