from __future__ import annotations

import datetime
import uuid

import numpy as np
import pyarrow as pa
import pytest

from pipelines.column_checks import check_columns
from pipelines.errors import DataError
from pipelines.inference import infer_features
from pipelines.schema import FeatureKind, FeatureSpec, Override, RawType, TargetSpec, Task

NUM_ROWS = 200
TARGET = TargetSpec("y", task=Task.REGRESSION)
RNG = np.random.default_rng(0)
WORDS = np.array(["red", "green", "blue"])


def _infer(values: object, override: Override | None = None, *, name: str = "x") -> FeatureSpec:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    columns = {name: array, "y": np.arange(len(array)) * 1.5, "other": np.arange(len(array)) / 7}
    overrides = {} if override is None else {name: override}
    return infer_features(pa.table(columns), TARGET, overrides=overrides).features[0]


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        (RNG.normal(size=NUM_ROWS), FeatureKind.NUMERIC, "numbers with decimals, 200 distinct values in 200 rows"),
        (np.arange(NUM_ROWS) % 4, FeatureKind.NUMERIC, "whole numbers, 4 distinct values in 200 rows"),
        (np.arange(NUM_ROWS) % 2, FeatureKind.BOOLEAN, "only 0 and 1 in 200 rows"),
        (np.arange(NUM_ROWS) % 2 == 0, FeatureKind.BOOLEAN, "true or false"),
        (WORDS[np.arange(NUM_ROWS) % 3], FeatureKind.CATEGORICAL, "text, 3 distinct values in 200 rows"),
        ([f"{i % 7}.5" for i in range(NUM_ROWS)], FeatureKind.NUMERIC, r"text that holds numbers only"),
        ([f"0{i % 7}" for i in range(NUM_ROWS)], FeatureKind.CATEGORICAL, "codes with leading zeros, 7 distinct"),
        (["2020-01-0" + str(i % 9 + 1) for i in range(NUM_ROWS)], FeatureKind.DATETIME, r"100.0% of 200 values read"),
        ([datetime.date(2020, 1, i % 9 + 1) for i in range(NUM_ROWS)], FeatureKind.DATETIME, "timestamps, 9 distinct"),
        ([None, "a"] * 100, FeatureKind.CATEGORICAL, "text, 1 distinct values in 100 rows"),
        (["a quite long name of a thing " + str(i % 9) for i in range(NUM_ROWS)], FeatureKind.CATEGORICAL, "text, 9"),
        ([f"word{i % 150}" for i in range(NUM_ROWS)], FeatureKind.TEXT, "hardly repeats, 150 distinct values in 200"),
        ([f"one two three four {i % 99}" for i in range(NUM_ROWS)], FeatureKind.TEXT, "free text, 99 distinct"),
    ],
)
def test_kinds_are_guessed_with_a_reason(values: object, kind: FeatureKind, reason: str) -> None:
    feature = _infer(values)
    assert feature.kind is kind
    assert feature.used
    assert reason in feature.reason


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("x", np.arange(NUM_ROWS), "dropped as an identifier: numbered through"),
        ("x", np.arange(NUM_ROWS) ** 3, "dropped as an identifier: distinct and sorted in all 200 rows"),
        ("x", RNG.permutation(10**7)[:1_500], "dropped as an identifier: distinct in all 1,500 rows"),
        ("customer_id", RNG.permutation(10**6)[:NUM_ROWS], "dropped as an identifier: its name"),
        ("PassengerId", RNG.permutation(10**6)[:NUM_ROWS], "dropped as an identifier: its name"),
        ("x", [str(uuid.UUID(int=i)) for i in range(NUM_ROWS)], "dropped as an identifier: distinct in all 200 rows"),
        ("x", ["same"] * NUM_ROWS, "dropped: constant, 'same' in all 200 training rows"),
        ("x", [None] * NUM_ROWS, "dropped: missing in all 200 training rows"),
        ("x", [[i] for i in range(NUM_ROWS)], "dropped: type list<item: int64> is not read"),
    ],
)
def test_useless_columns_are_dropped_with_a_reason(name: str, values: object, reason: str) -> None:
    feature = _infer(values, name=name)
    assert not feature.used
    assert reason in feature.reason


@pytest.mark.parametrize("name", ["weight", "paid", "grid", "x"])
def test_distinct_measurements_in_small_tables_are_no_identifiers(name: str) -> None:
    assert _infer(RNG.permutation(10**6)[:NUM_ROWS], name=name).used


def test_constant_with_missing_values_is_kept() -> None:
    assert _infer(pa.array([7, None] * 100)).used


def test_a_column_that_some_row_lacks_may_be_left_out() -> None:
    numbers = (np.arange(NUM_ROWS) % 7 + 0.5).tolist()
    assert not _infer(numbers).optional
    assert _infer([None, *numbers]).optional


def test_only_training_rows_are_read_for_the_guess() -> None:
    values = np.r_[np.full(100, 3), np.arange(100)]
    table = pa.table({"x": values, "y": np.arange(200) / 7, "z": np.arange(200) / 3})
    train = np.arange(200) < 100
    assert "constant, 3 in all 100" in infer_features(table, TARGET, rows=train).features[0].reason
    assert infer_features(table, TARGET).features[0].used


def test_zero_and_one_in_training_with_a_two_elsewhere_is_a_number() -> None:
    table = pa.table({"x": np.r_[np.arange(100) % 2, [2] * 20], "y": np.arange(120) / 7})
    assert infer_features(table, TARGET, rows=np.arange(120) < 100).features[0].kind is FeatureKind.NUMERIC


@pytest.mark.parametrize(
    ("values", "raw_type", "integer"),
    [
        (pa.array(np.arange(NUM_ROWS) % 9), RawType.FLOAT32, True),
        (pa.array(2**24 + np.arange(NUM_ROWS) % 9), RawType.STRING, True),
        (pa.array(np.arange(NUM_ROWS) % 9 + 0.0), RawType.FLOAT32, False),
        (pa.array(np.arange(NUM_ROWS) % 9 + 0.5), RawType.STRING, False),
        (pa.array(np.arange(NUM_ROWS) % 2 == 0), RawType.STRING, False),
        (pa.array(["a", "b"] * 100), RawType.STRING, False),
    ],
)
def test_categories_of_whole_numbers_stay_numbers_where_float32_is_exact(
    values: pa.Array, raw_type: RawType, integer: bool
) -> None:
    feature = _infer(values, FeatureKind.CATEGORICAL)
    assert (feature.raw_type, feature.integer) == (raw_type, integer)
    assert feature.reason.startswith("set by the user")


def test_overrides_are_followed() -> None:
    assert _infer(np.arange(NUM_ROWS), FeatureKind.NUMERIC).used
    assert not _infer(np.arange(NUM_ROWS) % 5, "ignore").used
    assert _infer(WORDS[np.arange(NUM_ROWS) % 3], FeatureKind.TEXT).kind is FeatureKind.TEXT
    assert _infer(["31/12/2020", "01/01/2021"] * 20, FeatureKind.DATETIME).datetime_format == "%d/%m/%Y"
    assert _infer([datetime.date(2020, 1, 1), None] * 20, FeatureKind.DATETIME).kind is FeatureKind.DATETIME


@pytest.mark.parametrize(("num_values", "encoded"), [(29, False), (30, True), (100, True), (101, False)])
def test_columns_of_many_categories_that_repeat_bring_their_mean_targets(num_values: int, encoded: bool) -> None:
    values = pa.array(np.arange(NUM_ROWS) % num_values)
    feature = _infer(values, FeatureKind.CATEGORICAL)
    assert feature.target_encoded is encoded
    assert ("also by the mean target of each, as there are 30 or more" in feature.reason) is encoded
    assert FeatureSpec.from_json(feature.to_json()) == feature


def test_many_classes_bring_no_mean_targets() -> None:
    table = pa.table({"x": pa.array([f"v{i % 40}" for i in range(NUM_ROWS)]), "y": np.arange(NUM_ROWS) % 11})
    for num_classes in (10, 11):
        target = TargetSpec("y", task=Task.MULTICLASS, classes=tuple(map(str, range(num_classes))))
        assert infer_features(table, target).features[0].target_encoded is (num_classes == 10)


def test_group_and_time_are_no_features() -> None:
    table = pa.table({"g": [1, 2] * 20, "t": np.arange(40), "x": np.arange(40) / 7, "y": np.arange(40) / 3})
    schema = infer_features(table, TARGET, group="g", time_column="t")
    assert [feature.name for feature in schema.used_features] == ["x"]
    assert [feature.reason for feature in schema.features[:2]] == [
        "not a feature: keeps its rows in one split",
        "not a feature: orders the splits; a model must not learn the position in time",
    ]
    assert (schema.group, schema.time_column) == ("g", "t")
    dated = table.set_column(1, "t", pa.array([f"{1 + day % 28:02}/03/2024" for day in range(40)]))
    assert infer_features(dated, TARGET, time_column="t").features[1].datetime_format == "%d/%m/%Y"


def test_dates_that_are_not_used_keep_their_format() -> None:
    for feature in (_infer(["31/12/2024"] * 40), _infer(["31/12/2020", "01/01/2021"] * 20, "ignore")):
        assert (feature.kind, feature.used, feature.datetime_format) == (FeatureKind.DATETIME, False, "%d/%m/%Y")


# Bad input


def test_mostly_numbers_and_some_text_is_refused_unless_it_is_to_be_text() -> None:
    values = [str(i) for i in range(100)]
    values[57] = "abc"
    with pytest.raises(DataError, match=r"but 1 of 100 values are none, the first 'abc' in row 58; .*--missing"):
        _infer(values)
    assert _infer(values, FeatureKind.CATEGORICAL).kind is FeatureKind.CATEGORICAL
    assert _infer(values, FeatureKind.TEXT).kind is FeatureKind.TEXT
    assert not _infer(values, "ignore").used


def test_mixed_columns_are_found_outside_the_training_rows_too() -> None:
    table = pa.table({"x": ["1"] * 99 + ["abc"], "y": np.arange(100) / 7})
    with pytest.raises(DataError, match="the first 'abc' in row 100"):
        infer_features(table, TARGET, rows=np.arange(100) < 50)


def test_text_that_is_to_be_numeric_is_refused() -> None:
    with pytest.raises(DataError, match="numbers in column 'x', but 200 of 200 values are none, the first 'red'"):
        _infer(WORDS[np.arange(NUM_ROWS) % 3], FeatureKind.NUMERIC)


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_infinite_numbers_are_refused(infinite: float) -> None:
    values = np.arange(50) / 7
    values[[30, 40]] = infinite
    with pytest.raises(DataError, match="finite numbers in column 'x', but 2 are infinite, the first in row 31"):
        _infer(values)
    with pytest.raises(DataError, match="column 'x', but 2 are infinite"):
        _infer([str(value) for value in values])


def test_columns_can_be_checked_before_rows_are_dropped() -> None:
    table = pa.table({"x": [1.0, np.inf], "y": [1.0, np.inf]})
    with pytest.raises(DataError, match="column 'x'"):
        check_columns(table, target="y")
    check_columns(table, target="y", overrides={"x": "ignore"})


def test_impossible_overrides_are_refused() -> None:
    table = pa.table({"age": np.arange(40) / 7, "y": np.arange(40) / 3})
    with pytest.raises(DataError, match=r"The data has no column 'Age'\. Did you mean 'age'\?"):
        infer_features(table, TARGET, overrides={"Age": "ignore"})
    with pytest.raises(DataError, match="Column 'y' is the target"):
        infer_features(table, TARGET, overrides={"y": "ignore"})
    with pytest.raises(DataError, match="text, image or ignore for column 'x', received audio"):
        _infer(["a", "b"] * 20, FeatureKind.AUDIO)
    with pytest.raises(DataError, match=r"Expected dates in column 'x', such as .*, received \['red'\]"):
        _infer(["red", "blue"] * 20, FeatureKind.DATETIME)
    with pytest.raises(DataError, match="Column 'x' holds dates, which cannot be used as numeric"):
        _infer([datetime.date(2020, 1, 1)] * 20, FeatureKind.NUMERIC)
    with pytest.raises(DataError, match=r"Column 'x' is list<item: int64>, which cannot be used as numeric"):
        _infer([[1], [2]] * 20, FeatureKind.NUMERIC)


def test_table_without_a_usable_column_is_refused() -> None:
    table = pa.table({"x": [1] * 40, "y": np.arange(40) / 3})
    with pytest.raises(DataError, match=r"No column can be used to predict 'y' \(x: dropped: constant, 1 in all 40"):
        infer_features(table, TARGET)


def test_unknown_group_is_refused() -> None:
    with pytest.raises(DataError, match=r"no group column 'G'\. Did you mean 'g'\?"):
        infer_features(pa.table({"g": [1, 2], "y": [1, 2]}), TARGET, group="G")
