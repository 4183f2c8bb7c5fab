from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_files import FOLD_COLUMN, SPLIT_COLUMN, read_arrow, write_data
from app.data_source import read_source
from app.data_stage import PreparedData, prepare_data
from app.encoded_rows import save_encoded
from app.ensemble_size import max_members
from app.ensemble_stage import compose, held_out_candidates
from app.evaluation.baselines import EncodedRows
from app.evaluation.metrics import METRICS
from app.evaluation.predictions import Predictions
from app.execution.messages import EnsembleSaved, EpochEnded, SaveEnsemble, TrialEnded
from app.goals import read_limit
from app.report_stage import board_of, ensemble_weights
from app.run_directory import RunDirectory
from app.search.limits import LATENCY, PARAMETERS
from app.search.space import Int, Space
from app.search.trial import Completed, Suggestion
from app.search_progress import Search, read_progress
from app.search_record import SearchRecord
from app.time_budget import TimeBudget
from app.training.kept_predictions import keep_predictions
from app.view import ConsoleView
from pipelines.raw_columns import encode_target
from pipelines.schema import Task
from pipelines.splits import Split

NUM_TRIALS = 6
NO_LIMIT = TimeBudget(end=math.inf, finishing=0.0)
SEARCH = Search(algorithm="random", reason="as asked", objective="log_loss", max_epochs=9, seed=3, max_trials=None)


@dataclass
class SavingExecutor:
    """Saves nothing, and says how fast a graph of so many networks of 1 ms each would be."""

    most: int = 99
    damaged: int = 0
    asked: list[SaveEnsemble] = field(default_factory=list)

    def call(self, request: Any, *, on_epoch: Callable[[EpochEnded], None] | None = None) -> EnsembleSaved:  # noqa: ARG002
        self.asked.append(request)
        members = tuple(member.trial for member in request.members)
        # It is asked again for those that it has.
        broken = members[len(members) - self.damaged :] if len(self.asked) == 1 else ()
        trials = tuple(trial for trial in members if trial not in broken)[: self.most]
        networks = max(1, len(request.members))
        measures = {LATENCY: 1.0 * networks, PARAMETERS: 100.0 * networks}
        kept = {name: measures[name] for name in (*request.measure, PARAMETERS)}
        return EnsembleSaved(
            trials=trials, num_networks=networks, num_parameters=100 * networks, measures=kept, broken=broken
        )


@dataclass(frozen=True)
class Prepared:
    """A run directory with its data, before the search; its trials are judged on 60 validation rows."""

    directory: RunDirectory
    config: ExperimentConfig
    data: PreparedData


def prepare(path: Path, *, folds: int) -> Prepared:
    rng = np.random.default_rng(0)
    size = rng.normal(size=400)
    frame = pd.DataFrame({"size": size, "outcome": np.where(size + rng.normal(size=400) > 0, "high", "low")})
    config = ExperimentConfig(
        name="small", data=DataConfig(target="outcome"), search=SearchConfig(seconds=0, trials=9, folds=folds)
    )
    data = prepare_data(read_source(frame, config), config)
    directory = RunDirectory(path)
    with directory.staged() as staged:
        write_data(data, config, directory=staged)
    return Prepared(directory, config, data)


@pytest.fixture
def small_run(tmp_path: Path) -> Prepared:
    return prepare(tmp_path / "run", folds=1)


@pytest.fixture
def searched(small_run: Any) -> Iterator[Callable[..., SearchRecord]]:
    """A search whose trials all know the truth, each with noise of its own; trial 0 is the winner."""
    records: list[SearchRecord] = []

    def made(*, noise: float = 2.5, **changes: Any) -> SearchRecord:
        directory, schema = small_run.directory, small_run.data.schema
        table = read_arrow(directory.development_file)
        y = encode_target(table, schema.target)
        nothing = np.zeros((len(y), 0))
        save_encoded(EncodedRows(numeric=nothing, categorical=nothing.astype(int), y=y), directory.encoded)
        held_out = np.flatnonzero(table.column(SPLIT_COLUMN).to_numpy() == Split.VALIDATION)
        record = SearchRecord(directory, started=time.time())
        records.append(record)
        record.begin(replace(SEARCH, **changes), Space([Int("depth", 1, 9)]))
        rng = np.random.default_rng(0)
        for trial in range(NUM_TRIALS):
            logit = 3.0 * (y[held_out] - 0.5) + rng.normal(0.0, noise + 0.02 * trial, len(held_out))
            positive = 1.0 / (1.0 + np.exp(-logit))
            probabilities = np.stack([1.0 - positive, positive], axis=1)
            predictions = Predictions(task=Task.BINARY, y=y[held_out], probabilities=probabilities)
            loss = METRICS["log_loss"].value(predictions)
            keep_predictions(directory.trial_state(trial), predictions, class_weights=())
            (directory.trial_state(trial) / "best").write_bytes(b"weights")
            record.started(Suggestion(trial, {"depth": 1 + trial}, 0, 9))
            record.epoch_ended(EpochEnded(trial=trial, epoch=1, loss=loss, scalars={}, wall_time=1e9))
            record.trial_ended(TrialEnded(trial=trial, outcome=Completed(loss), num_parameters=100, seconds=1.0))
        record.stage_done("search", reason="all trials are done", winner=record.progress.ranking[0].number)
        return record

    yield made
    for record in records:
        record.close()


def composed(small_run: Any, record: SearchRecord, *, executor: SavingExecutor, ensemble: int = 0) -> str:
    """What is said, in one line."""
    config = replace(small_run.config, search=replace(small_run.config.search, ensemble=ensemble))
    file = io.StringIO()
    view = ConsoleView(Console(file=file, width=400))
    compose(small_run.directory, config, executor=executor, record=record, budget=NO_LIMIT, view=view)
    return file.getvalue().splitlines()[0].strip()


def test_several_trials_answer_together_and_the_line_has_the_figures(small_run: Any, searched: Any) -> None:
    record, executor = searched(), SavingExecutor()
    winner = record.progress.ranking[0].number
    told = composed(small_run, record, executor=executor)
    decided = read_progress(small_run.directory).stages["ensemble"]
    assert len(decided["members"]) > 1
    assert sum(decided["members"].values()) == pytest.approx(1.0, abs=1e-4)
    assert decided["value"] < decided["single_value"] == pytest.approx(record.progress.ranking[0].loss)
    assert decided["networks"] == len(decided["members"])
    assert f"{len(decided['members'])} trials answer together: validation log_loss" in told
    assert f"of the winner, trial {winner}, alone." in told
    request = executor.asked[-1]
    assert request.winner == winner
    assert request.members[0].hyperparameters == {"depth": 1 + request.members[0].trial}
    assert 0.2 < request.temperature == decided["temperature"] < 5.0
    board = board_of(small_run.directory)
    assert dict(zip(board["trial"], board["weight"], strict=True)) == {
        trial: decided["members"].get(str(trial), 0.0) for trial in board["trial"]
    }
    assert ensemble_weights(read_progress(small_run.directory)) == {int(t): w for t, w in decided["members"].items()}
    kept = {int(state.parent.name) for state in small_run.directory.trials.glob("*/state")}
    assert kept == {trial.number for trial in record.progress.ranking[: small_run.config.keep]}
    # What was decided stays decided when the rest is resumed.
    compose(
        small_run.directory, small_run.config, executor=executor, record=record, budget=NO_LIMIT,
        view=ConsoleView(Console(file=io.StringIO())),
    )  # fmt: skip
    assert len(executor.asked) == 1


def test_an_ensemble_over_the_latency_limit_loses_members_until_it_keeps_it(small_run: Any, searched: Any) -> None:
    record, executor = searched(limits=(read_limit("latency_ms<=2.5"),)), SavingExecutor()
    told = composed(small_run, record, executor=executor)
    assert "trials has a latency of" in told
    assert "over the limit latency <= 2.5 ms: 2 of them stay (2 ms), with validation log_loss" in told
    decided = read_progress(small_run.directory).stages["ensemble"]
    assert (len(decided["members"]), decided["networks"]) == (2, 2)
    assert [member.trial for member in executor.asked[-1].members] == [int(trial) for trial in decided["members"]]


def test_a_limit_that_no_ensemble_keeps_leaves_the_winner(small_run: Any, searched: Any) -> None:
    record, executor = searched(limits=(read_limit("num_parameters<=150"),)), SavingExecutor()
    told = composed(small_run, record, executor=executor)
    winner = record.progress.ranking[0].number
    assert told.endswith(f"over the limit parameters <= 150: the winner, trial {winner}, answers alone.")
    assert executor.asked[-1].members == ()
    assert read_progress(small_run.directory).stages["ensemble"]["members"] == {}
    assert "weight" not in board_of(small_run.directory)


def test_members_that_there_is_no_time_for_are_left_out(small_run: Any, searched: Any) -> None:
    record, executor = searched(), SavingExecutor(most=2)
    told = composed(small_run, record, executor=executor)
    assert told.startswith("2 trials answer together: validation log_loss")
    assert "There was no time to build" in told
    assert len(read_progress(small_run.directory).stages["ensemble"]["members"]) == 2


def test_members_whose_files_are_damaged_are_told_apart_from_lack_of_time(small_run: Any, searched: Any) -> None:
    executor = SavingExecutor(damaged=1)
    told = composed(small_run, searched(), executor=executor)
    full = len(executor.asked[0].members)
    assert f"1 of {full} members could not be built again (the worker's log says why)." in told
    assert "no time" not in told
    assert len(executor.asked[-1].members) == full - 1


def test_without_time_for_two_the_winner_answers_alone(small_run: Any, searched: Any) -> None:
    told = composed(small_run, searched(), executor=SavingExecutor(most=1))
    assert told.endswith("is exported alone: there was no time to build an ensemble.")


def test_one_member_is_the_winner_with_a_temperature(small_run: Any, searched: Any) -> None:
    record, executor = searched(noise=6.0), SavingExecutor()
    told = composed(small_run, record, executor=executor, ensemble=1)
    assert told == f"The winner, trial {record.progress.ranking[0].number}, is exported alone: as asked."
    assert executor.asked[-1].members == ()
    assert executor.asked[-1].single_temperature > 1.2


def test_an_average_that_is_no_better_is_not_exported(small_run: Any, searched: Any) -> None:
    record = searched(noise=0.0)
    for trial in range(1, NUM_TRIALS):
        first = small_run.directory.trial_state(record.progress.ranking[0].number) / "predictions"
        (small_run.directory.trial_state(trial) / "predictions").write_bytes(first.read_bytes())
    told = composed(small_run, record, executor=SavingExecutor())
    assert told.endswith("no average of 6 trials is better on the validation rows.")


def test_a_search_with_several_objectives_exports_one_network_of_its_front(small_run: Any, searched: Any) -> None:
    told = composed(small_run, searched(others=("latency_ms",)), executor=SavingExecutor())
    assert told.endswith("an average has no place on a front of single networks.")


def test_a_winner_whose_answers_were_not_kept_is_exported_alone(small_run: Any, searched: Any) -> None:
    record, executor = searched(), SavingExecutor()
    (small_run.directory.trial_state(record.progress.ranking[0].number) / "predictions").unlink()
    told = composed(small_run, record, executor=executor)
    assert told.endswith("what it answered on the rows that judged it was not kept.")
    assert executor.asked[-1].single_temperature == 1.0


def test_what_was_tested_already_is_exported_as_it_is(small_run: Any, searched: Any) -> None:
    record, executor = searched(), SavingExecutor()
    record.stage_done("test", rows=60)
    view = ConsoleView(Console(file=io.StringIO()))
    compose(small_run.directory, small_run.config, executor=executor, record=record, budget=NO_LIMIT, view=view)
    assert executor.asked == []


def test_the_candidates_are_those_whose_answers_fit_the_rows(small_run: Any, searched: Any) -> None:
    searched()
    state = small_run.directory.trial_state(2)
    predictions = Predictions(task=Task.BINARY, y=np.array([0, 1]), probabilities=np.full((2, 2), 0.5))
    keep_predictions(state, predictions, class_weights=())
    candidates = held_out_candidates(small_run.directory, dict.fromkeys([0, 1, 2, 77]))
    assert list(candidates) == [0, 1]
    assert candidates[0].predictions.num_rows == int((small_run.data.splits == Split.VALIDATION).sum())


def test_the_answers_of_all_folds_together_are_those_of_one_trial(tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", folds=4)
    table = read_arrow(run.directory.development_file)
    y, folds = encode_target(table, run.data.schema.target), table.column(FOLD_COLUMN).to_numpy()
    nothing = np.zeros((len(y), 0))
    save_encoded(EncodedRows(numeric=nothing, categorical=nothing.astype(int), y=y), run.directory.encoded)
    positive = np.random.default_rng(1).random(len(y))
    for fold in range(4):
        held_out = folds == fold
        predictions = Predictions(
            task=Task.BINARY,
            y=y[held_out],
            probabilities=np.stack([1.0 - positive, positive], axis=1)[held_out],
        )
        keep_predictions(run.directory.trial_state(0) / f"fold-{fold + 1}", predictions, class_weights=(1.0, 4.0))
    found = held_out_candidates(run.directory, {0: None})[0]
    order = np.concatenate([np.flatnonzero(folds == fold) for fold in range(4)])
    assert found.predictions.probabilities is not None
    np.testing.assert_allclose(found.predictions.probabilities[:, 1], positive[order], rtol=1e-6)
    np.testing.assert_array_equal(found.predictions.y, y[order])
    np.testing.assert_array_equal(found.predictions.predicted_labels, 4.0 * positive[order] > 1.0 - positive[order])
    # A trial that has not seen all folds is no candidate.
    (run.directory.trial_state(0) / "fold-4" / "predictions").unlink()
    assert held_out_candidates(run.directory, {0: None}) == {}


@pytest.mark.parametrize(
    ("asked", "objectives", "folds", "expected"),
    [(0, 1, 1, 8), (0, 2, 1, 1), (3, 2, 1, 3), (0, 1, 5, 4), (0, 1, 10, 2), (32, 1, 1, 20), (1, 1, 5, 1)],
)
def test_how_many_may_answer_together(asked: int, objectives: int, folds: int, expected: int) -> None:
    assert max_members(asked, num_objectives=objectives, num_folds=folds) == expected
