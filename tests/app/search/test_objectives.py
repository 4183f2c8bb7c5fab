"""Fronts and limits over samplers and schedulers, on a space whose exact front is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from app.search import (
    Algorithm,
    Boolean,
    Categorical,
    Completed,
    Configuration,
    Ended,
    Fact,
    Failed,
    Int,
    Measured,
    Outcome,
    Paused,
    Pruned,
    Recipe,
    Reported,
    Space,
    Started,
    Suggestion,
    fact_from_json,
    fact_to_json,
)
from app.search.limits import Limit
from app.search.pareto import hypervolume, is_undominated

SPACE = Space([Int("a", 0, 9), Int("b", 0, 9), Categorical("k", ("x", "y", "z")), Boolean("s")])
FAST = Limit("latency_ms", 6.0)


def measured(configuration: Configuration) -> tuple[float, float]:
    """Loss and latency; large `a` is good and slow."""
    a, b, kind = int(configuration["a"]) / 9, int(configuration["b"]) / 9, str(configuration["k"])
    loss = 0.7 * (1 - a) ** 2 + 0.5 * (b - 0.5) ** 2 + {"x": 0.1, "y": 0.25, "z": 0.4}[kind]
    latency = 2 + 10 * a**2 + 4 * abs(b - 0.2) + {"x": 3.0, "y": 1.0, "z": 0.0}[kind]
    quick = bool(configuration["s"])
    return loss + 0.1 * quick, latency - quick


ALL = np.array([measured(configuration) for configuration in SPACE.enumerate()])
WORST = 1.05 * ALL.max(axis=0)
EXACT = hypervolume(ALL, WORST)


def make(
    name: str, *, seed: int = 0, max_epochs: int = 1, limits: Sequence[Limit] = (), front: bool = True
) -> Algorithm:
    objectives = ("latency_ms",) if front else ()
    return Algorithm(
        Recipe(
            name=name, space=SPACE, seed=seed, max_epochs=max_epochs, objectives=objectives, limits=tuple(limits)
        )
    )


def told(suggestion: Suggestion, *, max_epochs: int = 1) -> list[Fact]:
    loss, latency = measured(suggestion.hyperparameters)
    loss += 0.3 / suggestion.budget - 0.3 / max_epochs
    outcome: Outcome = Completed(loss) if suggestion.budget == max_epochs else Paused(suggestion.budget)
    number = suggestion.trial
    return [
        Started(suggestion),
        Measured(number, {"latency_ms": latency}),
        Reported(number, suggestion.budget, loss),
        Ended(number, outcome),
    ]


def run(algorithm: Algorithm, num: int, *, batch: int = 1) -> Algorithm:
    done = 0
    while done < num and (suggestions := algorithm.suggest(batch)):
        for suggestion in suggestions:
            algorithm.update(told(suggestion, max_epochs=algorithm.recipe.max_epochs))
            done += 1
    return algorithm


def missed(algorithm: Algorithm) -> float:
    """Share of the exact front's volume that the trials do not dominate."""
    points = np.array([measured(trial.hyperparameters) for trial in algorithm.history.values()])
    return 1.0 - hypervolume(points, WORST) / EXACT


def test_model_finds_the_exact_front_far_better_than_chance() -> None:
    by_chance = [missed(run(make("random", seed=seed), 45)) for seed in range(2)]
    by_model = [missed(run(make("bayesian", seed=seed), 45)) for seed in range(2)]
    assert np.mean(by_model) < 0.6 * np.mean(by_chance)
    assert np.mean(by_model) < 0.04


def test_batches_are_spread_over_the_front() -> None:
    algorithm = run(make("bayesian"), 24)
    batch = [measured(suggestion.hyperparameters) for suggestion in algorithm.suggest(8)]
    losses, latencies = zip(*batch, strict=True)
    assert max(latencies) - min(latencies) > 3.0
    assert max(losses) - min(losses) > 0.1
    assert missed(run(make("bayesian"), 48, batch=8)) < 0.06


def test_front_is_exact_among_the_trials() -> None:
    algorithm = run(make("random"), 40)
    history = algorithm.history
    points = np.array([measured(trial.hyperparameters) for trial in history.values()])
    expected = {number for number, keep in zip(history, is_undominated(points), strict=True) if keep}
    front = algorithm.front()
    assert set(front) == expected
    losses = [history[number].loss for number in front]
    assert losses == sorted(losses, key=lambda loss: math.inf if loss is None else loss)


def test_limits_are_kept_by_front_and_recommendation() -> None:
    algorithm = run(make("bayesian", limits=[FAST]), 40)
    assert algorithm.front()
    assert all(algorithm.history[number].measures["latency_ms"] <= 6.0 for number in algorithm.front())
    best = algorithm.recommend()
    assert best is not None
    assert algorithm.history[best].measures["latency_ms"] <= 6.0
    feasible = [trial.loss for trial in algorithm.history.values() if trial.measures["latency_ms"] <= 6.0]
    assert algorithm.history[best].loss == min(loss for loss in feasible if loss is not None)


def test_model_learns_where_the_limit_is_kept() -> None:
    # What breaks the limit is not trained: only its measure is known.
    algorithm = make("bayesian", limits=[FAST], front=False)
    for _ in range(45):
        (suggestion,) = algorithm.suggest(1)
        facts = told(suggestion)
        if measured(suggestion.hyperparameters)[1] > 6.0:
            facts = [*facts[:2], Ended(suggestion.trial, Pruned(0))]
        algorithm.update(facts)
    kept = [trial.measures["latency_ms"] <= 6.0 for trial in algorithm.history.values()]
    assert np.mean(kept[25:]) > 0.6 > np.mean(ALL[:, 1] <= 6.0)
    best = min(loss for loss, latency in ALL if latency <= 6.0)
    recommended = algorithm.recommend()
    assert recommended is not None
    assert algorithm.history[recommended].loss == pytest.approx(best, abs=0.03)


def test_limit_that_nothing_can_meet_leaves_the_nearest_and_the_search_goes_on() -> None:
    algorithm = run(make("bayesian", limits=[Limit("latency_ms", 0.01)], front=False), 30)
    assert len(algorithm.history) == 30
    assert algorithm.front() == []
    best = algorithm.recommend()
    latencies = {trial.number: trial.measures["latency_ms"] for trial in algorithm.history.values()}
    assert best is not None
    assert latencies[best] == min(latencies.values()) < 2.5


def test_hyperband_promotes_what_is_near_the_front_not_the_lowest_loss_alone() -> None:
    with_front = run(make("hyperband+random", max_epochs=9), 60)
    without = run(make("hyperband+random", max_epochs=9, front=False), 60)

    def fastest(algorithm: Algorithm) -> float:
        done = [trial for trial in algorithm.history.values() if trial.epochs == 9]
        return min(trial.measures["latency_ms"] for trial in done)

    first_rung = [trial for trial in with_front.history.values() if trial.bracket == 0]
    fast = min(first_rung, key=lambda trial: trial.measures["latency_ms"])
    assert fast.rung > 0
    assert fastest(with_front) < fastest(without)


@pytest.mark.parametrize("name", ["random", "bayesian", "hyperband", "hyperband+grid", "asha"])
def test_search_is_pure_replayable_and_survives_failures(name: str) -> None:
    algorithm = make(name, max_epochs=9, limits=[Limit("latency_ms", 12.0)])
    for step in range(20):
        for suggestion in algorithm.suggest(1):
            facts = told(suggestion, max_epochs=9)
            if step % 6 == 2:
                facts = [facts[0], Ended(suggestion.trial, Failed("out of memory"))]
            if step % 6 == 4:
                facts = [facts[0], *facts[2:]]  # a measure that could not be taken
            algorithm.update(fact_from_json(json.loads(json.dumps(fact_to_json(fact)))) for fact in facts)
    algorithm.update([Started(algorithm.suggest(1)[0])])
    loaded = Algorithm.load(json.loads(json.dumps(algorithm.dump())))
    assert loaded.history == algorithm.history
    assert loaded.suggest(3) == loaded.suggest(3) == algorithm.suggest(3)
    assert loaded.front() == algorithm.front()
    for suggestion in loaded.suggest(3):
        SPACE.validate(suggestion.hyperparameters)


@pytest.mark.parametrize("name", ["random", "hyperband+random", "asha+random", "asha+grid"])
def test_trials_that_are_not_trained_hold_nobody_up(name: str) -> None:
    # Few networks are fast enough, so whole rungs may be empty.
    limit = Limit("latency_ms", 2.5)
    algorithm = make(name, max_epochs=9, limits=[limit], front=False)
    for _ in range(150):
        suggestions = algorithm.suggest(1)
        assert suggestions
        facts = told(suggestions[0], max_epochs=9)
        if not limit.holds(measured(suggestions[0].hyperparameters)[1]):
            facts = [*facts[:2], Ended(suggestions[0].trial, Pruned(0))]
        algorithm.update(facts)
    done = [trial for trial in algorithm.history.values() if trial.epochs == 9]
    assert done
    assert all(limit.holds(trial.measures["latency_ms"]) for trial in done)


def test_only_trials_within_the_limits_make_another_hopeless() -> None:
    # Ten large networks learn fast; a small one is slower, but the only one within the limit.
    def curve_of(trial: int, suggestion: Suggestion, latency: float, loss: float, epochs: int) -> list[Fact]:
        reports = [Reported(trial, epoch, loss + 1.0 / epoch) for epoch in range(1, epochs + 1)]
        return [Started(suggestion), Measured(trial, {"latency_ms": latency}), *reports]

    def hopeless(limits: Sequence[Limit]) -> str:
        algorithm = make("random", max_epochs=30, limits=limits, front=False)
        for number in range(10):
            (suggestion,) = algorithm.suggest(1)
            facts = curve_of(number, suggestion, 50.0, 0.1 + 0.001 * number, 30)
            algorithm.update([*facts, Ended(number, Completed(0.133 + 0.001 * number))])
        (suggestion,) = algorithm.suggest(1)
        algorithm.update(curve_of(10, suggestion, 1.0, 5.0, 20))
        return algorithm.hopeless(10)

    assert hopeless([])
    assert hopeless([FAST]) == ""
    assert hopeless([Limit("latency_ms", 60.0)])


def test_batch_may_share_values() -> None:
    algorithm = run(make("bayesian"), 15)
    assert len({suggestion.hyperparameters["k"] for suggestion in algorithm.suggest(4, alike=["k"])}) == 1


def test_small_space_is_exhausted_cleanly() -> None:
    space = Space([Int("a", 0, 3), Boolean("s")])
    recipe = Recipe(name="bayesian", space=space, seed=0, max_epochs=1, objectives=("latency_ms",))
    algorithm = Algorithm(recipe)
    while suggestions := algorithm.suggest(3):
        for number, suggestion in enumerate(suggestions):
            values = {"latency_ms": float(number)}
            facts = [Started(suggestion), Measured(suggestion.trial, values), Ended(suggestion.trial, Completed(1.0))]
            algorithm.update(facts)
    assert len(algorithm.history) == 8
    assert algorithm.is_exhausted


def test_measures_stay_when_a_trial_is_resumed_and_bad_ones_are_left_out() -> None:
    algorithm = make("hyperband+random", max_epochs=9)
    (suggestion,) = algorithm.suggest(1)
    algorithm.update(told(suggestion, max_epochs=9)[:2])
    algorithm.update([Measured(suggestion.trial, {"f1": 0.5, "ece": math.nan}), Ended(suggestion.trial, Paused(1))])
    again = Suggestion(suggestion.trial, suggestion.hyperparameters, start_epoch=1, budget=3, rung=1)
    algorithm.update([Started(again)])
    assert set(algorithm.history[suggestion.trial].measures) == {"latency_ms", "f1"}


def test_no_goals_leave_the_best_loss() -> None:
    algorithm = run(Algorithm(Recipe(name="random", space=SPACE, seed=0, max_epochs=1)), 10)
    assert algorithm.front() == [algorithm.recommend()]
    assert Algorithm(algorithm.recipe).front() == []
    assert Algorithm(algorithm.recipe).recommend() is None
