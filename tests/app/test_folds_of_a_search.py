"""Cross-validation outside the workers: data stage, settings, journal, leaderboard, what is said."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from app.arguments import SearchArguments, experiment_config
from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_files import FOLD_COLUMN, read_arrow, write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.errors import ConfigError
from app.evaluation.leaderboard import leaderboard_table
from app.evaluation.metrics import METRICS, Objective
from app.execution.messages import EpochEnded, RunOpened, TrialEnded
from app.fold_choice import FoldChoice
from app.goals import SearchGoals
from app.report_stage import board_of
from app.run_directory import RunDirectory, read_json
from app.search.space import Int, Space
from app.search.trial import Completed, History, Outcome, Pruned, Resource, Started, Suggestion
from app.search_loop import SearchView
from app.search_progress import Search, read_progress
from app.search_record import SearchRecord
from app.search_stage import fold_choice_of
from app.summary import search_begins
from app.view import ConsoleView
from pipelines.errors import DataError
from pipelines.splits import ALWAYS_TRAINS, Split, fold_rows

FOLDS = 3
SEARCH = Search(
    algorithm="random", reason="as asked", objective="log_loss", max_epochs=9, seed=3, max_trials=None, folds=FOLDS
)
SPACE = Space([Int("depth", 1, 4)])


def config(**changes: Any) -> ExperimentConfig:
    data = DataConfig(target="y", **{k: v for k, v in changes.items() if k in ("group", "time_column")})
    search = SearchConfig(**{k: v for k, v in changes.items() if k in ("folds", "seconds", "trials")})
    return ExperimentConfig(data=data, search=search)


def table(num_rows: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = np.array(["no", "yes"])[np.arange(num_rows) % 2]
    return pd.DataFrame(
        {"x": rng.normal(size=num_rows), "day": np.arange(num_rows), "who": np.arange(num_rows) // 4, "y": y}
    )


def test_a_small_table_is_dealt_to_folds_that_leave_the_sealed_rows_out(tmp_path: Path) -> None:
    settings = config()
    data = prepare_data(read_source(table(), settings), settings)
    assert data.fold_choice.number == 5
    sealed = data.splits == Split.TEST
    assert (data.folds[sealed] == ALWAYS_TRAINS).all()
    assert set(data.folds[~sealed]) == set(range(5))
    # The final model is trained on all open rows, and so is what its preprocessing knows.
    assert data.preprocessing.num_rows == int((~sealed).sum())
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    write_data(data, settings, directory=directory)
    written = read_arrow(directory.development_file).column(FOLD_COLUMN).to_numpy()
    np.testing.assert_array_equal(written, data.folds[~sealed])
    assert fold_choice_of(directory) == data.fold_choice


def test_one_part_leaves_everything_as_it_was(tmp_path: Path) -> None:
    settings = config(folds=1)
    data = prepare_data(read_source(table(), settings), settings)
    assert data.preprocessing.num_rows == int((data.splits == Split.TRAIN).sum())
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    write_data(data, settings, directory=directory)
    assert FOLD_COLUMN not in read_arrow(directory.development_file).column_names
    assert fold_choice_of(directory).number == 1
    manifest = read_json(directory.manifest_file)
    del manifest["data"]["folds"]  # as an earlier version wrote it
    directory.manifest_file.write_text(json.dumps(manifest))
    assert fold_choice_of(directory).number == 1


def test_folds_keep_groups_together_and_windows_in_order() -> None:
    settings = config(group="who")
    data = prepare_data(read_source(table(), settings), settings)
    assert all(len(set(data.folds[np.arange(240) // 4 == who])) == 1 for who in range(60))
    settings = config(time_column="day", folds=3)
    data = prepare_data(read_source(table(), settings), settings)
    open_rows = data.folds[data.splits != Split.TEST]
    for fold in range(3):
        training, held_out = fold_rows(open_rows, fold, in_time=True)
        assert training.max() < held_out.min()


def test_rows_that_allow_no_folds_are_judged_on_one_part_unless_folds_were_asked_for() -> None:
    few_groups = table().assign(who=lambda frame: frame.index // 60)
    settings = config(group="who")
    data = prepare_data(read_source(few_groups, settings), settings)
    assert data.fold_choice.number == 1
    assert data.fold_choice.reason.startswith("no folds: Expected enough rows")
    settings = config(group="who", folds=5)
    with pytest.raises(DataError, match=r"each of 5 folds, but \d groups in 'who' leave one empty; ask for fewer"):
        prepare_data(read_source(few_groups, settings), settings)


@pytest.mark.parametrize("folds", [-1, 11])
def test_an_impossible_number_of_folds_is_refused(folds: int) -> None:
    message = rf"folds is {folds}: expected 2 to 10, 1 for one validation part, or 0"
    with pytest.raises(ConfigError, match=message):
        SearchConfig(folds=folds)


def test_folds_come_from_the_command_line_or_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[search]\nfolds = 4\n")
    assert experiment_config(SearchArguments(target="y"), base=file).search.folds == 4
    assert experiment_config(SearchArguments(target="y", folds=0), base=file).search.folds == 0
    assert experiment_config(SearchArguments(target="y", folds=1)).search.folds == 1


def told(trial: int, fold: int, mean: float, *, value: float, best_epoch: int = 4, epochs: int = 7) -> EpochEnded:
    scalars = {
        "val/loss": mean,
        "fold/value": value,
        "fold/best_epoch": float(best_epoch),
        "fold/epochs": float(epochs),
    }
    return EpochEnded(trial=trial, epoch=fold, loss=mean, scalars=scalars, wall_time=1e9)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A search whose second trial left after a first fold better than any mean."""
    made = RunDirectory(tmp_path)
    record = SearchRecord(made, started=time.time())
    record.begin(SEARCH, SPACE)
    trials: list[tuple[list[float], Outcome]] = [
        ([0.4, 0.2, 0.6], Completed(0.4)),
        ([0.1], Pruned(1)),
        ([0.3, 0.3, 0.3], Completed(0.3)),
    ]
    for number, (values, outcome) in enumerate(trials):
        record.started(Suggestion(number, {"depth": 1 + number}, 0, FOLDS))
        for fold, value in enumerate(values, start=1):
            inside = EpochEnded(trial=number, epoch=1, loss=9.0, scalars={"val/loss": 9.0}, wall_time=1e9, fold=fold)
            assert not record.epoch_ended(inside)
            mean = sum(values[:fold]) / fold
            assert record.epoch_ended(told(number, fold, mean, value=value, best_epoch=2 * fold + number))
        record.trial_ended(TrialEnded(trial=number, outcome=outcome, num_parameters=9, seconds=1.5))
    record.close()
    return made


def test_the_journal_ranks_whole_cross_validations_first(directory: RunDirectory) -> None:
    progress = read_progress(directory)
    assert progress.history.resource is Resource.FOLDS
    assert [trial.number for trial in progress.ranking] == [2, 0, 1]
    assert progress.best is not None
    assert progress.best.number == 2
    assert [trial.epochs for trial in progress.history.values()] == [3, 1, 3]


def test_the_final_training_takes_the_median_of_the_best_epochs(directory: RunDirectory) -> None:
    progress = read_progress(directory)
    trial = progress.history[2]
    assert progress.best_epoch(trial) == 6  # of 4, 6, 8
    assert progress.epochs_trained(trial) == 21
    assert progress.spread(trial) == pytest.approx(0.0)
    assert progress.spread(progress.history[0]) == pytest.approx(np.std([0.4, 0.2, 0.6], ddof=1) / np.sqrt(3))
    assert progress.spread(progress.history[1]) is None


def test_the_leaderboard_has_the_mean_its_standard_error_and_the_folds(directory: RunDirectory) -> None:
    board = board_of(directory)
    assert list(board.columns[:5]) == ["trial", "value", "spread", "folds", "epochs"]
    assert list(board["trial"]) == [2, 0, 1]
    assert list(board["folds"]) == [3, 3, 1]
    assert list(board["epochs"]) == [21, 21, 7]
    console = Console(file=io.StringIO(), width=100)
    console.print(leaderboard_table(board, metric=METRICS["log_loss"], width=100))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "std. error" in text
    assert "± 0.1155" in text


def test_the_running_trial_counts_folds() -> None:
    history = History(resource=Resource.FOLDS).applied([Started(Suggestion(0, {"depth": 1}, 0, FOLDS))])
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with ConsoleView(console).searching(seconds=60.0) as show:
        show(SearchView(history=history, best=None, seconds_left=50.0, max_trials=None))
    assert isinstance(console.file, io.StringIO)
    assert "fold 0 of 3" in console.file.getvalue()


def test_what_was_known_is_not_written_again_after_a_kill(directory: RunDirectory) -> None:
    before = read_progress(directory)
    record = SearchRecord(directory, started=time.time())
    record.started(Suggestion(3, {"depth": 1}, 0, FOLDS))
    assert record.epoch_ended(told(3, 1, 0.5, value=0.5))
    assert not record.epoch_ended(told(3, 1, 0.5, value=0.5))
    record.close()
    assert len(read_progress(directory).facts) == len(before.facts) + 2


@pytest.mark.parametrize(
    ("folds", "choice", "said"),
    [
        (5, FoldChoice(number=5, reason="so small"), "5 folds of the training and validation rows: so small"),
        (1, FoldChoice(number=1, reason="no time"), "validation rows: no time"),
        (1, FoldChoice(number=1, reason="many rows", is_worth_saying=False), None),
    ],
)
def test_the_head_of_a_search_says_how_trials_are_judged_and_why(
    folds: int, choice: FoldChoice, said: str | None
) -> None:
    console = Console(file=io.StringIO(), width=200)
    objective = Objective(METRICS["log_loss"], "as asked")
    search = dataclasses.replace(SEARCH, folds=folds)
    opened = RunOpened(space=SPACE, devices="CPU", num_replicas=1)
    console.print(
        search_begins(
            search, SPACE, goals=SearchGoals(objective=objective), opened=opened, space_name="mlp", folds=choice
        )
    )
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert (said in text) if said else ("judged on" not in text)
    assert f"9 epochs a {'fold' if folds > 1 else 'trial'}" in text
