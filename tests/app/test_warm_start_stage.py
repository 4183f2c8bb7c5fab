from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from app.config import ExperimentConfig
from app.data_files import write_config
from app.errors import ConfigError, RunDirectoryError
from app.execution.messages import EpochEnded, TrialEnded
from app.report_stage import board_of
from app.run_directory import RunDirectory
from app.search.space import Categorical, Float, Int, Space
from app.search.trial import Completed, Suggestion
from app.search_progress import Search, read_progress
from app.search_record import SearchRecord
from app.warm_start_stage import add_result, check_start, earlier_configurations, enqueue

SPACE = Space([Int("depth", 1, 4, default=2), Float("rate", 0.0, 1.0, default=0.5), Categorical("kind", ("a", "b"))])
SEARCH = Search(
    algorithm="random", reason="as asked", objective="accuracy", max_epochs=9, seed=3, max_trials=None
)


def begun(path: Path, *, search: Search = SEARCH, values: tuple[float, ...] = ()) -> RunDirectory:
    """A run whose search has begun, with a completed trial of each accuracy in `values`."""
    directory = RunDirectory(path)
    path.mkdir()
    write_config(directory, ExperimentConfig())
    record = SearchRecord(directory, started=time.time())
    record.begin(search, SPACE)
    for number, value in enumerate(values):
        configuration = {"depth": 1 + number, "rate": number / 8, "kind": "b"}
        record.started(Suggestion(number, configuration, 0, 9))
        scalars = {"val/loss": 1.0}
        record.epoch_ended(EpochEnded(trial=number, epoch=1, loss=-value, scalars=scalars, wall_time=1e9))
        record.trial_ended(TrialEnded(trial=number, outcome=Completed(-value)))
    record.close()
    return directory


def test_what_is_enqueued_is_in_the_journal_with_its_defaults(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run")
    assert enqueue(directory, {"depth": 4}) == {"depth": 4, "rate": 0.5, "kind": "a"}
    enqueue(directory, {"kind": "b"})
    assert read_progress(directory).wishes == [
        {"depth": 4, "rate": 0.5, "kind": "a"},
        {"depth": 2, "rate": 0.5, "kind": "b"},
    ]


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"dept": 1}, "no parameter 'dept'; did you mean 'depth'"),
        ({"depth": 5}, r"'depth'.*1.*4"),
        ({"kind": "c"}, r"'kind'.*'c'"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_name_and_range(
    tmp_path: Path, configuration: dict[str, object], message: str
) -> None:
    directory = begun(tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        enqueue(directory, configuration)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        add_result(directory, configuration, 0.5)  # type: ignore[arg-type]
    assert read_progress(directory).wishes == []
    assert not read_progress(directory).history


def test_an_added_result_is_known_to_the_search_but_is_not_refitted(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run", values=(0.5,))
    assert add_result(directory, {"depth": 3}, 0.9) == 1
    progress = read_progress(directory)
    assert progress.added == {1}
    assert progress.history[1].outcome == Completed(-0.9)
    assert progress.best is not None
    assert progress.best.number == 0
    board = board_of(directory)
    assert list(board["status"]) == ["added", "completed"]
    assert list(board["value"]) == [0.9, 0.5]


def test_a_result_that_is_no_number_is_refused(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run")
    with pytest.raises(ConfigError, match="the value is nan: expected a finite accuracy"):
        add_result(directory, {}, float("nan"))
    with pytest.raises(ConfigError, match=r"the value is '0\.5': expected a finite accuracy"):
        add_result(directory, {}, "0.5")  # type: ignore[arg-type]


def test_a_search_that_is_over_takes_nothing_more(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run", values=(0.5,))
    record = SearchRecord(directory, started=time.time())
    record.stage_done("search", reason="the time is used up")
    record.close()
    with pytest.raises(RunDirectoryError, match=r"the search of .*run is over: start a new one with start_from="):
        enqueue(directory, {"depth": 1})


def test_a_live_experiment_is_not_disturbed(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run")
    with directory.lock(), pytest.raises(RunDirectoryError, match="is locked by a live experiment"):
        enqueue(directory, {"depth": 1})


def test_a_search_that_has_not_begun_has_no_space_yet(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    write_config(directory, ExperimentConfig())
    with pytest.raises(RunDirectoryError, match="has not begun: go on with `tamiz resume`"):
        enqueue(directory, {"depth": 1})


def test_the_best_of_earlier_runs_come_first_in_turn(tmp_path: Path) -> None:
    first = begun(tmp_path / "first", values=(0.1, 0.9, 0.5))
    second = begun(tmp_path / "second", values=(0.2, 0.1))
    found = earlier_configurations([str(first.path), str(second.path)], space=SPACE)
    assert [configuration["depth"] for configuration in found] == [2, 1, 3, 2, 1]


def test_an_earlier_run_needs_a_result(tmp_path: Path) -> None:
    check_start(begun(tmp_path / "with", values=(0.5,)).path)
    with pytest.raises(RunDirectoryError, match="has no trial with a result to start from"):
        check_start(begun(tmp_path / "without").path)
    with pytest.raises(RunDirectoryError):
        check_start(tmp_path / "absent")


def test_of_a_cross_validation_an_added_result_counts_for_all_folds(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run", search=dataclasses.replace(SEARCH, folds=5))
    add_result(directory, {}, 0.75)
    (trial,) = read_progress(directory).history.values()
    assert trial.budget == 5
