from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

from app.execution.messages import EpochEnded, TrialEnded
from app.run_directory import RunDirectory
from app.search.facts_json import fact_to_json
from app.search.space import Categorical, Int, Space
from app.search.trial import Completed, Ended, Failed, Outcome, Paused, Reported, Started, Suggestion
from app.search_progress import Progress, Search, read_progress
from app.search_record import SearchRecord

SPACE = Space([Int("depth", 1, 4), Categorical("optimizer", ("adamw", "sgd"))])
SEARCH = Search(
    algorithm="random", reason="as asked", objective="accuracy", max_epochs=9, seed=3, max_trials=None
)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


@pytest.fixture
def record(directory: RunDirectory) -> Iterator[SearchRecord]:
    made = SearchRecord(directory, started=time.time())
    made.begin(SEARCH, SPACE)
    yield made
    made.close()


def suggestion(trial: int, *, start_epoch: int = 0, budget: int = 9) -> Suggestion:
    return Suggestion(trial, {"depth": 1 + trial % 4, "optimizer": "sgd"}, start_epoch, budget)


def epoch(trial: int, number: int, loss: float, *, val_loss: float = 0.5) -> EpochEnded:
    return EpochEnded(trial=trial, epoch=number, loss=loss, scalars={"val/loss": val_loss}, wall_time=1e9)


def run_trial(
    record: SearchRecord, number: int, *epochs: tuple[float, float], outcome: Outcome | None = None
) -> None:
    """Each epoch is an objective as a loss and a validation loss."""
    record.started(suggestion(number))
    for index, (loss, val_loss) in enumerate(epochs, start=1):
        record.epoch_ended(epoch(number, index, loss, val_loss=val_loss))
    end = outcome or Completed(min(loss for loss, _ in epochs))
    record.trial_ended(TrialEnded(trial=number, outcome=end, num_parameters=100 + number, seconds=1.5))


def steps(folder: Path, *, tag: str) -> list[int]:
    """Steps at which TensorBoard's own reader finds `tag` in a folder's event files."""
    found = []
    for path in sorted(folder.glob("*tfevents*")):
        reader = PyRecordReader_New(str(path))
        while True:
            try:
                reader.GetNext()
            except errors.OutOfRangeError:
                break
            event = Event.FromString(reader.record())
            found += [event.step for value in event.summary.value if value.tag == tag]
    return found


def test_what_was_recorded_is_read_back(record: SearchRecord, directory: RunDirectory) -> None:
    run_trial(record, 0, (-0.7, 0.6), (-0.8, 0.5))
    run_trial(record, 1, outcome=Failed("no memory"))
    record.started(suggestion(2))
    record.epoch_ended(epoch(2, 1, -0.6))
    record.stage_done("search", reason="all trials are done")
    found = read_progress(directory)
    assert found.facts == record.progress.facts
    assert found.facts == [
        Started(suggestion(0)), Reported(0, 1, -0.7), Reported(0, 2, -0.8), Ended(0, Completed(-0.8)),
        Started(suggestion(1)), Ended(1, Failed("no memory")),
        Started(suggestion(2)), Reported(2, 1, -0.6),
    ]  # fmt: skip
    assert dict(found.history.items()) == dict(record.history.items())
    assert found.parameters == {0: 100, 1: 101}
    assert found.seconds == {0: 1.5, 1: 1.5}
    assert found.search == SEARCH
    assert found.space is not None
    assert found.space.to_json() == SPACE.to_json()
    assert found.stages == {"search": {"reason": "all trials are done"}}
    assert found.best == record.progress.best == found.history[0]


def test_no_journal_is_no_progress(directory: RunDirectory) -> None:
    found = read_progress(directory)
    assert (found.facts, found.search, found.space, found.best, found.spent) == ([], None, None, None, 0.0)


def test_a_space_that_has_grown_is_read_back(record: SearchRecord, directory: RunDirectory) -> None:
    grown = Space([*SPACE.parameters, Int("width", 8, 64)])
    record.grow(grown)
    found = read_progress(directory).space
    assert found is not None
    assert found.names == ("depth", "optimizer", "width")


def test_the_objective_is_not_known_before_the_search_begins(directory: RunDirectory) -> None:
    made = SearchRecord(directory, started=time.time())
    with pytest.raises(RuntimeError, match="the search has not begun"):
        _ = made.objective
    made.begin(SEARCH, SPACE)
    assert made.objective.name == "accuracy"
    made.close()


def test_epochs_told_twice_are_recorded_once(record: SearchRecord, directory: RunDirectory) -> None:
    record.started(suggestion(0))
    assert record.epoch_ended(epoch(0, 1, -0.5))
    assert record.epoch_ended(epoch(0, 2, -0.6))
    # A trial resumed after a crash goes through epochs that the journal has already.
    assert not record.epoch_ended(epoch(0, 1, -0.5))
    assert not record.epoch_ended(epoch(0, 2, -0.6))
    assert record.epoch_ended(epoch(0, 3, -0.7))
    assert read_progress(directory).history[0].curve == ((1, -0.5), (2, -0.6), (3, -0.7))


def test_the_final_training_is_no_trial(record: SearchRecord) -> None:
    event = EpochEnded(trial=None, epoch=1, loss=0.1, scalars={}, wall_time=0.0)
    assert not record.epoch_ended(event)
    assert record.progress.facts == []


def test_the_costs_of_a_resumed_trial_add_up(record: SearchRecord, directory: RunDirectory) -> None:
    run_trial(record, 0, (-0.5, 0.6), outcome=Paused(1))
    record.started(suggestion(0, start_epoch=1))
    record.epoch_ended(epoch(0, 2, -0.7))
    # It died before its network was built again: the number of weights is still known.
    record.trial_ended(TrialEnded(trial=0, outcome=Failed("killed"), num_parameters=0, seconds=2.0))
    found = read_progress(directory)
    assert found.seconds == {0: 3.5}
    assert found.parameters == {0: 100}


def test_trials_with_the_same_objective_are_told_apart_by_the_loss(record: SearchRecord) -> None:
    run_trial(record, 0, (-1.0, 0.30))
    run_trial(record, 1, (-1.0, 0.10))
    run_trial(record, 2, (-1.0, 0.20))
    run_trial(record, 3, (-0.9, 0.01))
    assert record.progress.best is not None
    assert record.progress.best.number == 1


def test_trials_that_are_equal_in_all_are_told_apart_by_their_number(record: SearchRecord) -> None:
    run_trial(record, 0, (-1.0, 0.3))
    run_trial(record, 1, (-1.0, 0.3))
    assert record.progress.best == record.history[0]


def test_epochs_with_the_same_objective_are_told_apart_by_the_loss(record: SearchRecord) -> None:
    run_trial(record, 0, (-0.9, 0.1), (-1.0, 0.4), (-1.0, 0.2), (-1.0, 0.2), (-1.0, 0.3))
    assert record.progress.best_epoch(record.history[0]) == 3


def test_a_loss_that_is_no_number_loses_every_tie(record: SearchRecord, directory: RunDirectory) -> None:
    run_trial(record, 0, (-1.0, math.nan), (-1.0, 0.4))
    run_trial(record, 1, (-1.0, math.inf))
    for progress in (record.progress, read_progress(directory)):
        assert progress.best == progress.history[0]
        assert progress.best_epoch(progress.history[0]) == 2


def test_a_trial_whose_objective_is_no_number_has_failed(record: SearchRecord, directory: RunDirectory) -> None:
    run_trial(record, 0, (-0.9, 0.1), (math.nan, 0.1), outcome=Completed(-0.9))
    run_trial(record, 1, (-0.4, 0.1))
    for progress in (record.progress, read_progress(directory)):
        assert progress.best == progress.history[1]


def test_a_failed_or_running_trial_is_never_the_best(record: SearchRecord) -> None:
    run_trial(record, 0, (-1.0, 0.1), outcome=Failed("no memory"))
    record.started(suggestion(1))
    record.epoch_ended(epoch(1, 1, -1.0))
    assert record.progress.best is None
    run_trial(record, 2, (-0.2, 0.9))
    assert record.progress.best == record.history[2]


def test_time_is_counted_over_sessions() -> None:
    progress = Progress()
    for happened in (
        {"event": "session", "started": 100.0, "time": 103.0},
        {"event": "stage", "stage": "search", "details": {}, "time": 110.0},
        # Killed here; what the first session did after its last record is unknown.
        {"event": "session", "started": 500.0, "time": 501.0},
        {"event": "stage", "stage": "final", "details": {}, "time": 507.0},
    ):
        progress.apply(happened)
    assert progress.spent == 10.0
    progress.close_session()
    assert progress.spent == 17.0
    progress.close_session()
    assert progress.spent == 17.0


def test_a_network_is_built_as_long_as_its_first_epoch_takes_longer_than_the_second() -> None:
    progress = Progress(space=SPACE)
    for number in (0, 1, 2):
        started = fact_to_json(Started(suggestion(number)))
        progress.apply({**started, "time": 1.0})
    progress.apply({"event": "leased", "trials": [0], "worker": "one", "time": 10.0})
    progress.apply({"event": "leased", "trials": [1, 2], "worker": "two", "time": 10.0})
    for epoch, now in ((1, 18.0), (2, 20.0), (3, 29.0)):
        progress.apply_all(
            {"event": "reported", "trial": number, "epoch": epoch, "loss": 0.5, "time": now} for number in (0, 1)
        )
    # Those of a pack share its graph.
    assert [progress.building_seconds(progress.history[number]) for number in (0, 1, 2)] == [6.0, 0.0, 0.0]
    assert progress.first_epoch_seconds() == 8.0


def test_a_clock_set_back_takes_no_time_away() -> None:
    progress = Progress()
    progress.apply({"event": "session", "started": 100.0, "time": 101.0})
    progress.apply({"event": "stage", "stage": "search", "details": {}, "time": 120.0})
    progress.apply({"event": "stage", "stage": "final", "details": {}, "time": 90.0})
    progress.close_session()
    assert progress.spent == 20.0


def test_elapsed_time_holds_earlier_sessions_and_this_one(directory: RunDirectory) -> None:
    first = SearchRecord(directory, started=time.time() - 50.0)
    first.begin(SEARCH, SPACE)
    first.close()
    second = SearchRecord(directory, started=time.time() - 7.0)
    assert second.progress.spent == pytest.approx(50.0, abs=5.0)
    assert second.elapsed() == pytest.approx(second.progress.spent + 7.0, abs=5.0)
    second.close()


def test_a_record_continues_the_journal_of_a_killed_session(directory: RunDirectory) -> None:
    first = SearchRecord(directory, started=time.time())
    first.begin(SEARCH, SPACE)
    run_trial(first, 0, (-0.7, 0.4))
    first.close()
    with directory.journal_file.open("ab") as file:
        file.write(b'{"event": "repor')  # torn by the kill
    second = SearchRecord(directory, started=time.time())
    run_trial(second, 1, (-0.8, 0.4))
    second.close()
    lines = [json.loads(line) for line in directory.journal_file.read_text().splitlines()]
    assert [line["event"] for line in lines].count("session") == 2
    assert [trial.number for trial in read_progress(directory).history.values()] == [0, 1]


def test_tensorboard_files_appear_beside_each_trial(record: SearchRecord, directory: RunDirectory) -> None:
    run_trial(record, 0, (-0.7, 0.6), (-0.8, 0.5))
    run_trial(record, 1, (-0.9, 0.4))
    assert list(directory.trials.glob("*tfevents*"))
    assert steps(directory.trial(0), tag="val/loss") == [1, 2]
    assert steps(directory.trial(1), tag="val/loss") == [1]


def test_the_final_training_has_a_board_of_its_own(record: SearchRecord, directory: RunDirectory) -> None:
    with record.final_board() as board:
        board.scalars(1, {"train/loss": 0.4})
    assert steps(directory.best, tag="train/loss") == [1]


def test_the_portfolio_comes_after_what_somebody_wants(record: SearchRecord, directory: RunDirectory) -> None:
    record.portfolio([{"depth": 1, "optimizer": "sgd"}])
    record.enqueued({"depth": 2, "optimizer": "sgd"})
    record.close()
    progress = read_progress(directory)
    assert progress.wishes == [{"depth": 2, "optimizer": "sgd"}]
    assert progress.portfolio == [{"depth": 1, "optimizer": "sgd"}]
