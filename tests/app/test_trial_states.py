from __future__ import annotations

from pathlib import Path

import pytest

from app import trial_states
from app.run_directory import RunDirectory
from app.search.trial import Completed, Ended, Fact, History, Paused, Reported, Started, Suggestion, Trial
from app.trial_states import TrialStates, ensemble_parts


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def write_state(directory: RunDirectory, number: int, *, folds: int = 0) -> None:
    state = directory.trial_state(number)
    for folder in [state / f"fold-{fold}" for fold in range(1, folds + 1)] or [state]:
        folder.mkdir(parents=True)
        for name in ("best", "predictions", "current" if not folds else "finished"):
            (folder / name).write_bytes(b"x" * 100)


def searched(directory: RunDirectory, losses: list[float], *, paused: tuple[int, ...] = ()) -> History:
    facts: list[Fact] = []
    for number, loss in enumerate(losses):
        write_state(directory, number)
        bracket = 0 if number in paused else 1
        outcome = Paused(1) if number in paused else Completed(loss)
        facts += [
            Started(Suggestion(number, {"x": 1.0}, 0, 9, bracket=bracket)),
            Reported(number, 1, loss),
            Ended(number, outcome),
        ]
    return History().applied(facts)


def ranked(history: History) -> list[Trial]:
    return sorted(history.values(), key=lambda trial: (trial.loss or 0.0, trial.number))


def files(directory: RunDirectory) -> dict[int, list[str]]:
    return {
        int(state.parent.name): sorted(path.name for path in state.rglob("*") if path.is_file())
        for state in sorted(directory.trials.glob("*/state"))
    }


WHOLE, REDUCED = ["best", "current", "predictions"], ["best", "predictions"]


def test_the_best_keep_all_the_good_what_an_ensemble_needs_and_losers_nothing(directory: RunDirectory) -> None:
    history = searched(directory, [0.5, 0.1, 0.4, 0.2, 0.3])
    states = TrialStates(directory, known=history, keep=1, pool=3)
    states.delete_losers(history, running=(), ranking=ranked(history))
    assert files(directory) == {1: WHOLE, 3: REDUCED, 4: REDUCED}
    states.delete_pool(ranked(history))
    assert files(directory) == {1: WHOLE}


def test_without_a_pool_only_the_best_stay(directory: RunDirectory) -> None:
    history = searched(directory, [0.5, 0.1, 0.4])
    TrialStates(directory, known=history, keep=2).delete_losers(history, running=(), ranking=ranked(history))
    assert files(directory) == {1: WHOLE, 2: WHOLE}


def test_the_running_are_left_alone_and_the_paused_of_an_old_bracket_reduced(directory: RunDirectory) -> None:
    history = searched(directory, [0.1, 0.2, 0.3, 0.4], paused=(1,))
    states = TrialStates(directory, known=history, keep=1, pool=2)
    states.delete_losers(history, running={3}, ranking=ranked(history))
    assert files(directory) == {0: WHOLE, 1: REDUCED, 3: WHOLE}


def test_the_pool_is_bounded_in_bytes(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    history = searched(directory, [0.1, 0.2, 0.3, 0.4])
    monkeypatch.setattr(trial_states, "POOL_BYTES", 450)
    TrialStates(directory, known=history, keep=1, pool=4).delete_losers(history, running=(), ranking=ranked(history))
    assert files(directory) == {0: WHOLE, 1: REDUCED, 2: REDUCED}


def test_what_no_trial_left_behind_is_removed(directory: RunDirectory) -> None:
    write_state(directory, 7)
    TrialStates(directory, known=(), keep=3)
    assert files(directory) == {}


def test_the_folds_of_a_state_are_its_parts_in_order(directory: RunDirectory) -> None:
    write_state(directory, 0, folds=11)
    state = directory.trial_state(0)
    assert [part.name for part in ensemble_parts(state)] == [f"fold-{fold}" for fold in range(1, 12)]
    write_state(directory, 1)
    assert ensemble_parts(directory.trial_state(1)) == [directory.trial_state(1)]
