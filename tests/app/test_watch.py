from __future__ import annotations

import io
import os
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from app.config import ExperimentConfig
from app.data_files import write_config
from app.execution.messages import EpochEnded, PackFailed, TrialEnded
from app.run_directory import RunDirectory
from app.search.space import Float, Space
from app.search.trial import Completed, Paused, Suggestion
from app.search_progress import Search
from app.search_record import SearchRecord
from app.watch import watch

SPACE = Space([Float("rate", 0.0, 1.0)])
SEARCH = Search(
    algorithm="asha", reason="as asked", objective="accuracy", max_epochs=9, seed=3, max_trials=None
)


def run(path: Path, *, num_trials: int, search: Search = SEARCH) -> tuple[RunDirectory, SearchRecord]:
    directory = RunDirectory(path)
    write_config(directory, ExperimentConfig(name="credit"))
    record = SearchRecord(directory, started=time.time())
    record.begin(search, SPACE)
    for number in range(num_trials):
        record.started(Suggestion(number, {"rate": number / num_trials}, 0, 3))
        scalars = {"val/loss": 1.0}
        record.epoch_ended(EpochEnded(trial=number, epoch=3, loss=-number / 10, scalars=scalars, wall_time=1e9))
        outcome = Paused(3) if number % 2 else Completed(-number / 10)
        record.trial_ended(TrialEnded(trial=number, outcome=outcome, seconds=1.0))
    return directory, record


def seen(directory: RunDirectory) -> str:
    console = Console(file=io.StringIO(), width=100)
    watch(directory, console=console, once=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_packs_that_failed_as_a_whole_are_shown_with_the_reason(tmp_path: Path) -> None:
    directory, record = run(tmp_path, num_trials=2)
    assert "packs" not in seen(directory)
    for size in (16, 8):
        record.pack_failed(PackFailed(trials=(4, 5), size=size, reason="out of memory"))
    record.close()
    text = " ".join(seen(directory).replace("│", " ").split())
    assert "failed as a whole 2 times, their trials went on one by one; the last: 8 trials: out of memory" in text


def test_a_running_search_shows_trials_brackets_curve_importance_and_workers(tmp_path: Path) -> None:
    directory, record = run(tmp_path, num_trials=9)
    record.started(Suggestion(1, {"rate": 1 / 9}, 3, 9, rung=1))
    record.leased([1], worker="worker-7")
    with directory.lock():
        text = seen(directory)
    record.close()
    assert "credit" in text
    assert "searching" in text
    assert "5 completed" in text
    assert "accuracy 0.8" in text
    assert "importance" in text
    assert "rate 100%" in text
    assert "worker-7: trial 1, epoch 3 of 9" in text
    assert "promoted" in text
    # The one that goes on has been judged before.
    assert "best so far over 9 trials" in text
    assert "█" in text


def test_budgets_are_told_in_folds_where_these_count(tmp_path: Path) -> None:
    directory, record = run(tmp_path, num_trials=4, search=replace(SEARCH, folds=9))
    record.started(Suggestion(1, {"rate": 0.25}, 3, 9, rung=1))
    record.leased([1], worker="worker-7")
    with directory.lock():
        text = seen(directory)
    record.close()
    assert "worker-7: trial 1, fold 3 of 9" in text
    assert "until fold" in text
    assert "until epoch" not in text


def test_after_a_kill_it_says_how_to_go_on(tmp_path: Path) -> None:
    directory, record = run(tmp_path, num_trials=2)
    record.leased([1], worker="worker-7")
    record.close()
    assert "interrupted while searching: go on with `tamiz resume`" in seen(directory)
    assert "worker-7" not in seen(directory)


def test_a_finished_experiment_is_seen_afterwards(tmp_path: Path) -> None:
    directory, record = run(tmp_path, num_trials=3)
    for stage in ("search", "final", "test", "export", "report"):
        record.stage_done(stage)
    record.close()
    assert "finished: see report.html" in seen(directory)


def test_before_the_search_begins_it_says_so(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    write_config(directory, ExperimentConfig())
    assert "The search has not begun" in seen(directory)


def test_only_a_process_that_lives_makes_a_run_live(tmp_path: Path) -> None:
    directory, record = run(tmp_path, num_trials=1)
    record.close()
    assert not directory.is_live
    with directory.lock():
        assert directory.lock_file.read_text() == str(os.getpid())
        assert directory.is_live
    # This process lives on, but is done with the run.
    assert not directory.is_live
    directory.lock_file.write_text("999999999")
    assert not directory.is_live
