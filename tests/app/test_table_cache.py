"""A second search on the same table starts from what the first one prepared, and from nothing else."""

from __future__ import annotations

import fcntl
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from app import table_cache
from app.cli import app
from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_lock import write_lock
from app.data_source import read_source
from app.encoded_rows import load_encoded, save_encoded
from app.errors import RunDirectoryError
from app.evaluation.baselines import EncodedRows
from app.experiment import prepare
from app.run_directory import RunDirectory, read_json
from app.table_cache import TableCache
from app.table_stage import keep_encoded
from app.view import ConsoleView, SilentView
from pipelines.sources import open_source

NUM_ROWS = 600
PREPARED_BEFORE = "This table was prepared before"


@pytest.fixture(autouse=True)
def small_tables_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_cache, "MIN_BYTES", 1)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.csv")


def written(path: Path, *, seed: int = 1) -> Path:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": generator.normal(size=NUM_ROWS).round(5), "c": generator.choice(list("abc"), NUM_ROWS)})
    frame.assign(y=np.where(frame["x"] > 0, "yes", "no")).to_csv(path, index=False)
    return path


def settings(path: Path, **data: Any) -> ExperimentConfig:
    return ExperimentConfig(data=DataConfig(source=str(path), target="y", **data), search=SearchConfig(folds=1))


def prepared(path: Path, run: Path, config: ExperimentConfig | None = None) -> tuple[RunDirectory, str]:
    """A run directory with its data, and what was said meanwhile."""
    said = io.StringIO()
    view = ConsoleView(Console(file=said, width=1_000))
    return prepare(path, config or settings(path), path=run, view=view), said.getvalue()


def cache_beside(folder: Path) -> TableCache:
    return TableCache(folder / ".cache")


def content(directory: RunDirectory) -> dict[str, bytes]:
    """All that was prepared, byte for byte."""
    files = [path for path in directory.path.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(directory.path)): path.read_bytes() for path in files}


@pytest.mark.parametrize("in_memory", [256 << 20, 1], ids=["in memory", "on disk"])
def test_a_second_search_has_what_the_first_one_had(table: Path, tmp_path: Path, in_memory: int) -> None:
    config = settings(table, in_memory=in_memory)
    first, told = prepared(table, tmp_path / "first", config)
    assert PREPARED_BEFORE not in told
    second, told_again = prepared(table, tmp_path / "second", config)
    assert PREPARED_BEFORE in told_again
    assert told_again.split("\n", 1)[1] == told
    assert content(second) == content(first)
    assert second.test_file.stat().st_ino == first.test_file.stat().st_ino


def test_encoded_rows_are_kept_as_well(table: Path, tmp_path: Path) -> None:
    first, _ = prepared(table, tmp_path / "first")
    rows = EncodedRows(numeric=np.ones((3, 2), np.float32), categorical=np.zeros((3, 0), np.int32), y=np.arange(3))
    save_encoded(rows, first.encoded)
    keep_encoded(first, settings(table), view=SilentView())
    second, _ = prepared(table, tmp_path / "second")
    found = load_encoded(second.encoded)
    assert np.array_equal(found.numeric, rows.numeric)
    assert np.array_equal(found.y, rows.y)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": {"features": {"c": "ignore"}}},
        {"data": {"test_share": 0.2}},
        {"data": {"missing_values": ("a",)}},
        {"search": {"seed": 7}},
    ],
    ids=["schema", "split", "reading", "seed"],
)
def test_other_settings_prepare_anew(table: Path, tmp_path: Path, changed: dict[str, dict[str, Any]]) -> None:
    prepared(table, tmp_path / "first")
    config = settings(table, **changed.get("data", {}))
    config = replace(config, search=replace(config.search, **changed.get("search", {})))
    _, told = prepared(table, tmp_path / "second", config)
    assert PREPARED_BEFORE not in told
    assert len(cache_beside(tmp_path).entries()) == 2


def test_a_changed_file_is_prepared_anew(table: Path, tmp_path: Path) -> None:
    first, _ = prepared(table, tmp_path / "first")
    stamp = table.stat()
    # As long as before and of the same time: only its content tells.
    text = table.read_text()
    table.write_text(text.replace(",a,", ",b,", 1))
    os.utime(table, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert table.stat().st_size == stamp.st_size
    second, told = prepared(table, tmp_path / "second")
    assert PREPARED_BEFORE not in told
    assert content(second) != content(first)


@pytest.mark.parametrize("name", ["development.arrow", "schema.json", "data.json", "sums.json"])
def test_a_damaged_entry_is_thrown_away(table: Path, tmp_path: Path, name: str) -> None:
    first, _ = prepared(table, tmp_path / "first")
    expected = content(first)
    (entry,) = cache_beside(tmp_path).folder.iterdir()
    damaged = bytearray((entry / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (entry / name).unlink()
    (entry / name).write_bytes(damaged)
    second, told = prepared(table, tmp_path / "second")
    assert PREPARED_BEFORE not in told
    assert content(second) == expected
    _, told = prepared(table, tmp_path / "third")
    assert PREPARED_BEFORE in told


def test_what_is_used_is_not_removed_and_the_oldest_goes_first(table: Path, tmp_path: Path) -> None:
    prepared(table, tmp_path / "first")
    prepared(table, tmp_path / "second", settings(table, test_share=0.2))
    cache = cache_beside(tmp_path)
    newer, older = cache.entries()
    os.utime(cache.folder / older.key / "lock", (1, 1))
    small = TableCache(cache.folder, max_bytes=older.num_bytes + newer.num_bytes + 1)
    third, _ = prepared(table, tmp_path / "third", settings(table, test_share=0.25, cache="none"))
    with open(cache.folder / newer.key / "lock", "rb") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        source = open_source(str(table))
        small.keep(third, source, settings(table, test_share=0.25))
        kept = {entry.key for entry in cache.entries()}
        assert older.key not in kept
        assert newer.key in kept
        assert len(kept) == 2
        assert cache.clear() > 0
        assert [entry.key for entry in cache.entries()] == [newer.key]


def test_two_searches_that_prepare_the_same_table_leave_one_entry(table: Path, tmp_path: Path) -> None:
    config = settings(table, cache="none")
    runs = [prepared(table, tmp_path / name, config)[0] for name in ("first", "second")]
    cache = cache_beside(tmp_path)
    assert cache.entries() == []
    for run in runs:  # both have prepared it before either has kept it
        cache.keep(run, open_source(str(table)), config)
    assert len(cache.entries()) == 1
    assert [path.name for path in cache.folder.iterdir() if path.name.startswith(".")] == []


def test_a_lock_file_is_held_against_a_kept_table_too(table: Path, tmp_path: Path) -> None:
    prepared(table, tmp_path / "first")
    other = read_source(written(tmp_path / "other.csv", seed=2), settings(table))
    write_lock(other.facts, tmp_path / "other.lock")
    with pytest.raises(RunDirectoryError, match=r"rows\.csv.* is not what .*other\.lock locked"):
        prepared(table, tmp_path / "second", settings(table, lock=str(tmp_path / "other.lock")))


def test_tables_below_the_limit_are_not_kept(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_cache, "MIN_BYTES", 1 << 30)
    prepared(table, tmp_path / "first")
    assert not cache_beside(tmp_path).folder.exists()


def test_a_cache_that_cannot_be_written_is_told_and_nothing_else(table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run, told = prepared(table, tmp_path / "first", settings(table, cache=str(tmp_path / "file" / "cache")))
    assert "warning: the table is not kept for the next search (Not a directory)" in told
    assert read_json(run.manifest_file)["data"]["rows"]["train"] > 0


def test_a_person_can_look_at_the_cache_and_clear_it(table: Path, tmp_path: Path) -> None:
    run, _ = prepared(table, tmp_path / "first")

    def tamiz(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["cache", *arguments, "--cache", str(tmp_path / ".cache")])
        assert done.exit_code == 0, done.output
        return done.output

    assert "rows.csv: 600 rows, 3 columns" in tamiz("list").replace("\n", " ").replace("  ", " ")
    assert "removed from" in tamiz("clear")
    assert "holds 0 prepared tables" in tamiz("list").replace("\n", " ")
    assert run.development_file.is_file()
