from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from app.data_files import read_arrow
from app.evaluation.sealed_test import SealedTestReport
from app.execution.messages import EpochEnded, FinalTrained, TrainFinal, TrialEnded
from app.final_stage import card_text, sample_instance, train_final
from app.run_directory import RunDirectory, write_atomically
from app.search.space import Int, Space
from app.search.trial import Completed, Suggestion
from app.search_progress import Search, read_progress
from app.search_record import SearchRecord
from app.time_budget import TimeBudget
from app.view import ConsoleView
from pipelines.splits import Split


def test_the_sample_is_the_first_validation_row_as_a_request_holds_it(small_run: Any) -> None:
    table = small_run.data.table.filter(small_run.data.splits == Split.VALIDATION)
    first = table.slice(0, 1).to_pylist()[0]
    instance = sample_instance(small_run.directory, small_run.data.schema)
    assert list(instance) == ["size", "shop[1]"]
    assert instance["shop[1]"] == first["shop[1]"]
    np.testing.assert_equal(instance["size"], np.nan if first["size"] is None else first["size"])


def test_the_card_shows_how_to_call_the_model_with_that_row(small_run: Any, tested: SealedTestReport) -> None:
    text = card_text(small_run.directory, small_run.config, tested)
    instance = sample_instance(small_run.directory, small_run.data.schema)
    assert json.dumps({"instances": [instance]}) in text
    assert "saved_model_cli run --dir export/small/1" in text


def test_a_metric_without_interval_leaves_its_cell_empty(small_run: Any, tested: SealedTestReport) -> None:
    text = card_text(small_run.directory, small_run.config, tested)
    assert "| roc\\_auc | 0.9 | 0.8 to 0.97 | 0.5 | 0.89 |" in text
    assert "| brier | 0.1234 |  | 0.25 |  |" in text
    assert "nan" not in text.split("## Inputs")[0].lower()


def test_the_stored_rows_are_all_but_the_sealed_ones(small_run: Any) -> None:
    development, sealed = read_arrow(small_run.directory.development_file), read_arrow(small_run.directory.test_file)
    assert sealed.num_rows == int((small_run.data.splits == Split.TEST).sum())
    assert development.num_rows + sealed.num_rows == 120


@dataclass
class Trainer:
    """Saves a file in place of a model, and keeps what was asked for."""

    directory: RunDirectory
    asked: list[TrainFinal] = field(default_factory=list)

    def call(self, request: Any, *, on_epoch: Callable[[EpochEnded], None] | None = None) -> FinalTrained:  # noqa: ARG002
        self.asked.append(request)
        write_atomically(self.directory.model_file, b"model")
        return FinalTrained(epochs=0, num_parameters=10, seconds=0.0, of_trial=True)


@pytest.mark.parametrize(
    ("kept", "answers", "is_trained"),
    [((0, 1, 2), 2, False), ((0, 1), 1, False), ((), 2, True)],
)
def test_without_time_for_a_training_the_best_network_that_was_kept_answers(
    small_run: Any, kept: tuple[int, ...], answers: int, is_trained: bool
) -> None:
    directory = small_run.directory
    search = Search(algorithm="random", reason="", objective="log_loss", max_epochs=9, seed=1, max_trials=None)
    with contextlib.closing(SearchRecord(directory, started=time.time())) as record:
        record.begin(search, Space([Int("depth", 1, 9)]))
        for number, loss in enumerate((0.6, 0.4, 0.5)):
            record.started(Suggestion(number, {"depth": 1 + number}, 0, 9))
            record.epoch_ended(EpochEnded(trial=number, epoch=1, loss=loss, scalars={}, wall_time=1e9))
            record.trial_ended(TrialEnded(trial=number, outcome=Completed(loss), seconds=100.0))
        for number in kept:
            write_atomically(directory.trial_state(number) / "best", b"weights")
        # The model of the search believes in trial 2.
        record.stage_done("search", reason="the time is used up", winner=2)
        executor, screen = Trainer(directory), io.StringIO()
        budget = TimeBudget(end=time.time() + 60.0, finishing=40.0, refitting=10.0)
        train_final(executor, record=record, budget=budget, view=ConsoleView(Console(file=screen, width=200)))
        (request,) = executor.asked
        assert request.trial == answers
        assert (request.deadline > time.time()) is is_trained
        assert (f"trial {answers} takes its place" in screen.getvalue()) is (answers != 2)
    winner = read_progress(directory).winner
    assert winner is not None
    assert winner.number == answers
