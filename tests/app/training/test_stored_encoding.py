"""Rows that stay on disk are encoded as rows in memory are, and trained on exactly as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app import data_files
from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_files import SPLIT_COLUMN, read_arrow, write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.encoded_rows import load_encoded
from app.evaluation.metrics import METRICS
from app.large_data import prepare_large, write_large
from app.read_rows import store_source
from app.run_directory import RunDirectory
from app.training import stored_encoding
from app.training.class_balance import class_balance
from app.training.declaration import declare
from app.training.epochs import EpochResult, Verdict
from app.training.trainer import Trainer
from app.training.trial_data import TrialData, load_trial_data
from pipelines import stored_rows
from pipelines.balance import Balance
from pipelines.sources import open_source
from pipelines.splits import Split

NUM_ROWS = 2_400


@dataclass(frozen=True)
class Both:
    on_disk: TrialData
    in_memory: TrialData
    directory: RunDirectory


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, placement: Any) -> Any:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("stored")
    generator = np.random.default_rng(2)
    size, town = generator.normal(size=NUM_ROWS), generator.integers(0, 60, NUM_ROWS)
    frame = pd.DataFrame(
        {
            "row": np.arange(NUM_ROWS) / 7,  # tells rows apart after they were dealt
            "size": np.where(generator.random(NUM_ROWS) < 0.1, np.nan, size.round(3)),
            "town": [f"town {number}" for number in town],
            "kind": generator.choice(["a", "b", "c"], NUM_ROWS),
            "sold": np.where(size + (town % 3) > 1.0, "yes", "no"),
        }
    )
    frame.to_parquet(folder / "rows.parquet")
    data = DataConfig(source=str(folder / "rows.parquet"), target="sold", in_memory=1)
    config = ExperimentConfig(data=data, search=SearchConfig(folds=1))
    large, small = RunDirectory(folder / "large"), RunDirectory(folder / "small")
    with pytest.MonkeyPatch.context() as patch:
        for module in (stored_rows, stored_encoding):
            patch.setattr(module, "CHUNK_ROWS", 500)
        patch.setattr(stored_encoding, "BLOCK_ROWS", 64)
        source = open_source(data.source)
        with large.staged() as staged:
            write_large(prepare_large(store_source(source, config, folder=folder), config), config, directory=staged)
        with small.staged() as staged:
            write_data(prepare_data(read_source(source, config), config), config, directory=staged)
        on_disk, in_memory = (load_trial_data(place, balance=Balance.AUTO) for place in (large, small))
    return Both(on_disk=on_disk, in_memory=in_memory, directory=large)


def by_row(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return array[np.argsort(rows[:, 0], kind="stable")]


@pytest.mark.parametrize("part", ["training", "validation", "development"])
def test_rows_on_disk_are_encoded_as_rows_in_memory_are(both: Both, part: str) -> None:
    disk, memory = getattr(both.on_disk, part), getattr(both.in_memory, part)
    for name in ("numeric", "categorical", "y"):
        found = by_row(getattr(disk, name), disk.numeric)
        assert np.array_equal(found, by_row(getattr(memory, name), memory.numeric)), name
    assert both.on_disk.schema == both.in_memory.schema
    assert both.on_disk.target_mean == both.in_memory.target_mean


def test_every_block_holds_rows_from_all_over_the_table(both: Both) -> None:
    assert isinstance(both.on_disk.training.numeric, np.memmap)
    ranks = np.argsort(np.argsort(both.on_disk.training.numeric[:, 0]))
    quarters = ranks * 4 // len(ranks)
    for start in range(0, len(ranks) - 64, 64):
        assert np.bincount(quarters[start : start + 64], minlength=4).min() >= 8


def test_validation_rows_keep_the_order_of_their_file(both: Both) -> None:
    table = read_arrow(both.directory.development_file)
    kept = table.column("row").to_numpy()[table.column(SPLIT_COLUMN).to_numpy() == Split.VALIDATION]
    assert (np.diff(both.on_disk.validation.numeric[:, 0]) > 0).all()
    assert (np.diff(kept) > 0).all()


def test_many_validation_rows_are_judged_by_a_sample_in_order(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "JUDGED_ROWS", 50)
    table = read_arrow(both.directory.development_file)
    training, judged = stored_encoding.split_stored(load_encoded(both.directory.encoded), table)
    assert training.num_rows == both.on_disk.training.num_rows
    assert judged.num_rows == 50
    assert (np.diff(judged.numeric[:, 0]) > 0).all()
    every = both.on_disk.validation.numeric[:, 0]
    assert set(judged.numeric[:, 0]) < set(every)
    assert judged.numeric[-1, 0] > np.median(every) > judged.numeric[0, 0]
    # An ensemble is chosen by the same rows.
    rows = data_files.judged_rows(table)
    np.testing.assert_array_equal(load_encoded(both.directory.encoded).y[rows], judged.y)


def trainer_on_shards(both: Both, placement: Any, *, balance: Balance = Balance.NONE) -> Trainer:
    data = both.on_disk
    trainer = Trainer(
        replace(data, balance=class_balance(data.schema, data.training, balance)),
        space_name="mlp",
        objective=METRICS["log_loss"],
        placement=placement,
        max_epochs=4,
        patience=4,
    )
    assert trainer.part.shards is not None
    assert trainer.part.shards.num_rows == both.on_disk.training.num_rows
    return trainer


def trained(trainer: Trainer, values: dict[str, Any], *, state: Path, budget: int) -> list[EpochResult]:
    """Trains a trial, or goes on with it, up to `budget` epochs."""
    curve: list[EpochResult] = []
    trainer.train_trial(
        values,
        known=declare(trainer.space()),
        budget=budget,
        seed=5,
        state=state,
        report=curve.append,
        ask=lambda: Verdict.GO_ON,
    )
    return curve


def test_a_trial_from_disk_learns_and_goes_on_exactly_as_without_the_pause(
    both: Both,
    placement: Any,
    network_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_encoding, "MAX_IN_MEMORY", 0)
    trainer = trainer_on_shards(both, placement)
    num_rows = trainer.data.training.num_rows
    assert trainer.context(rows=num_rows).num_training_rows == num_rows
    # An epoch is a part of the rows where they are many, another one each time.
    monkeypatch.setattr("app.training.trainer.EPOCH_ROWS", num_rows // 2)
    assert trainer.context(rows=num_rows).num_training_rows == num_rows // 2
    values = network_values()
    whole = trained(trainer, values, state=tmp_path / "whole", budget=3)
    trained(trainer, values, state=tmp_path / "paused", budget=1)
    resumed = trained(trainer, values, state=tmp_path / "paused", budget=3)
    assert [result.scalars for result in resumed] == [result.scalars for result in whole]
    assert whole[-1].objective < 0.5


def test_classes_are_balanced_by_the_rows_that_are_drawn_from_disk(
    both: Both,
    placement: Any,
    network_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_encoding, "MAX_IN_MEMORY", 0)
    trainer = trainer_on_shards(both, placement, balance=Balance.OVERSAMPLE)
    curve = trained(trainer, network_values(), state=tmp_path / "state", budget=2)
    # Better than the frequencies of the classes tell.
    shares = np.bincount(both.on_disk.training.y.astype(int)) / both.on_disk.training.num_rows
    assert curve[-1].objective < -(shares * np.log(shares)).sum()
