"""Tables on disk get the schema, the splits and the files that they would get in memory."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_files import LEARNED_COLUMN, SPLIT_COLUMN, read_arrow, write_data
from app.data_source import is_large, read_source, source_of
from app.data_stage import PreparedData, prepare_data
from app.errors import ConfigError
from app.experiment import prepare
from app.large_data import LargeData, prepare_large, write_large
from app.read_rows import read_rows, store_source
from app.run_directory import RunDirectory, read_json
from app.view import SilentView
from pipelines import stored_rows
from pipelines.errors import DataError
from pipelines.sources import open_source
from pipelines.splits import Split

NUM_ROWS = 6_000


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "CHUNK_ROWS", 700)


def make_rows(num_rows: int = NUM_ROWS) -> pd.DataFrame:
    """Numbers, gaps, an identifier, a constant, dates, text, categories of all frequencies, and rows that repeat."""
    generator = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "customer_id": np.arange(num_rows) + 10_000,
            "price": generator.lognormal(3, 1, num_rows).round(2),
            "rooms": np.where(generator.random(num_rows) < 0.1, np.nan, generator.integers(1, 9, num_rows)),
            "flag": generator.integers(0, 2, num_rows),
            "garden": generator.random(num_rows) < 0.3,
            "city": generator.choice(np.array([f"city {n}" for n in range(200)] + [None], object), num_rows),
            "zip": [f"{number:05d}" for number in generator.integers(0, 400, num_rows)],
            "built": pd.Series(pd.date_range("2001-01-01", periods=400)).dt.strftime("%Y-%m-%d").sample(
                num_rows, replace=True, random_state=0
            ).to_numpy(),
            "note": [" ".join(generator.choice(["warm", "old", "new", "dry", "big"], 7)) for _ in range(num_rows)],
            "unit": "EUR",
            "sold": generator.choice(np.array(["yes", "no", None], object), num_rows, p=[0.3, 0.65, 0.05]),
        }
    )
    frame.loc[frame.index[-300:], frame.columns[1:]] = frame.iloc[:300, 1:].to_numpy()
    return frame


def settings(path: Path, **data: object) -> ExperimentConfig:
    given = DataConfig(source=str(path), target="sold", in_memory=1, **data)  # type: ignore[arg-type]
    return ExperimentConfig(data=given, search=SearchConfig(folds=1))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "rows.csv"
    make_rows().to_csv(path, index=False)
    return path


def both(path: Path, folder: Path, **data: object) -> tuple[LargeData, PreparedData]:
    config = settings(path, **data)
    source = open_source(path)
    assert is_large(source, config)
    stored = store_source(source, config, folder=folder)
    return prepare_large(stored, config), prepare_data(read_source(path, config), config)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"group": "city"},
        {"time_column": "built", "embargo": "3d"},
        {"features": {"zip": "ignore", "rooms": "categorical"}},
        {"weight": "price"},
    ],
    ids=["stratified", "group", "time with an embargo", "features", "weight"],
)
def test_a_table_on_disk_is_taken_for_what_it_is_in_memory(
    table: Path, tmp_path: Path, data: dict[str, object]
) -> None:
    large, small = both(table, tmp_path, **data)
    assert large.prepared.schema == small.schema
    assert np.array_equal(large.splits[large.splits >= 0], small.splits)
    # The mask of the training rows is one over the sample here, over all rows there.
    assert replace(large.prepared.preprocessing, rows_sha256="") == replace(small.preprocessing, rows_sha256="")
    assert large.prepared.profile.columns == small.profile.columns
    assert large.prepared.profile.split_rows == small.profile.split_rows
    told = [finding.message for finding in large.prepared.profile.findings]
    assert [message for message in told if "stays on disk" not in message] == [
        finding.message for finding in small.profile.findings
    ]
    assert large.prepared.source.fingerprint == small.source.fingerprint


def test_the_same_is_written(table: Path, tmp_path: Path) -> None:
    large, small = both(table, tmp_path)
    config = settings(table)
    directories = [RunDirectory(tmp_path / name) for name in ("large", "small")]
    for directory, write in zip(directories, (write_large, write_data), strict=True):
        with directory.staged() as staged:
            write(large if write is write_large else small, config, directory=staged)  # type: ignore[operator]
    for name in ("splits_sha256", "rows", "fingerprint", "files", "imbalance_ratio", "columns"):
        told = [read_json(directory.manifest_file)["data"][name] for directory in directories]
        assert told[0] == told[1], name
    assert read_arrow(directories[0].test_file).equals(read_arrow(directories[1].test_file))
    on_disk, in_memory = (read_arrow(directory.development_file) for directory in directories)
    splits = on_disk.column(SPLIT_COLUMN).to_numpy()
    assert (np.diff(splits) >= 0).all()
    order = np.argsort(in_memory.column(SPLIT_COLUMN).to_numpy(), kind="stable")
    assert on_disk.drop_columns([LEARNED_COLUMN]).equals(in_memory.take(pa.array(order)))
    assert np.array_equal(on_disk.column(LEARNED_COLUMN).to_numpy(), splits == Split.TRAIN)


def test_a_sample_decides_kinds_alike_and_counts_come_from_all_rows(table: Path, tmp_path: Path) -> None:
    large, small = both(table, tmp_path, sample_rows=1_500)
    assert int((large.prepared.splits == Split.TRAIN).sum()) == 1_500
    found, expected = large.prepared.schema, small.schema
    for one, other in zip(found.features, expected.features, strict=True):
        assert replace(one, reason="") == replace(other, reason="")
    assert np.array_equal(large.splits[large.splits >= 0], small.splits)
    for column, exact in zip(large.prepared.profile.columns, small.profile.columns, strict=True):
        assert (column.missing_share, column.num_distinct) == (exact.missing_share, exact.num_distinct)
        assert (column.min, column.max) == (exact.min, exact.max)
        assert column.mean == pytest.approx(exact.mean)
        if column.kind in ("categorical", "target"):
            assert column.top_values == exact.top_values
    counted = sum(large.prepared.profile.columns[1].histogram_counts)
    assert counted == pytest.approx(small.profile.split_rows[0], rel=0.01)
    (told,) = [one.message for one in large.prepared.profile.findings if "stays on disk" in one.message]
    assert "of a uniform sample of 1,500 training rows" in told


def test_bad_values_are_named_with_their_row(tmp_path: Path) -> None:
    frame = make_rows(2_000)
    path = tmp_path / "rows.parquet"
    frame.assign(price=frame["price"].where(frame.index != 1_234, np.inf)).to_parquet(path)
    with pytest.raises(DataError, match=r"finite numbers in column 'price', but 1 are infinite, the first in row 1235"):
        prepare_large(store_source(open_source(path), settings(path), folder=tmp_path), settings(path))
    price = frame["price"].astype(str)
    frame.assign(price=price.where(price.index != 999, "unknown")).to_parquet(path)
    with pytest.raises(DataError, match=r"numbers in column 'price', but 1 of 2,000 .* 'unknown' in row 1000; mend"):
        prepare_large(store_source(open_source(path), settings(path), folder=tmp_path), settings(path))


@pytest.mark.parametrize("data", [{"in_memory": -1}, {"sample_rows": 10}])
def test_limits_out_of_range_are_refused(data: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected bytes from 0 and at least 1000 rows to learn from"):
        DataConfig(**data)  # type: ignore[arg-type]


def test_folds_are_for_tables_in_memory(table: Path, tmp_path: Path) -> None:
    config = replace(settings(table), search=SearchConfig(folds=5))
    with pytest.raises(ConfigError, match=r"folds is 5: expected 1 for a table that is not held in m.*raise in_memory"):
        prepare(table, config, path=tmp_path / "run", view=SilentView())


def test_a_query_that_does_not_fit_into_memory_goes_the_same_way(tmp_path: Path) -> None:
    frame = make_rows(1_500).assign(garden=lambda rows: rows["garden"].astype(int))
    connection = sqlite3.connect(tmp_path / "homes.db")
    frame.to_sql("homes", connection, index=False)
    connection.close()
    given = DataConfig(sql="select * from homes", url=f"sqlite:///{tmp_path / 'homes.db'}", target="sold")
    config = ExperimentConfig(data=given, search=SearchConfig(folds=1))
    held = read_rows(source_of(given), config, folder=tmp_path)
    assert held.stored is None
    small = prepare_data(held.source, config)
    config = replace(config, data=replace(given, in_memory=1))
    large = prepare_large(read_rows(source_of(given), config, folder=tmp_path), config)
    assert large.prepared.schema == small.schema
    assert np.array_equal(large.splits[large.splits >= 0], small.splits)
    assert large.prepared.source.fingerprint == small.source.fingerprint == read_source(
        source_of(given), config
    ).fingerprint


def test_a_joined_table_that_does_not_fit_goes_the_same_way(table: Path, tmp_path: Path) -> None:
    places = pd.DataFrame({"city": [f"city {n}" for n in range(0, 200, 2)], "people": range(100)})
    places.to_csv(tmp_path / "places.csv", index=False)
    joins = (f"{tmp_path / 'places.csv'}:city",)
    config = settings(table, joins=joins)
    source = source_of(config.data)
    assert is_large(source, config)
    large = prepare_large(read_rows(source, config, folder=tmp_path), config)
    small = prepare_data(read_source(source_of(config.data), config), config)
    assert large.prepared.schema == small.schema
    assert "people" in [feature.name for feature in small.schema.used_features]
    assert np.array_equal(large.splits[large.splits >= 0], small.splits)
    assert large.prepared.source.facts == small.source.facts
    (told,) = [note for note in large.prepared.source.notes if "rows have no match in places.csv" in note]
    assert told in small.source.notes
    pd.DataFrame({"city": ["nowhere"], "people": [1]}).to_csv(tmp_path / "places.csv", index=False)
    with pytest.raises(DataError, match=r"Expected values of 'city' to stand .* none of 6,000 rows has a match"):
        read_rows(source_of(config.data), config, folder=tmp_path)
