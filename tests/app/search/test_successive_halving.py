from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import final

import numpy as np
import pytest

from app.search import (
    Algorithm,
    Completed,
    Configuration,
    Ended,
    Fact,
    Failed,
    Float,
    History,
    Int,
    Outcome,
    Paused,
    Pruned,
    Reported,
    Space,
    Started,
    Suggestion,
    create,
    density_ratio,
    evolution,
    gaussian_process,
)
from app.search.algorithm import LEARNING
from app.search.sampler import Sampler
from app.search.successive_halving import FULL_SHARE, SuccessiveHalving
from app.search.warm_start import WishesFirst

LINE = Space([Float("x", 0.0, 1.0)])


def make(max_epochs: int = 9, *, space: Space = LINE, max_trials: int | None = None, eta: int = 3) -> Algorithm:
    return create("asha+random", space=space, seed=0, max_epochs=max_epochs, max_trials=max_trials, eta=eta)


def finish(algorithm: Algorithm, suggestion: Suggestion, *, loss: float, outcome: Outcome | None = None) -> None:
    top = algorithm.recipe.max_epochs
    end = outcome or (Completed(loss) if suggestion.budget == top else Paused(suggestion.budget))
    algorithm.update([Reported(suggestion.trial, suggestion.budget, loss), Ended(suggestion.trial, end)])


def train(algorithm: Algorithm, loss: float, *, outcome: Outcome | None = None) -> Suggestion:
    """Trains the next suggestion to its budget."""
    suggestion = algorithm.suggest(1)[0]
    algorithm.update([Started(suggestion)])
    finish(algorithm, suggestion, loss=loss, outcome=outcome)
    return suggestion


def test_best_of_three_goes_on_at_once_from_its_paused_epoch() -> None:
    algorithm = make()
    first = [train(algorithm, loss) for loss in (0.5, 0.2, 0.9)]
    assert {(s.start_epoch, s.budget, s.rung) for s in first} == {(0, 1, 0)}
    promoted = algorithm.suggest(1)[0]
    assert promoted == Suggestion(1, first[1].hyperparameters, start_epoch=1, budget=3, rung=1)


def test_nobody_waits_for_a_running_trial() -> None:
    algorithm = make()
    batch = algorithm.suggest(4)
    algorithm.update(Started(suggestion) for suggestion in batch)
    for suggestion, loss in zip(batch[:3], (0.3, 0.2, 0.4), strict=True):
        finish(algorithm, suggestion, loss=loss)
    assert [(s.trial, s.rung) for s in algorithm.suggest(3)] == [(1, 1), (4, 0), (5, 0)]


def test_highest_rung_is_served_first() -> None:
    algorithm = make()
    losses = iter(0.01 * number for number in range(50))
    # 12 trials through the first rung make 4 promotions; the first three of these make one more.
    history: list[tuple[int, int]] = []
    while len(history) < 17:
        suggestion = train(algorithm, next(losses))
        history.append((suggestion.trial, suggestion.rung))
    assert [rung for _, rung in history] == [0, 0, 0, 1] * 3 + [2] + [0, 0, 0, 1]
    assert algorithm.history.completed[0].curve[-1][0] == 9


def test_latecomers_promote_no_more_than_one_in_eta() -> None:
    algorithm = make()
    batch = algorithm.suggest(6)
    algorithm.update(Started(suggestion) for suggestion in batch)
    for suggestion, loss in zip(batch[:3], (0.7, 0.8, 0.9), strict=True):
        finish(algorithm, suggestion, loss=loss)
    assert train(algorithm, 0.7).trial == 0
    # Better ones push the promoted trial out of the best third, yet of five trials no more than one goes on.
    for suggestion, loss in zip(batch[3:5], (0.2, 0.3), strict=True):
        finish(algorithm, suggestion, loss=loss)
    assert algorithm.suggest(1)[0].rung == 0
    finish(algorithm, batch[5], loss=0.4)
    assert [(s.trial, s.rung) for s in algorithm.suggest(2)] == [(3, 1), (6, 0)]


@pytest.mark.parametrize("outcome", [Failed("crash"), Pruned(1)])
def test_trials_that_ended_badly_fill_the_rung_but_are_never_promoted(outcome: Outcome) -> None:
    algorithm = make()
    train(algorithm, 0.1, outcome=outcome)
    train(algorithm, 0.5)
    train(algorithm, 0.6)
    assert [(s.trial, s.rung) for s in algorithm.suggest(1)] == [(1, 1)]


def test_trial_that_stopped_early_takes_its_place_in_the_rungs_above() -> None:
    algorithm = make()
    train(algorithm, 0.1, outcome=Completed(0.1))
    for loss in (0.5, 0.6):
        train(algorithm, loss)
    # It has won the place of the first rung, and has nothing left to train.
    assert train(algorithm, 0.7).rung == 0
    for loss in (0.2, 0.3):
        train(algorithm, loss)
    # 0.2 and 0.3 of the first rung are behind it; one more place is there.
    assert (train(algorithm, 0.2).trial, algorithm.history[4].rung) == (4, 1)
    # The second rung holds the early stopper and 0.2; a third member opens the third rung, and it is won again.
    for loss in (0.8, 0.9, 1.0):
        train(algorithm, loss)
    assert train(algorithm, 0.25).rung == 1
    assert algorithm.suggest(1)[0].start_epoch == 0


def test_promoted_trial_that_lost_its_checkpoint_keeps_its_place() -> None:
    algorithm = make()
    for loss in (0.5, 0.2, 0.9):
        train(algorithm, loss)
    promoted = algorithm.suggest(1)[0]
    algorithm.update([Started(Suggestion(1, promoted.hyperparameters, start_epoch=0, budget=3, rung=1))])
    assert algorithm.suggest(1)[0].rung == 0


def test_results_from_elsewhere_take_no_place() -> None:
    algorithm = make()
    for number in range(3):
        added = Suggestion(number, {"x": 0.2 * number}, start_epoch=0, budget=9, bracket=-1)
        algorithm.update([Started(added), Ended(number, Completed(0.0))])
    for loss in (0.5, 0.2, 0.9):
        assert train(algorithm, loss).rung == 0
    assert [(s.trial, s.rung) for s in algorithm.suggest(1)] == [(4, 1)]


def test_too_small_a_space_still_sends_its_best_to_the_top_when_all_is_over() -> None:
    algorithm = make(space=Space([Int("x", 1, 2)]))
    batch = algorithm.suggest(4)
    assert len(batch) == 2
    algorithm.update(Started(suggestion) for suggestion in batch)
    finish(algorithm, batch[0], loss=0.4)
    assert algorithm.suggest(1) == []
    assert not algorithm.is_exhausted
    finish(algorithm, batch[1], loss=0.3)
    assert [(s.trial, s.budget) for s in algorithm.suggest(4)] == [(batch[1].trial, 3)]
    train(algorithm, 0.3)
    assert train(algorithm, 0.3).budget == 9
    assert algorithm.is_exhausted


def test_budgets_changed_on_resume_never_ask_for_less_than_is_trained() -> None:
    longer = make(27)
    facts: list[Fact] = []
    for number, loss in enumerate((0.5, 0.2, 0.9)):
        suggestion = Suggestion(number, {"x": 0.1 * number}, start_epoch=0, budget=3)
        facts += [Started(suggestion), Reported(number, 3, loss), Ended(number, Paused(3))]
    longer.update(facts)
    # Paused at epoch 3 where the second rung ends now: trained enough for it, so it is left where it is.
    assert all(suggestion.start_epoch < suggestion.budget for suggestion in longer.suggest(5))
    assert {suggestion.start_epoch for suggestion in longer.suggest(5)} == {0}


def test_eta_sets_rungs_and_shares() -> None:
    algorithm = make(16, eta=4)
    for loss in (0.4, 0.3, 0.2):
        assert train(algorithm, loss).budget == 1
    assert train(algorithm, 0.1).budget == 1
    assert (algorithm.suggest(1)[0].trial, algorithm.suggest(1)[0].budget) == (3, 4)


def hedged(*, num: int = 60, max_epochs: int = 9, name: str = "asha", max_trials: int | None = None) -> Algorithm:
    """A search in which all small x look bad in the first epochs and are best in the end."""
    algorithm = create(name, space=Space([Int("x", 0, 30)]), seed=0, max_epochs=max_epochs, max_trials=max_trials)
    for _ in range(num):
        suggestions = algorithm.suggest(1)
        if not suggestions:
            break
        x = float(str(suggestions[0].hyperparameters["x"]))
        algorithm.update([Started(suggestions[0])])
        finish(algorithm, suggestions[0], loss=100.0 - x if suggestions[0].budget < max_epochs else x)
    return algorithm


def test_share_of_the_epochs_goes_to_full_trainings_once_one_is_through() -> None:
    algorithm = hedged()
    trials = list(algorithm.history.values())
    at_full = sum(trial.epochs for trial in trials if trial.budget == 9)
    assert at_full >= FULL_SHARE * sum(trial.epochs for trial in trials) - 9
    plain = hedged(name="asha+random").history.values()
    assert sum(trial.epochs for trial in plain if trial.budget == 9) < 0.5 * sum(trial.epochs for trial in plain)


def test_no_full_training_before_the_first_is_promoted_to_it() -> None:
    budgets = [fact.suggestion.budget for fact in hedged(num=12).history.facts() if isinstance(fact, Started)]
    assert budgets.count(9) == 0


@final
class Insistent(Sampler):
    """Wants one configuration as long as it may have it."""

    def __init__(self, space: Space, wanted: Configuration) -> None:
        self.space = space
        self._wanted = wanted

    def sample(
        self,
        history: History,
        num: int,
        rng: np.random.Generator,  # noqa: ARG002
        *,
        alike: Collection[str] = (),  # noqa: ARG002
    ) -> list[Configuration]:
        closed = [trial.hyperparameters for trial in history.values() if trial.number not in history.again]
        return [] if self._wanted in closed else [self._wanted][:num]


def wanted(*, full_share: float, wishes: Sequence[Configuration] = ()) -> list[Suggestion]:
    """What follows when the sampler wants the worst trial of the first rung and another is trained to the end."""
    facts: list[Fact] = []
    for number, loss in enumerate((0.1, 0.5, 0.9)):
        facts += [Started(Suggestion(number, {"x": 0.2 * number}, 0, 1)), Reported(number, 1, loss)]
        facts.append(Ended(number, Paused(1)))
    facts += [Started(Suggestion(0, {"x": 0.0}, 1, 9, rung=2)), Reported(0, 9, 0.05), Ended(0, Completed(0.05))]
    scheduler = SuccessiveHalving(max_epochs=9, full_share=full_share)
    sampler = WishesFirst(Insistent(LINE, {"x": 0.4}), wishes=wishes)
    return scheduler.next(History().applied(facts), sampler, 1, np.random.default_rng(0))


def test_what_a_rung_gave_up_thaws_for_one_rung_when_the_sampler_wants_it() -> None:
    assert wanted(full_share=0.0) == [Suggestion(2, {"x": 0.4}, start_epoch=1, budget=3, rung=1)]


def test_what_the_first_rung_gave_up_goes_on_from_its_pause_to_the_end() -> None:
    assert wanted(full_share=0.99) == [Suggestion(2, {"x": 0.4}, start_epoch=1, budget=9, rung=1)]


def test_a_wish_that_was_tried_goes_on_by_its_rank_alone() -> None:
    tried: list[Configuration] = [{"x": 0.0}, {"x": 0.2}]
    assert wanted(full_share=0.99, wishes=tried) == wanted(full_share=0.99)
    assert wanted(full_share=0.99, wishes=[*tried, {"x": 0.9}]) == [Suggestion(3, {"x": 0.9}, 0, 9)]


def test_samplers_that_do_not_thaw_never_meet_a_trial_again() -> None:
    started = [fact.suggestion for fact in hedged(name="asha+random").history.facts() if isinstance(fact, Started)]
    assert len({suggestion.hyperparameters["x"] for suggestion in started}) == len(started)


def test_what_skips_rungs_takes_no_place_in_them() -> None:
    algorithm = make()
    for number in range(3):
        straight = Suggestion(number, {"x": 0.2 * number}, start_epoch=0, budget=9)
        algorithm.update([Started(straight), Ended(number, Completed(0.0))])
    for loss in (0.5, 0.2, 0.9):
        assert train(algorithm, loss).rung == 0
    assert [(s.trial, s.rung) for s in algorithm.suggest(1)] == [(4, 1)]


def test_hedge_finds_what_low_rungs_hide() -> None:
    best = hedged().history.best
    assert best is not None
    assert float(str(best.hyperparameters["x"])) <= 1
    # Promotions alone never send it to the end in as many steps.
    plain = hedged(name="asha+random").history
    assert min(t.loss for t in plain.completed if t.loss is not None) > 1


def test_full_trainings_in_a_batch_differ_and_leave_room_for_new_trials() -> None:
    algorithm = hedged(num=20)
    batch = algorithm.suggest(8)
    assert len({suggestion.trial for suggestion in batch}) == len(batch) == 8
    assert len({suggestion.hyperparameters["x"] for suggestion in batch}) == 8
    assert {suggestion.budget for suggestion in batch} > {1}


def test_full_trainings_keep_to_the_number_of_trials() -> None:
    algorithm = hedged(num=200, max_trials=20)
    assert len(algorithm.history) == 20
    assert algorithm.is_exhausted


def test_learning_samplers_are_past_their_random_start_when_they_choose() -> None:
    starts = {"bayesian": gaussian_process, "tpe": density_ratio, "evolution": evolution}
    assert {name: module.NUM_INITIAL for name, module in starts.items()} == LEARNING
