from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from app.search import (
    Algorithm,
    Categorical,
    Completed,
    Condition,
    Configuration,
    Ended,
    Fact,
    Failed,
    Float,
    History,
    Int,
    Paused,
    Reported,
    Scale,
    Space,
    Started,
    Suggestion,
    create,
)
from app.search.gaussian_process import GaussianProcessSampler

SPACE = Space(
    [
        Float("rate", 1e-5, 1.0, scale=Scale.LOG),
        Float("width", 0.0, 1.0),
        Categorical("kind", ("a", "b", "c", "d")),
        Float("extra", 0.0, 1.0, conditions=(Condition("kind", ("c",)),)),
    ]
)


def bowl(configuration: Configuration) -> float:
    """Least (0) at rate 0.01, width 0.7, kind c, extra 0.2."""
    rate, width = float(configuration["rate"]), float(configuration["width"])
    extra = abs(float(configuration["extra"]) - 0.2) if configuration["kind"] == "c" else 1.0
    return (math.log10(rate) + 2.0) ** 2 + 4.0 * (width - 0.7) ** 2 + extra


def search(name: str, seed: int, loss: Callable[[Configuration], float], num: int = 40) -> Algorithm:
    algorithm = create(name, space=SPACE, seed=seed, max_epochs=1)
    for _ in range(num):
        suggestion = algorithm.suggest(1)[0]
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Completed(loss(suggestion.hyperparameters)))])
    return algorithm


def best(algorithm: Algorithm) -> float:
    trial = algorithm.history.best
    return math.inf if trial is None or trial.loss is None else trial.loss


def test_model_beats_random_search_by_far() -> None:
    model = [best(search("bayesian", seed, bowl)) for seed in range(8)]
    random = [best(search("random", seed, bowl)) for seed in range(8)]
    assert np.mean(model) < 0.5 * np.mean(random)


def tried(space: Space, loss: Callable[[Configuration], float]) -> list[Configuration]:
    algorithm = create("bayesian", space=space, seed=0, max_epochs=1)
    for _ in range(20):
        suggestion = algorithm.suggest(1)[0]
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Completed(loss(suggestion.hyperparameters)))])
    return [trial.hyperparameters for trial in algorithm.history.values()]


def test_in_a_countable_space_only_the_order_of_losses_matters() -> None:
    countable = Space(
        [
            Float("rate", 1e-5, 1.0, scale=Scale.LOG, step=10.0),
            Float("width", 0.0, 1.0, step=0.1),
            Categorical("kind", ("a", "b")),
        ]
    )
    assert tried(countable, bowl) == tried(countable, lambda c: math.exp(9 * bowl(c)))


def test_the_unit_of_the_loss_does_not_matter() -> None:
    assert tried(SPACE, bowl) == tried(SPACE, lambda c: 1024.0 * bowl(c))


def test_model_comes_near_the_optimum_of_continuous_parameters() -> None:
    # A hundred times as near as random search, and not once left behind in a corner.
    assert max(best(search("bayesian", seed, bowl)) for seed in range(6)) < 0.05


def test_trials_do_not_gather_in_one_place() -> None:
    algorithm = search("bayesian", 1, bowl)
    units = np.array([SPACE.units(trial.hyperparameters) for trial in algorithm.history.values()])
    continuous = [parameter.num_values is None for parameter in SPACE.parameters]
    cells = np.where(continuous & (units >= 0.0), np.rint(units * 32), units)
    assert len(np.unique(cells, axis=0)) == len(units)


@pytest.mark.parametrize("seed", range(3))
def test_region_of_failures_is_avoided(seed: int) -> None:
    algorithm = create("bayesian", space=SPACE, seed=seed, max_epochs=1)
    failures = []
    for _ in range(50):
        suggestion = algorithm.suggest(1)[0]
        crash = float(suggestion.hyperparameters["width"]) > 0.5
        outcome = Failed("out of memory") if crash else Completed(bowl(suggestion.hyperparameters))
        algorithm.update([Started(suggestion), Ended(suggestion.trial, outcome)])
        failures.append(crash)
    # The optimum lies among the failures, so without learning from them nearly all later trials would fail.
    assert np.mean(failures[:8]) > 0.2
    assert np.mean(failures[30:]) < 0.5
    assert best(algorithm) < 0.25


@pytest.mark.parametrize("num", [2, 8])
def test_parallel_suggestions_keep_apart(num: int) -> None:
    algorithm = search("bayesian", 0, bowl, 25)
    columns = np.array([SPACE.encode(s.hyperparameters) for s in algorithm.suggest(num)])
    distances = np.linalg.norm(columns[:, None] - columns[None], axis=2)
    assert distances[np.triu_indices(num, 1)].min() > 0.005


def test_running_trials_push_the_next_suggestion_away() -> None:
    algorithm = search("bayesian", 0, bowl, 25)
    first = algorithm.suggest(1)[0]
    algorithm.update([Started(first)])
    second = algorithm.suggest(1)[0]
    gap = SPACE.encode(first.hyperparameters) - SPACE.encode(second.hyperparameters)
    assert np.linalg.norm(gap) > 0.02


def test_batch_starts_with_the_suggestion_of_a_smaller_batch() -> None:
    algorithm = search("bayesian", 0, bowl, 15)
    assert algorithm.suggest(3)[:1] == algorithm.suggest(1)


def test_short_trials_are_not_mistaken_for_bad_ones() -> None:
    # Full training was tried on the right half only; on the left, where the optimum is, trials had one epoch.
    space = Space([Float("x", 0.0, 1.0), Float("y", 0.0, 1.0)])
    algorithm = create("bayesian", space=space, seed=0, max_epochs=9)
    rng = np.random.default_rng(0)
    for number in range(40):
        short = number % 2 == 0
        x = float(rng.uniform(0.0 if short else 0.5, 1.0))
        budget = 1 if short else 9
        suggestion = Suggestion(number, {"x": x, "y": float(rng.random())}, start_epoch=0, budget=budget)
        loss = abs(x - 0.2) + (5.0 if short else 0.0)
        end = Ended(number, Paused(1) if short else Completed(loss))
        algorithm.update([Started(suggestion), Reported(number, budget, loss), end])
    suggested = [float(suggestion.hyperparameters["x"]) for suggestion in algorithm.suggest(5)]
    assert 0.0 < np.median(suggested) < 0.4


def test_paused_trial_is_proposed_again_only_where_it_may_be_resumed() -> None:
    space = Space([Int("x", 0, 8)])
    algorithm = create("asha", space=space, seed=0, max_epochs=9)
    facts: list[Fact] = []
    for x in range(9):
        facts += [Started(Suggestion(x, {"x": x}, 0, 1)), Reported(x, 1, float(x)), Ended(x, Paused(1))]
    algorithm.update(facts)
    sampler, history = GaussianProcessSampler(space, seed=0), algorithm.history
    assert sampler.sample(history, 3, np.random.default_rng(0)) == []
    asked = History(history.values(), again=[4, 7])
    assert sampler.sample(asked, 3, np.random.default_rng(0)) == [{"x": 4}, {"x": 7}]


def test_paused_trial_that_is_proposed_again_goes_on_and_is_not_trained_twice() -> None:
    # On a logarithmic scale few numbers survive the way to the unit interval and back to the last digit.
    space = Space([Float("rate", 1e-4, 0.3, scale=Scale.LOG), Float("width", 0.0, 1.0)])
    algorithm = create("asha", space=space, seed=0, max_epochs=27)
    rng = np.random.default_rng(0)
    for _ in range(36):
        suggestion = algorithm.suggest(1)[0]
        rate, width = float(suggestion.hyperparameters["rate"]), float(suggestion.hyperparameters["width"])
        late = 3.0 * rng.random()
        epochs = range(suggestion.start_epoch + 1, suggestion.budget + 1)
        losses = [(math.log10(rate) + 2.0) ** 2 + 4.0 * (width - 0.7) ** 2 + late / epoch for epoch in epochs]
        reports = [Reported(suggestion.trial, epoch, loss) for epoch, loss in zip(epochs, losses, strict=True)]
        outcome = Completed(losses[-1]) if suggestion.budget == 27 else Paused(suggestion.budget)
        algorithm.update([Started(suggestion), *reports, Ended(suggestion.trial, outcome)])
    trials = algorithm.history.values()
    assert len({space.key(trial.hyperparameters) for trial in trials}) == len(trials)
