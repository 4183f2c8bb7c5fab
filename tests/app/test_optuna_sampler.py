"""Optuna's samplers keep the laws that all samplers keep."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence

import pytest

from app.optuna_sampler import SAMPLER_NAMES, sampler_maker
from app.search import (
    Algorithm,
    Boolean,
    Categorical,
    Completed,
    Condition,
    Ended,
    Fact,
    Failed,
    Float,
    Int,
    Paused,
    Reported,
    Scale,
    Space,
    Started,
    Suggestion,
    create,
)

SPACE = Space(
    [
        Int("depth", 1, 3),
        Float("rate", 1e-4, 1e-1, scale=Scale.LOG),
        Float("share", 0.0, 1.0, step=0.25),
        Categorical("optimizer", ("adam", "sgd", "rmsprop")),
        Categorical("flag", (True, 1, "1")),
        Categorical("size", ("small", "medium", "large"), ordered=True),
        Float("momentum", 0.0, 0.9, conditions=(Condition("optimizer", ("sgd",)),)),
        Boolean("nesterov", conditions=(Condition("optimizer", ("sgd",)),)),
        Int("width", 16, 256, step=2, scale=Scale.LOG, conditions=(Condition("depth", (2, 3)),)),
        Int("units", 3, 99, scale=Scale.LOG),
        Int("count", 2, 9, step=3),
    ]
)
SMALL = Space([Categorical("kind", ("plain", "deep")), Int("layers", 1, 4, conditions=(Condition("kind", ("deep",)),))])


@pytest.fixture(params=["optuna:TPESampler", "optuna:NSGAIISampler", "hyperband+optuna:RandomSampler"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(name: str, space: Space = SPACE, seed: int = 0) -> Algorithm:
    return create(name, space=space, seed=seed, max_epochs=9)


def loss_of(suggestion: Suggestion) -> float:
    rate = float(suggestion.hyperparameters.get("rate", 1e-3))
    return abs(math.log10(rate) + 2.0) + (suggestion.hyperparameters.get("optimizer") != "sgd")


def trained(suggestion: Suggestion, loss: float) -> Sequence[Fact]:
    outcome = Completed(loss) if suggestion.budget == 9 else Paused(suggestion.budget)
    return Started(suggestion), Reported(suggestion.trial, suggestion.budget, loss), Ended(suggestion.trial, outcome)


def run(algorithm: Algorithm, num_steps: int) -> list[Suggestion]:
    done = []
    for _ in range(num_steps):
        for suggestion in algorithm.suggest(1):
            algorithm.update(trained(suggestion, loss_of(suggestion)))
            done.append(suggestion)
    return done


def test_suggestions_are_points_of_the_space_and_never_twice(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 20)
    for trial in algorithm.history.values():
        SPACE.validate(trial.hyperparameters)
    assert len({SPACE.key(trial.hyperparameters) for trial in algorithm.history.values()}) == len(algorithm.history)


def test_first_suggestion_is_the_default(name: str) -> None:
    assert make(name).suggest(1)[0].hyperparameters == SPACE.default()


def test_suggest_changes_nothing_and_replay_goes_on_alike(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 14)
    algorithm.update([Started(algorithm.suggest(1)[0])])
    loaded = Algorithm.load(json.loads(json.dumps(algorithm.dump())))
    assert loaded.suggest(3) == loaded.suggest(3) == algorithm.suggest(3)


def test_seeds_differ_zero_included(name: str) -> None:
    assert run(make(name, seed=0), 6) == run(make(name, seed=0), 6)
    assert run(make(name, seed=0), 6) != run(make(name, seed=1), 6)


def test_failures_are_survived(name: str) -> None:
    algorithm = make(name)
    for _ in range(12):
        suggestion = algorithm.suggest(1)[0]
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Failed("out of memory"))])
    assert len(run(algorithm, 3)) == 3


def test_small_space_is_covered_and_ends(name: str) -> None:
    algorithm = make(name, space=SMALL)
    run(algorithm, 40)
    tried = {SMALL.key(trial.hyperparameters) for trial in algorithm.history.values()}
    assert tried == {SMALL.key(configuration) for configuration in SMALL.enumerate()}
    assert algorithm.is_exhausted


def test_space_may_grow(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 12)
    algorithm.grow([Boolean("skip")])
    fresh = [suggestion for suggestion in run(algorithm, 8) if suggestion.start_epoch == 0]
    assert fresh
    assert all("skip" in suggestion.hyperparameters for suggestion in fresh)


def test_batch_may_share_values(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 5)
    batch = [suggestion for suggestion in algorithm.suggest(4, alike=["depth"]) if suggestion.start_epoch == 0]
    assert len({suggestion.hyperparameters["depth"] for suggestion in batch}) <= 1


def test_tree_structured_sampler_learns() -> None:
    algorithm = make("optuna:TPESampler")
    losses = [loss_of(suggestion) for suggestion in run(algorithm, 40)]
    assert sum(losses[25:]) / 15 < 0.6 * sum(losses[:10]) / 10


def test_unknown_sampler_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no algorithm 'optuna:TPE'; did you mean 'optuna:TPESampler'\?"):
        make("optuna:TPE")
    with pytest.raises(ValueError, match="expected one of CmaEsSampler, GPSampler"):
        make("optuna:")


def test_missing_libraries_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("optuna", "torch") else find(name))
    with pytest.raises(ValueError, match=r"needs Optuna; install it with: pip install 'tamiz\[optuna\]'"):
        make("optuna:TPESampler")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(ValueError, match="'optuna:GPSampler' needs torch too; install it with: pip install torch"):
        make("optuna:GPSampler")


def test_named_samplers_exist_in_optuna() -> None:
    samplers = pytest.importorskip("optuna").samplers
    assert all(hasattr(samplers, name) for name in SAMPLER_NAMES)
    assert callable(sampler_maker("QMCSampler"))
