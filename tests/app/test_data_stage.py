"""The data stage alone, without a worker: splits that keep groups together and times in order, and what is written."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from app.config import DataConfig, ExperimentConfig
from app.data_files import SPLIT_COLUMN, stored_columns, write_data
from app.data_source import check_same_data, read_source
from app.data_stage import PreparedData, prepare_data, protocol
from app.errors import RunDirectoryError
from app.run_directory import RunDirectory, read_json
from pipelines.splits import Split


def prepared(frame: pd.DataFrame, **data: str) -> PreparedData:
    config = ExperimentConfig(data=DataConfig(target="species", **data))  # type: ignore[arg-type]
    return prepare_data(read_source(frame, config), config)


def test_a_group_stays_in_one_split(penguins: pd.DataFrame) -> None:
    frame = penguins.assign(nest=[f"nest {row % 60}" for row in range(len(penguins))])
    data = prepared(frame, group="nest")
    splits = pd.Series(data.splits, index=data.table.column("nest").to_pandas())
    assert (splits.groupby(level=0).nunique() == 1).all()
    assert set(splits) == set(Split)
    assert "nest" not in {feature.name for feature in data.schema.used_features}
    config = ExperimentConfig(data=DataConfig(target="species", group="nest"))
    assert protocol(data.schema, config) == "Whole groups of nest by a hash of the group and seed 42."


def test_the_group_is_stored_where_mean_targets_have_to_come_from_others(penguins: pd.DataFrame) -> None:
    rows = range(len(penguins))
    frame = penguins.assign(nest=[f"nest {row % 60}" for row in rows], ring=[f"ring {row % 40}" for row in rows])
    schema = prepared(frame, group="nest").schema
    assert [feature.name for feature in schema.used_features if feature.target_encoded] == ["ring"]
    assert stored_columns(schema)[-2:] == ["species", "nest"]
    assert "nest" not in stored_columns(prepared(frame.drop(columns="ring"), group="nest").schema)


def test_the_time_is_stored_where_mean_targets_have_to_come_from_earlier_rows(penguins: pd.DataFrame) -> None:
    days = pd.date_range("2007-01-01", periods=len(penguins), freq="D").astype(str)
    rings = [f"ring {row % 40}" for row in range(len(penguins))]
    frame = penguins.sample(frac=1.0, random_state=0).assign(day=days, ring=rings)
    data = prepared(frame, time_column="day")
    assert stored_columns(data.schema)[-2:] == ["species", "day"]
    (column,) = data.preprocessing.targets
    assert column.reason.endswith("the earlier ones of 20 blocks of time")
    assert "day" not in stored_columns(prepared(frame.drop(columns="ring"), time_column="day").schema)


def test_a_time_column_puts_the_latest_rows_into_the_test(penguins: pd.DataFrame) -> None:
    days = pd.date_range("2007-01-01", periods=len(penguins), freq="D")
    frame = penguins.sample(frac=1.0, random_state=0).assign(day=days)
    data = prepared(frame, time_column="day")
    day = pd.Series(data.table.column("day").to_pandas())
    train, validation, test = (day[data.splits == split] for split in Split)
    assert train.max() < validation.min()
    assert validation.max() < test.min()
    config = ExperimentConfig(data=DataConfig(target="species", time_column="day"))
    assert protocol(data.schema, config).startswith("Ordered by day: the earliest rows train")


def test_the_sealed_rows_are_in_a_file_of_their_own(penguins: pd.DataFrame, tmp_path: Path) -> None:
    data = prepared(penguins)
    directory = RunDirectory(tmp_path / "run")
    config = ExperimentConfig(data=DataConfig(target="species"))
    with directory.staged() as staged:
        write_data(data, config, directory=staged)
    development, test = (
        pa.ipc.open_file(path).read_all() for path in (directory.development_file, directory.test_file)
    )
    assert development.num_rows + test.num_rows == data.table.num_rows
    assert set(development.column(SPLIT_COLUMN).to_pylist()) == {Split.TRAIN, Split.VALIDATION}
    assert SPLIT_COLUMN not in test.column_names
    assert directory.read_config() == config
    assert read_json(directory.manifest_file)["data"]["rows"]["test"] == test.num_rows


def test_the_same_seed_splits_alike_and_another_does_not(penguins: pd.DataFrame) -> None:
    assert (prepared(penguins).splits == prepared(penguins).splits).all()
    shuffled = penguins.sample(frac=1.0, random_state=1)
    before = pd.Series(prepared(penguins).splits, index=penguins.index)
    after = pd.Series(prepared(shuffled).splits, index=shuffled.index)
    unique = ~penguins.duplicated(keep=False)
    assert (before[unique] == after.reindex(penguins.index)[unique]).all()


def test_only_the_same_data_goes_on(penguins: pd.DataFrame, tmp_path: Path) -> None:
    config = ExperimentConfig(data=DataConfig(target="species"))
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(prepared(penguins), config, directory=staged)
    check_same_data(directory, config, penguins)
    check_same_data(directory, config, None)
    with pytest.raises(RunDirectoryError, match=r"DataFrame.* has changed since .*: restore the data, start a new"):
        check_same_data(directory, config, penguins.assign(year=2001))
