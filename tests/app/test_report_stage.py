from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from app.config import DataConfig, ExperimentConfig
from app.errors import RunDirectoryError
from app.evaluation.sealed_test import SealedTestReport
from app.execution.messages import EpochEnded, TrialEnded
from app.overview import overview_of
from app.report_stage import board_of, epochs_learned, next_commands, report
from app.run_directory import RunDirectory
from app.search.space import Float, Int, Space
from app.search.trial import Completed, Failed, Paused, Suggestion
from app.search_progress import Search, read_progress
from app.search_record import SearchRecord
from app.view import ConsoleView, SilentView

SEARCH = Search(
    algorithm="random", reason="the <b>reason</b>", objective="roc_auc", max_epochs=9, seed=3, max_trials=None
)


@pytest.fixture
def record(small_run: Any) -> Iterator[SearchRecord]:
    """Three trials: 1 is the best, 2 failed, 0 is paused."""
    made = SearchRecord(small_run.directory, started=time.time())
    made.begin(SEARCH, Space([Int("depth", 1, 4), Float("dropout", 0.0, 0.5)]))
    for trial, losses in enumerate([(-0.7, -0.6), (-0.8, -0.9), (-0.99,)]):
        made.started(Suggestion(trial, {"depth": 1 + trial, "dropout": 0.1}, 0, 9))
        for epoch, loss in enumerate(losses, start=1):
            made.epoch_ended(EpochEnded(trial=trial, epoch=epoch, loss=loss, scalars={}, wall_time=1e9))
    made.trial_ended(TrialEnded(trial=1, outcome=Completed(-0.9), num_parameters=321, seconds=2.5))
    made.trial_ended(TrialEnded(trial=2, outcome=Failed("no memory\nTraceback"), num_parameters=55, seconds=0.5))
    made.trial_ended(TrialEnded(trial=0, outcome=Paused(2), num_parameters=123, seconds=1.5))
    made.stage_done("search", reason="all trials are done")
    made.stage_done("final", trial=1, epochs=7, wanted_epochs=7, parameters=321, seconds=1.0)
    made.stage_done("test", rows=18)
    made.stage_done("export", directory="export/small/1", rows=40, batch_sizes=[1, 2], max_difference=1e-7)
    yield made
    made.close()


def write_report(small_run: Any, record: SearchRecord, tested: SealedTestReport) -> str:
    report(small_run.directory, small_run.config, record=record, tested=tested, view=SilentView())
    return str(small_run.directory.report_file.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("record")
def test_the_leaderboard_comes_from_the_journal(small_run: Any) -> None:
    board = board_of(small_run.directory)
    assert board["trial"].tolist() == [1, 0, 2]
    assert board["value"].tolist()[:2] == [0.9, 0.7]
    assert math.isnan(board["value"].iloc[2])  # a failed trial has no value, whatever it reported before
    assert board["status"].tolist() == ["completed", "paused", "failed"]
    assert board["reason"].tolist() == ["", "", "no memory\nTraceback"]
    assert board["parameters"].tolist() == [321, 123, 55]
    assert board["seconds"].tolist() == [2.5, 1.5, 0.5]
    assert board["epochs"].tolist() == [2, 2, 1]
    assert board["depth"].tolist() == [2, 1, 3]


def test_trials_of_one_value_stand_as_the_search_ranks_them(small_run: Any, record: SearchRecord) -> None:
    for trial, loss in ((3, 0.4), (4, 0.2), (5, 0.3)):
        record.started(Suggestion(trial, {"depth": 4, "dropout": 0.1 * trial}, 0, 9))
        told = EpochEnded(trial=trial, epoch=1, loss=-0.95, scalars={"val/loss": loss}, wall_time=1e9)
        record.epoch_ended(told)
        record.trial_ended(TrialEnded(trial=trial, outcome=Completed(-0.95)))
    assert board_of(small_run.directory)["trial"].tolist() == [4, 5, 3, 1, 0, 2]
    assert [trial.number for trial in record.progress.ranking] == [4, 5, 3, 1, 0]


def test_a_value_is_that_of_the_network_that_was_kept(small_run: Any, record: SearchRecord) -> None:
    """Of epochs that few rows cannot tell apart the log loss chooses one, whose value need not be the best."""
    record.started(Suggestion(3, {"depth": 4, "dropout": 0.2}, 0, 9))
    for epoch, (loss, val_loss) in enumerate([(-0.95, 0.4), (-0.97, 0.6)], start=1):
        scalars = {"val/loss": val_loss, "val/objective_error": 0.05}
        record.epoch_ended(EpochEnded(trial=3, epoch=epoch, loss=loss, scalars=scalars, wall_time=1e9))
    record.trial_ended(TrialEnded(trial=3, outcome=Completed(-0.97), num_parameters=99, seconds=1.0))
    board = board_of(small_run.directory)
    assert (board["trial"].iloc[0], board["value"].iloc[0]) == (3, 0.95)
    assert overview_of(record.progress, with_importance=False).best[-1] == 0.95


def test_a_running_trial_is_on_the_leaderboard(small_run: Any, record: SearchRecord) -> None:
    record.started(Suggestion(3, {"depth": 4, "dropout": 0.2}, 0, 9))
    assert board_of(small_run.directory)["status"].tolist() == ["completed", "paused", "running", "failed"]


def test_there_is_no_leaderboard_before_a_search(small_run: Any) -> None:
    with pytest.raises(RunDirectoryError, match=r"run has no search yet: go on with `tamiz resume .*run`"):
        board_of(small_run.directory)


def test_the_page_tells_data_winner_search_and_test(
    small_run: Any, record: SearchRecord, tested: SealedTestReport
) -> None:
    page = write_report(small_run, record, tested)
    for part in (
        "<title>small</title>",
        "outcome (binary)",
        "Winner: trial 1",
        "321",
        "Leaderboard (3 trials)",
        "random: the &lt;b&gt;reason&lt;/b&gt;",
        "no memory",
        "By roc_auc the model is better than the constant baseline",
        "tamiz board",
    ):
        assert part in page, part
    rows = small_run.data.splits
    assert f"120: {int((rows == 0).sum())} to train" in page


def test_the_report_is_the_last_stage(small_run: Any, record: SearchRecord, tested: SealedTestReport) -> None:
    write_report(small_run, record, tested)
    stages = read_progress(small_run.directory).stages
    assert list(stages) == ["search", "final", "test", "export", "report"]
    assert stages["report"]["seconds"] >= 0


def test_the_result_is_shown(small_run: Any, record: SearchRecord, tested: SealedTestReport) -> None:
    file = io.StringIO()
    view = ConsoleView(Console(file=file, width=80))
    report(small_run.directory, small_run.config, record=record, tested=tested, view=view)
    shown = file.getvalue()
    assert "Sealed test, opened once (18 rows)" in shown
    assert f"SavedModel  {small_run.directory.path}/export/small/1" in shown
    assert f"  tamiz board {small_run.directory.path}" in shown


def test_commands_are_quoted_for_the_shell() -> None:
    config = ExperimentConfig(name="x", data=DataConfig(source="it's new.csv", target="y"))
    board, predict, serve = (one.command for one in next_commands(RunDirectory("my runs/x"), config))
    assert board == "tamiz board 'my runs/x'"
    assert predict == """tamiz predict 'my runs/x' 'it'"'"'s new.csv' --output predictions.parquet"""
    assert serve == "tamiz serve 'my runs/x'"


def test_a_table_from_memory_has_a_placeholder_in_the_command(small_run: Any) -> None:
    commands = next_commands(RunDirectory("r"), small_run.config)
    assert commands[1].command == "tamiz predict r NEW_ROWS.csv --output predictions.parquet"


def test_a_winner_that_stays_as_it_is_learned_for_the_epochs_of_its_trial() -> None:
    final = {"epochs": 0, "wanted_epochs": 9}
    assert epochs_learned(final | {"of_trial": True}) == 9
    assert epochs_learned(final | {"epochs": 5}) == 5
