"""Mean targets: the full table for new rows, other folds' means for the rows that taught it, no leak between them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipelines.encoder import Encoder
from pipelines.preprocessing import PreprocessingState, TrainingMeans, fit_preprocessing
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task
from pipelines.target_encoding import SMOOTHING
from pipelines.target_parts import NUM_BLOCKS, NUM_FOLDS

NUM_ROWS = 600


def schema_of(
    task: Task,
    *,
    raw_type: RawType = RawType.STRING,
    weight: str | None = None,
    group: str | None = None,
    time_column: str | None = None,
) -> DatasetSchema:
    feature = FeatureSpec(
        "zip", kind=FeatureKind.CATEGORICAL, raw_type=raw_type, reason="", target_encoded=True
    )
    classes = {Task.BINARY: ("no", "yes"), Task.MULTICLASS: ("a", "b", "c")}.get(task, ())
    target = TargetSpec("y", task=task, classes=classes)
    return DatasetSchema(features=(feature,), target=target, weight=weight, group=group, time_column=time_column)


def table_of(task: Task, *, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    zips = rng.integers(0, 60, NUM_ROWS)
    values: Any = {
        Task.BINARY: np.array(["no", "yes"])[(rng.random(NUM_ROWS) < zips / 60).astype(int)],
        Task.MULTICLASS: np.array(["a", "b", "c"])[zips % 3],
        Task.REGRESSION: zips + rng.normal(size=NUM_ROWS),
    }[task]
    names = [None if value == 7 else f"z{value:02d}" for value in zips]
    return pa.table({"zip": names, "y": values, "w": rng.integers(0, 3, NUM_ROWS)})


def encoded(state: PreprocessingState, values: list[str]) -> Any:
    return Encoder(state)({"zip": tf.constant(values)})["numeric"].numpy()


ALL = np.ones(NUM_ROWS, bool)


def told(table: pa.Table, schema: DatasetSchema, state: PreprocessingState) -> Any:
    """Returns the mean targets of rows that all taught them."""
    encoded = np.zeros((table.num_rows, state.num_target_columns), np.float32)
    TrainingMeans(table, schema, state, learned=ALL).write(encoded, table)
    return encoded


def in_time(table: pa.Table, *, seed: int = 3, number: int = NUM_ROWS) -> pa.Table:
    """Returns the rows with a day each, in no order."""
    days = np.random.default_rng(seed).permutation(NUM_ROWS) * number // NUM_ROWS
    return table.append_column("day", pa.array((np.datetime64("2020-01-01") + days).astype(str)))


def days_of(table: pa.Table) -> Any:
    return table.column("day").to_numpy(zero_copy_only=False).astype("datetime64[D]")


def test_a_new_row_gets_the_smoothed_mean_of_its_category() -> None:
    table, schema = table_of(Task.REGRESSION), schema_of(Task.REGRESSION)
    state = fit_preprocessing(table, schema, rows=ALL)
    (column,) = state.targets
    frame = table.to_pandas()
    y = frame["y"].to_numpy()
    found = encoded(state, ["z10", " z10 ", "z59", "", "never seen"])[:, 0] / column.inverse_scale[0] + column.centre[0]

    def smoothed(rows: Any) -> float:
        return float((y[rows].sum() + SMOOTHING * y.mean()) / (rows.sum() + SMOOTHING))

    ten, missing = smoothed(frame["zip"] == "z10"), smoothed(frame["zip"].isna())
    expected = [ten, ten, smoothed(frame["zip"] == "z59"), missing, y.mean()]
    assert found == pytest.approx(expected, rel=1e-5)
    assert state.numeric_names == ("zip: mean of y",)


def test_a_training_row_gets_the_mean_of_the_folds_that_it_is_not_in() -> None:
    """Changing one row's target changes nothing about what that row is encoded to, and something about others."""
    table, schema = table_of(Task.REGRESSION), schema_of(Task.REGRESSION)
    state = fit_preprocessing(table, schema, rows=ALL)
    before = told(table, schema, state)
    changed = table.column("y").to_numpy().copy()
    changed[123] += 1e4
    other = table.set_column(1, "y", pa.array(changed))
    after = told(other, schema, state)
    assert after[123] == before[123]
    same = np.isclose(after[:, 0], before[:, 0])
    folds = np.random.default_rng(20_011).permutation(NUM_ROWS) % NUM_FOLDS
    assert same[folds == folds[123]].all()
    assert not same[folds != folds[123]].any()


def test_categories_of_pure_noise_tell_nothing_of_their_own_rows() -> None:
    """The leak that out-of-fold means are for: with two rows a category the full table would know half the target."""
    rng = np.random.default_rng(1)
    zips = [f"z{value:03d}" for value in np.arange(NUM_ROWS) // 2]
    y = rng.normal(size=NUM_ROWS)
    table, schema = pa.table({"zip": zips, "y": y}), schema_of(Task.REGRESSION)
    state = fit_preprocessing(table, schema, rows=ALL)
    leaking = np.corrcoef(encoded(state, zips)[:, 0], y)[0, 1]
    apart = np.corrcoef(told(table, schema, state)[:, 0], y)[0, 1]
    assert leaking > 0.6
    assert abs(apart) < 0.15


def test_rows_of_a_group_learn_nothing_from_each_other() -> None:
    """Each patient has a level of its own and goes to one place: of a new patient the place says nothing."""
    rng = np.random.default_rng(2)
    patients = np.arange(NUM_ROWS) // 6
    y = rng.normal(size=100)[patients] + 0.1 * rng.normal(size=NUM_ROWS)
    columns = {"zip": [f"z{value:02d}" for value in patients], "y": y}
    table = pa.table(columns | {"patient": [f"p{value}" for value in patients]})

    assert np.corrcoef(fit_and_tell(table), y)[0, 1] > 0.8
    apart = fit_and_tell(table, group="patient")
    assert abs(np.corrcoef(apart, y)[0, 1]) < 0.4
    assert len(np.unique(apart)) <= NUM_FOLDS
    # Rows stored without their group, by an earlier version, are taken one by one.
    assert np.array_equal(fit_and_tell(table.drop_columns(["patient"]), group="patient"), fit_and_tell(table))


def fit_and_tell(table: pa.Table, *, group: str | None = None) -> Any:
    schema = schema_of(Task.REGRESSION, group=group)
    state = fit_preprocessing(table, schema, rows=ALL)
    return told(table, schema, state)[:, 0]


def test_a_row_without_a_group_is_a_group_of_its_own() -> None:
    table, schema = table_of(Task.REGRESSION), schema_of(Task.REGRESSION, group="none")
    table = table.append_column("none", pa.nulls(NUM_ROWS, pa.string()))
    state = fit_preprocessing(table, schema, rows=ALL)
    assert len(np.unique(told(table, schema, state))) > 60


def test_a_row_in_time_is_told_nothing_of_later_ones_or_of_its_own_time() -> None:
    schema = schema_of(Task.REGRESSION, time_column="day")
    table = in_time(table_of(Task.REGRESSION), number=200)
    days, y = days_of(table), table.column("y").to_numpy()
    state = fit_preprocessing(table, schema, rows=ALL)
    before = told(table, schema, state)
    for quantile in (0.3, 0.6, 0.95):
        now = np.sort(days)[int(quantile * NUM_ROWS)]
        other = table.set_column(1, "y", pa.array(np.where(days >= now, -1e4 * y, y)))
        after = told(other, schema, state)
        assert np.array_equal(after[days <= now], before[days <= now])
    # What came before is learned: the last block knows as much as new rows do, but for itself.
    last = days >= np.sort(days)[NUM_ROWS * (NUM_BLOCKS - 1) // NUM_BLOCKS]
    full = encoded(state, ["" if value is None else value for value in table.column("zip").to_pylist()])
    assert np.corrcoef(before[last, 0], full[last, 0])[0, 1] > 0.95
    assert (before[days < np.sort(days)[NUM_ROWS // NUM_BLOCKS], 0] == 0.0).all()


def test_a_row_in_time_gets_the_mean_of_the_blocks_before_its_own() -> None:
    schema = schema_of(Task.REGRESSION, time_column="day")
    table = in_time(table_of(Task.REGRESSION))
    days, frame = days_of(table), table.to_pandas()
    state = fit_preprocessing(table, schema, rows=ALL)
    (column,) = state.targets
    begin = np.sort(days)[NUM_ROWS // 2]
    row = int(np.flatnonzero(days == begin)[0])
    earlier = frame["y"][days < begin]
    same = earlier[frame["zip"][days < begin] == frame["zip"][row]]
    expected = (same.sum() + SMOOTHING * earlier.mean()) / (len(same) + SMOOTHING)
    assert told(table, schema, state)[row, 0] / column.inverse_scale[0] + column.centre[0] == pytest.approx(expected)
    assert column.reason.endswith(f"the earlier ones of {NUM_BLOCKS} blocks of time")


def test_categories_have_no_mean_targets_where_few_rows_have_earlier_ones() -> None:
    table = table_of(Task.REGRESSION)
    for later in (0, 200):
        days = ["2020-01-01"] * (NUM_ROWS - later) + ["2021-01-01"] * later
        dated = table.append_column("day", pa.array(days))
        assert fit_preprocessing(dated, schema_of(Task.REGRESSION, time_column="day"), rows=ALL).targets == ()


@pytest.mark.parametrize("order", ["group", "time_column", "none"])
def test_training_rows_that_did_not_teach_are_told_as_those_that_did(order: str) -> None:
    """A sample teaches where the table is on disk: the others still learn nothing of their own group or time."""
    table = in_time(table_of(Task.REGRESSION), number=40)
    schema = schema_of(Task.REGRESSION, **({} if order == "none" else {order: "day"}))
    taught = np.arange(NUM_ROWS) % 2 == 0
    training = np.arange(NUM_ROWS) < 550
    state = fit_preprocessing(table, schema, rows=taught & training)
    means = TrainingMeans(table, schema, state, learned=taught & training, training=training)
    zips = ["" if value is None else value for value in table.column("zip").to_pylist()]
    full = encoded(state, zips)
    found = full.copy()
    for start in range(0, NUM_ROWS, 100):
        means.write(found[start : start + 100], table.slice(start, 100), start=start)
    assert np.array_equal(found[~training], full[~training])
    others = training & ~taught
    assert (found[others] != full[others]).any() == (order != "none")
    days, keys = days_of(table), np.array(zips)
    pairs = 0
    for row in np.flatnonzero(others):
        twins = np.flatnonzero(training & taught & (days == days[row]) & (keys == keys[row]))
        pairs += len(twins)
        assert order == "none" or (found[twins] == found[row]).all()
    assert pairs > 10


def test_only_training_rows_are_learned_from() -> None:
    table, schema = table_of(Task.REGRESSION), schema_of(Task.REGRESSION)
    rows = np.arange(NUM_ROWS) < 400
    changed = np.where(rows, table.column("y").to_numpy(), 1e6)
    other = table.set_column(1, "y", pa.array(changed))
    states = [fit_preprocessing(one, schema, rows=rows) for one in (table, other)]
    assert states[0].targets == states[1].targets


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (Task.BINARY, ("zip: mean of yes",)),
        (Task.MULTICLASS, ("zip: mean of a", "zip: mean of b", "zip: mean of c")),
        (Task.REGRESSION, ("zip: mean of y",)),
    ],
)
def test_each_class_has_a_mean_of_its_own(task: Task, names: tuple[str, ...]) -> None:
    state = fit_preprocessing(table_of(task), schema_of(task), rows=ALL)
    assert state.numeric_names == names
    assert encoded(state, ["z01"]).shape == (1, len(names))
    assert PreprocessingState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_weights_count_in_the_means() -> None:
    table = table_of(Task.REGRESSION)
    weighted = fit_preprocessing(table, schema_of(Task.REGRESSION, weight="w"), rows=ALL).targets[0]
    repeats = np.repeat(np.arange(NUM_ROWS), table.column("w").to_numpy())
    repeated = table.take(pa.array(repeats))
    plain = fit_preprocessing(repeated, schema_of(Task.REGRESSION), rows=np.ones(len(repeats), bool)).targets[0]
    shared = sorted(set(weighted.categories) & set(plain.categories))

    def means(column: Any) -> Any:
        rows = np.array([column.means[column.categories.index(name)][0] for name in shared])
        return rows / column.inverse_scale[0] + column.centre[0]

    assert means(weighted) == pytest.approx(means(plain), rel=1e-4)


def test_whole_numbers_are_looked_up_as_numbers() -> None:
    table = pa.table({"zip": np.arange(NUM_ROWS) % 50, "y": (np.arange(NUM_ROWS) % 50) / 7.0})
    state = fit_preprocessing(table, schema_of(Task.REGRESSION, raw_type=RawType.FLOAT32), rows=ALL)
    raw = tf.constant([3.0, 49.0, 50.0, float("nan"), 3.5])
    found = Encoder(state)({"zip": raw})["numeric"].numpy()[:, 0]
    assert found[0] < found[1]
    assert found[2] == found[4] == np.float32(state.targets[0].other[0])


def test_a_state_without_mean_targets_has_no_such_columns() -> None:
    schema = schema_of(Task.REGRESSION)
    plain = dataclasses.replace(
        schema, features=(dataclasses.replace(schema.features[0], target_encoded=False),)
    )
    state = fit_preprocessing(table_of(Task.REGRESSION), plain, rows=ALL)
    assert state.num_target_columns == 0
    assert told(table_of(Task.REGRESSION), plain, state).shape == (NUM_ROWS, 0)
