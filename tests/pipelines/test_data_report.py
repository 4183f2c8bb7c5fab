from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from pipelines.data_report import NUM_BINS, QUANTILES, ColumnProfile, DataProfile, Severity, profile_table
from pipelines.errors import DataError
from pipelines.inference import infer_features
from pipelines.splits import assign_splits
from pipelines.target_inference import infer_target

NUM_ROWS = 600


def _columns() -> dict[str, object]:
    rng = np.random.default_rng(0)
    return {
        "x": pa.array(rng.normal(size=NUM_ROWS), mask=rng.random(NUM_ROWS) < 0.1),
        "z": rng.normal(size=NUM_ROWS).round(3),
        "job": rng.choice(["smith", "baker", "clerk"], NUM_ROWS, p=[0.5, 0.3, 0.2]),
        "y": rng.choice(["no", "yes"], NUM_ROWS),
    }


def _profile(columns: dict[str, object], *, notes: tuple[str, ...] = ()) -> DataProfile:
    table = pa.table(columns)
    target = infer_target(table, "y")
    splits = assign_splits(table, target, seed=0)
    return profile_table(table, infer_features(table, target, rows=splits == 0), splits, notes=notes)


def _messages(profile: DataProfile, code: str) -> list[str]:
    return [finding.message for finding in profile.findings if finding.code == code]


def _column(profile: DataProfile, name: str) -> ColumnProfile:
    return next(column for column in profile.columns if column.name == name)


def test_columns_are_described_by_their_training_rows() -> None:
    columns = _columns()
    table = pa.table(columns)
    train = assign_splits(table, infer_target(table, "y"), seed=0) == 0
    profile = _profile(columns)
    values = np.asarray(columns["z"])[train]
    column = _column(profile, "z")
    assert (column.kind, column.type, column.missing_share) == ("numeric", "double", 0.0)
    assert (column.min, column.max) == (values.min(), values.max())
    assert column.quantiles == pytest.approx(np.quantile(values, QUANTILES))
    assert len(column.histogram_counts) == NUM_BINS
    assert sum(column.histogram_counts) == train.sum() == profile.split_rows[0]
    assert _column(profile, "x").missing_share == pytest.approx(0.1, abs=0.05)
    assert [value for value, _ in _column(profile, "job").top_values] == ["smith", "baker", "clerk"]
    assert _column(profile, "y").kind == "target"
    assert profile.num_rows == sum(profile.split_rows) == NUM_ROWS


def test_profile_round_trips_through_json() -> None:
    profile = _profile(_columns() | {"empty": pa.nulls(NUM_ROWS), "list": [[1]] * NUM_ROWS})
    assert DataProfile.from_json(json.loads(json.dumps(profile.to_json(), allow_nan=False))) == profile


def test_clean_data_has_no_warnings() -> None:
    assert not [finding for finding in _profile(_columns()).findings if finding.severity is Severity.WARNING]


def test_missing_values_are_found() -> None:
    columns = _columns() | {"rare": pa.array([1.5, 2.5, None, None, None] * 120)}
    messages = _messages(_profile(columns), "missing")
    assert "Column 'rare' is missing in 360 of 600 rows (60.0%)." in messages
    assert any(message.startswith("Column 'x' is missing in ") for message in messages)


def test_repeated_rows_are_found() -> None:
    table = pa.table(_columns())
    repeated = pa.concat_tables([table, table.slice(0, 60)])
    messages = _messages(_profile({name: repeated[name] for name in table.column_names}), "duplicate-rows")
    assert messages == ["60 rows (9.1%) repeat another row in all used columns and the target."]


def test_test_rows_that_training_knows_are_found() -> None:
    table = pa.table(_columns())
    # An identifier makes copies different rows, so that they may fall on both sides.
    copies = pa.concat_tables([table, table]).append_column("row_id", pa.array(np.arange(2 * NUM_ROWS)))
    messages = _messages(_profile({name: copies[name] for name in copies.column_names}), "train-test-duplicates")
    assert len(messages) == 1
    assert "equal a training row in all used columns" in messages[0]
    assert not _messages(_profile(_columns()), "train-test-duplicates")


def test_imbalance_is_found() -> None:
    columns = _columns() | {"y": ["no"] * 580 + ["yes"] * 20}
    assert _messages(_profile(columns), "imbalance") == [
        "Class 'no' of 'y' has 580 rows, class 'yes' only 20 (29 to 1); accuracy alone would mislead."
    ]
    assert not _messages(_profile(_columns()), "imbalance")


def test_dropped_columns_are_listed_with_their_reasons() -> None:
    columns = _columns() | {
        "row_id": np.arange(NUM_ROWS),
        "same": ["a"] * NUM_ROWS,
        "nested": [[i] for i in range(NUM_ROWS)],
    }
    profile = _profile(columns)
    assert "Column 'row_id' is not used; dropped as an identifier" in _messages(profile, "dropped-column")[0]
    assert "Column 'same' is not used; dropped: constant" in _messages(profile, "constant-column")[0]
    assert "Column 'nested' is not used; dropped: type list<item: int64>" in _messages(profile, "text-column")[0]


def test_notes_of_the_source_and_leaks_are_findings() -> None:
    columns = _columns()
    profile = _profile(columns | {"copy": columns["y"]}, notes=("Encoding recognised as cp1252.",))
    assert _messages(profile, "recognised") == ["Encoding recognised as cp1252."]
    assert (
        "Column 'copy' alone predicts 'y' almost perfectly (ROC-AUC 1.0000" in _messages(profile, "suspected-leak")[0]
    )
    assert profile.findings[0].code == "suspected-leak"


def test_constant_and_extreme_numbers_have_histograms() -> None:
    columns = _columns() | {"tiny": pa.array([7.0, None] * 300), "huge": np.linspace(-1e300, 1e300, NUM_ROWS)}
    profile = _profile(columns)
    assert sum(_column(profile, "tiny").histogram_counts) > 0
    assert sum(_column(profile, "huge").histogram_counts) == profile.split_rows[0]


def test_profile_with_an_unknown_field_is_refused() -> None:
    record = _profile(_columns()).to_json()
    record["rows"] = 1
    with pytest.raises(DataError, match="DataProfile has no field 'rows'"):
        DataProfile.from_json(record)
