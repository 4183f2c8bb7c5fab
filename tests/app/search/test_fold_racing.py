from __future__ import annotations

import json

import numpy as np
import pytest

from app.search.algorithm import Algorithm, Recipe
from app.search.fold_racing import MIN_FINISHED, leave_limits
from app.search.space import Float, Space
from app.search.trial import Completed, Ended, History, Paused, Pruned, Reported, Resource, Started, Suggestion

SPACE = Space([Float("x", 0.0, 1.0)])
FOLDS = 5


def facts_of(number: int, means: list[float], *, outcome: object = None) -> list[object]:
    start = Suggestion(trial=number, hyperparameters={"x": number / 100}, start_epoch=0, budget=FOLDS)
    reports = [Reported(number, fold, mean) for fold, mean in enumerate(means, start=1)]
    done = Completed(means[-1]) if outcome is None else outcome
    return [Started(start), *reports, Ended(number, done)]


def history_of(*trials: list[float]) -> History:
    facts = [fact for number, means in enumerate(trials) for fact in facts_of(number, means)]
    return History(resource=Resource.FOLDS).applied(facts)


def test_the_value_of_a_trial_is_the_mean_over_the_folds_so_far() -> None:
    history = History(resource=Resource.FOLDS).applied(facts_of(0, [0.1, 0.5, 0.4], outcome=Pruned(3)))
    assert history[0].loss == 0.4
    assert [history[0].loss_until(fold) for fold in (0, 1, 2, 3, 4)] == [None, 0.1, 0.5, 0.4, 0.4]
    in_epochs = History().applied(facts_of(0, [0.1, 0.5, 0.4], outcome=Pruned(3)))
    assert (in_epochs[0].loss, in_epochs[0].loss_until(3)) == (0.1, 0.1)


def test_a_mean_over_fewer_folds_never_outranks_one_over_all() -> None:
    facts = [*facts_of(0, [0.1], outcome=Pruned(1)), *facts_of(1, [0.3, 0.2], outcome=Paused(2))]
    history = History(resource=Resource.FOLDS).applied(facts)
    assert history.best == history[1]
    history = history.applied(facts_of(2, [0.9] * FOLDS))
    assert history.best == history[2]


def test_nobody_leaves_before_enough_trials_have_all_folds() -> None:
    trials = [[0.2 + 0.01 * n] * FOLDS for n in range(MIN_FINISHED - 1)]
    assert leave_limits(history_of(*trials).values(), num_folds=FOLDS) == ()
    assert len(leave_limits(history_of(*trials, [0.5] * FOLDS).values(), num_folds=FOLDS)) == FOLDS - 1


def test_trials_that_left_or_came_without_folds_count_for_nothing() -> None:
    trials = [[0.2] * FOLDS] * (MIN_FINISHED - 1)
    more = [*facts_of(7, [0.1], outcome=Pruned(1)), *facts_of(8, [], outcome=Completed(0.0))]
    assert leave_limits(history_of(*trials).applied(more).values(), num_folds=FOLDS) == ()


def test_limits_are_those_of_the_best_trial_and_widen_with_the_noise_of_the_folds() -> None:
    rng = np.random.default_rng(0)

    def limits(noise: float) -> tuple[float, ...]:
        hard = np.array([0.5, -0.5, 0.2, 0.0, -0.2])  # the first fold is the hard one, for all
        trials = []
        for level in (0.30, 0.31, 0.32, 0.33, 0.9, 5.0):
            losses = level + hard + noise * rng.normal(size=FOLDS)
            trials.append(list(np.cumsum(losses) / np.arange(1, FOLDS + 1)))
        return leave_limits(history_of(*trials).values(), num_folds=FOLDS)

    exact = limits(0.0)
    np.testing.assert_allclose(exact, [0.80, 0.30, 0.30 + 0.2 / 3, 0.30 + 0.2 / 4], atol=1e-9)
    noisy = limits(0.05)
    assert noisy[0] - exact[0] > noisy[3] - exact[3] > 0.0


def test_a_race_keeps_the_best_and_saves_folds() -> None:
    """Over many simulated searches the best of the trials with all folds is seldom worse than without a race."""
    rng = np.random.default_rng(1)
    lost, folds = [], []
    for _ in range(60):
        history = History(resource=Resource.FOLDS)
        levels = rng.gamma(2.0, 0.1, size=30)
        hard = 0.1 * rng.normal(size=FOLDS)
        every = []
        for number, level in enumerate(levels):
            losses = level + hard + 0.05 * rng.normal(size=FOLDS)
            means = list(np.cumsum(losses) / np.arange(1, FOLDS + 1))
            every.append(means[-1])
            limits = leave_limits(history.values(), num_folds=FOLDS)
            last = next((fold for fold, limit in enumerate(limits) if means[fold] > limit), FOLDS - 1) + 1
            outcome = None if last == FOLDS else Pruned(last)
            history = history.applied(facts_of(number, means[:last], outcome=outcome))
            folds.append(last)
        best = history.best
        assert best is not None
        assert best.epochs == FOLDS
        lost.append((best.loss or 0.0) - min(every))
    assert np.mean([value > 1e-12 for value in lost]) < 0.15
    assert np.mean(folds) < 0.6 * FOLDS


@pytest.mark.parametrize("name", ["random", "bayesian", "hyperband", "tpe", "asha+random"])
def test_any_algorithm_searches_in_folds_and_survives_a_dump(name: str) -> None:
    recipe = Recipe(name=name, space=SPACE, seed=3, max_epochs=FOLDS, resource=Resource.FOLDS, max_trials=12)
    algorithm = Algorithm(recipe)
    while suggestions := algorithm.suggest(1):
        asked = suggestions[0]
        algorithm.update([Started(asked)])
        x = float(asked.hyperparameters["x"])  # type: ignore[arg-type]
        means = [(x - 0.3) ** 2 + 0.01 * fold for fold in range(FOLDS)]
        new = range(asked.start_epoch, asked.budget)
        algorithm.update([Reported(asked.trial, fold + 1, means[fold]) for fold in new])
        done = Completed(means[-1]) if asked.budget == FOLDS else Paused(asked.budget)
        algorithm.update([Ended(asked.trial, done)])
        if len(algorithm.history) == 6:
            algorithm = Algorithm.load(json.loads(json.dumps(algorithm.dump())))
            assert algorithm.history.resource is Resource.FOLDS
    best = algorithm.recommend()
    assert best is not None
    assert algorithm.history[best].epochs == FOLDS
    assert len(algorithm.leave_limits()) in (0, FOLDS - 1)


def test_a_search_in_epochs_lets_nobody_leave() -> None:
    algorithm = Algorithm(Recipe(name="random", space=SPACE, seed=3, max_epochs=FOLDS))
    for number in range(6):
        algorithm.update(facts_of(number, [0.2] * FOLDS))  # type: ignore[arg-type]
    assert algorithm.leave_limits() == ()
