from __future__ import annotations

import numpy as np

from app.search import Completed, Ended, Fact, Failed, History, Outcome, Paused, Pruned, Reported, Started, Suggestion
from app.search.observations import observe, observe_rung, observe_rungs


def told(number: int, curve: dict[int, float], outcome: Outcome, budget: int) -> list[Fact]:
    reports = [Reported(number, epoch, loss) for epoch, loss in curve.items()]
    return [Started(Suggestion(number, {"x": 1}, 0, budget)), *reports, Ended(number, outcome)]


HISTORY = History().applied(
    [
        *told(0, {1: 5.0, 3: 4.0}, Paused(3), 3),
        *told(1, {1: 3.0}, Paused(1), 1),
        *told(2, {1: 6.0, 3: 3.5, 9: 1.0}, Completed(1.0), 9),
        *told(3, {1: 9.0}, Failed("lost"), 9),
        *told(4, {1: 4.0, 2: 2.0}, Completed(2.0), 9),
        Started(Suggestion(5, {"x": 1}, 0, 9)),
        *told(6, {}, Pruned(0), 9),
    ]
)


def test_every_ended_trial_counts_at_its_own_budget() -> None:
    observed = observe(HISTORY.values())
    assert [trial.number for trial in observed.trials] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(observed.losses, [4.0, 3.0, 1.0, np.nan, 2.0])
    np.testing.assert_array_equal(observed.budgets, [3, 1, 9, 9, 9])
    assert observed.num_known == 4
    assert [trial.number for trial in observed.failed] == [3]
    assert [trial.number for trial in observed.known.trials] == [0, 1, 2, 4]


def test_rung_is_the_largest_budget_that_enough_trials_reached() -> None:
    # At three epochs: the completed trial by its curve there, the one that stopped early by its final loss.
    observed = observe_rung(HISTORY.values(), least=3)
    assert [trial.number for trial in observed.trials] == [0, 2, 3, 4]
    np.testing.assert_array_equal(observed.losses, [4.0, 3.5, np.nan, 2.0])
    assert [trial.number for trial in observe_rung(HISTORY.values(), least=2).trials] == [2, 3, 4]


def test_smallest_budget_serves_when_too_few_reached_any() -> None:
    observed = observe_rung(HISTORY.values(), least=99)
    np.testing.assert_array_equal(observed.losses, [5.0, 3.0, 6.0, np.nan, 4.0])


def test_all_rungs_hold_what_went_on_from_them_too() -> None:
    observed = observe_rungs(HISTORY.values())
    found = [(t.number, b, v) for t, b, v in zip(observed.trials, observed.budgets, observed.losses, strict=True)]
    expected = [(0, 1, 5.0), (0, 3, 4.0), (1, 1, 3.0), (2, 1, 6.0), (2, 3, 3.5), (2, 9, 1.0)]
    # The fourth ended at epoch 2 of 9: what it would have been at 3 is its final loss, which is there already.
    assert [entry for entry in found if entry[0] != 3] == [*expected, (4, 1, 4.0), (4, 9, 2.0)]
    assert [trial.number for trial in observed.failed] == [3]
