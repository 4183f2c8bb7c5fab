from __future__ import annotations

from collections.abc import Callable

import pytest

from app.search import (
    Algorithm,
    Completed,
    Ended,
    Fact,
    Failed,
    Float,
    Int,
    Outcome,
    Paused,
    Pruned,
    Reported,
    Space,
    Started,
    Suggestion,
    create,
    plan,
)

LINE = Space([Float("x", 0.0, 1.0)])


def make(max_epochs: int = 9, *, space: Space = LINE, max_trials: int | None = None) -> Algorithm:
    return create("hyperband+random", space=space, seed=0, max_epochs=max_epochs, max_trials=max_trials)


def train(algorithm: Algorithm, suggestion: Suggestion, *, outcome: Outcome | None = None) -> None:
    loss = float(suggestion.hyperparameters["x"])
    top = algorithm.recipe.max_epochs
    end = outcome or (Completed(loss) if suggestion.budget == top else Paused(suggestion.budget))
    facts: list[Fact] = [Started(suggestion), Reported(suggestion.trial, suggestion.budget, loss)]
    algorithm.update([*facts, Ended(suggestion.trial, end)])


def first_rung(algorithm: Algorithm, outcome_of: Callable[[Suggestion], Outcome | None] = lambda _: None) -> None:
    for _ in range(9):
        suggestion = algorithm.suggest(1)[0]
        assert (suggestion.rung, suggestion.budget, suggestion.start_epoch) == (0, 1, 0)
        train(algorithm, suggestion, outcome=outcome_of(suggestion))


@pytest.mark.parametrize(
    ("max_epochs", "eta", "configurations", "epochs", "resumed"),
    [(27, 3, 49, 423, 357), (81, 3, 143, 1902, 1581)],
)
def test_plan_has_the_papers_numbers(max_epochs: int, eta: int, configurations: int, epochs: int, resumed: int) -> None:
    brackets = plan(max_epochs=max_epochs, eta=eta)
    assert sum(bracket.num_trials for bracket in brackets) == configurations
    assert sum(bracket.epochs_from_scratch for bracket in brackets) == epochs
    assert sum(bracket.epochs for bracket in brackets) == resumed


def test_plan_is_the_papers_table_for_81_epochs() -> None:
    table = [[(rung.num_trials, rung.budget) for rung in bracket.rungs] for bracket in plan(max_epochs=81)]
    assert table[0] == [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)]
    assert table[4] == [(5, 81)]


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_budgets_grow_to_the_maximum_for_any_number_of_epochs(eta: int) -> None:
    for max_epochs in range(1, 300):
        for bracket in plan(max_epochs=max_epochs, eta=eta):
            budgets = [rung.budget for rung in bracket.rungs]
            assert budgets == sorted(set(budgets))
            assert budgets[-1] == max_epochs
            assert min(rung.num_trials for rung in bracket.rungs) >= 1


def test_best_third_is_promoted_under_its_number_and_resumes() -> None:
    algorithm = make()
    first_rung(algorithm)
    ranked = sorted(algorithm.history.values(), key=lambda trial: trial.loss or 0.0)
    promoted = algorithm.suggest(5)
    assert [suggestion.trial for suggestion in promoted] == [trial.number for trial in ranked[:3]]
    assert {(s.start_epoch, s.budget, s.rung, s.bracket) for s in promoted} == {(1, 3, 1, 0)}
    for suggestion in promoted:
        train(algorithm, suggestion)
    last = algorithm.suggest(5)
    assert [(s.trial, s.start_epoch, s.budget, s.rung) for s in last] == [(ranked[0].number, 3, 9, 2)]
    train(algorithm, last[0])
    assert {(s.bracket, s.budget, s.start_epoch) for s in algorithm.suggest(5)} == {(1, 3, 0)}


def test_promotion_waits_for_the_whole_rung_without_opening_other_brackets() -> None:
    algorithm = make()
    batch = algorithm.suggest(20)
    assert len(batch) == 9
    algorithm.update(Started(suggestion) for suggestion in batch)
    for suggestion in batch[:-1]:
        train(algorithm, suggestion)
    assert algorithm.suggest(4) == []
    assert not algorithm.is_exhausted
    train(algorithm, batch[-1])
    assert len(algorithm.suggest(4)) == 3


def test_failed_and_pruned_trials_hold_their_place_and_are_never_promoted() -> None:
    algorithm = make()
    ends: dict[int, Outcome] = {number: Failed("crash") for number in range(5)}
    ends[5] = Pruned(1)
    first_rung(algorithm, lambda suggestion: ends.get(suggestion.trial))
    assert {suggestion.trial for suggestion in algorithm.suggest(9)} == {6, 7, 8}


def test_bracket_of_failures_gives_way_to_the_next() -> None:
    algorithm = make()
    first_rung(algorithm, lambda _: Failed("crash"))
    assert {(suggestion.bracket, suggestion.budget) for suggestion in algorithm.suggest(9)} == {(1, 3)}


def test_trial_that_stopped_early_competes_but_is_not_resumed() -> None:
    algorithm = make()
    first_rung(algorithm, lambda suggestion: Completed(-1.0) if suggestion.trial == 8 else None)
    # The early stopper takes one of three places; two trials resume, then the winner of the bracket is already done.
    promoted = algorithm.suggest(9)
    assert len(promoted) == 2
    assert 8 not in {suggestion.trial for suggestion in promoted}
    for suggestion in promoted:
        train(algorithm, suggestion)
    assert {suggestion.bracket for suggestion in algorithm.suggest(9)} == {1}
    assert algorithm.recommend() == 8


def test_promoted_trial_that_fails_does_not_call_up_another() -> None:
    algorithm = make()
    first_rung(algorithm)
    for suggestion in algorithm.suggest(3):
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Failed("crash"))])
    assert {suggestion.bracket for suggestion in algorithm.suggest(9)} == {1}


def test_rung_judged_once_stays_judged_when_a_promoted_trial_starts_anew() -> None:
    algorithm = make()
    first_rung(algorithm)
    promoted = algorithm.suggest(3)
    # The checkpoint was lost: the trial starts again from epoch 0, and its early losses are forgotten for now.
    again = Suggestion(promoted[0].trial, promoted[0].hyperparameters, start_epoch=0, budget=3, rung=1)
    algorithm.update([Started(again)])
    assert algorithm.suggest(9) == promoted[1:]


def test_bracket_of_a_nearly_exhausted_space_is_smaller_but_reaches_the_top() -> None:
    algorithm = make(space=Space([Int("x", 1, 4)]))
    budgets: dict[int, int] = {}
    while suggestions := algorithm.suggest(1):
        budgets[suggestions[0].trial] = suggestions[0].budget
        train(algorithm, suggestions[0])
    assert sorted(budgets.values()) == [1, 1, 1, 9]
    assert algorithm.is_exhausted


def test_one_epoch_is_plain_search() -> None:
    assert [(s.budget, s.bracket) for s in make(1).suggest(4)] == [(1, 0)]
