"""Importance of known functions, and what holds for any history."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.search import (
    Boolean,
    Categorical,
    Completed,
    Condition,
    Configuration,
    Failed,
    Float,
    History,
    Int,
    Outcome,
    Paused,
    Scale,
    Space,
    Trial,
)
from app.search.importance import MIN_TRIALS, importance

SPACE = Space(
    [
        Float("strong", 0.0, 1.0),
        Float("weak", 0.0, 1.0),
        Float("none", 1e-5, 1e-1, scale=Scale.LOG),
        Categorical("kind", ("a", "b", "c")),
        Int("count", 1, 9),
        Float("child", 0.0, 1.0, conditions=(Condition("kind", ("a", "b")),)),
        Categorical("fixed", (7,)),
    ]
)


def sampled(num: int, loss: Callable[[Configuration], float], *, seed: int = 0, space: Space = SPACE) -> History:
    rng = np.random.default_rng(seed)
    configurations = [space.sample(rng) for _ in range(num)]
    return History(
        Trial(number=number, hyperparameters=configuration, budget=1, outcome=Completed(loss(configuration)))
        for number, configuration in enumerate(configurations)
    )


def quadratic(configuration: Configuration) -> float:
    strong, weak = float(configuration["strong"]), float(configuration["weak"])
    return 10.0 * (strong - 0.3) ** 2 + 0.3 * weak


@pytest.mark.parametrize("num", [12, 40, 150])
def test_strong_parameter_leads_even_with_few_trials(num: int) -> None:
    shares = importance(SPACE, sampled(num, quadratic))
    assert next(iter(shares)) == "strong"
    assert shares["strong"] > 0.5
    assert shares["fixed"] == 0.0


def test_weak_parameter_is_told_from_none_with_many_trials() -> None:
    shares = importance(SPACE, sampled(250, lambda c: quadratic(c) + float(c["weak"])))
    assert shares["strong"] > shares["weak"] > 3 * max(shares["none"], shares["count"], shares["kind"])


def test_a_search_that_has_settled_a_parameter_still_shows_it() -> None:
    # Good trials crowd around the best value of "strong", where only "weak" still makes a difference.
    rng = np.random.default_rng(0)
    trials = []
    for number in range(40):
        configuration = dict(SPACE.sample(rng))
        if number >= 12:
            configuration["strong"] = float(np.clip(0.3 + 0.02 * rng.normal(), 0.0, 1.0))
        outcome = Completed(quadratic(configuration))
        trials.append(Trial(number=number, hyperparameters=configuration, budget=1, outcome=outcome))
    assert next(iter(importance(SPACE, History(trials)))) == "strong"


def test_category_that_decides_leads() -> None:
    shares = importance(SPACE, sampled(60, lambda c: {"a": 0.0, "b": 1.0, "c": 2.0}[str(c["kind"])]))
    assert next(iter(shares)) == "kind"


def test_conditional_parameter_is_judged_where_it_exists() -> None:
    # Where the child does not exist the loss is the worst: that is its parent's doing, not the child's.
    shares = importance(SPACE, sampled(200, lambda c: (float(c["child"]) - 0.5) ** 2 if "child" in c else 5.0))
    assert shares["child"] > shares["none"] + shares["count"] + shares["weak"]
    parent_only = importance(SPACE, sampled(200, lambda c: 0.0 if "child" in c else 5.0 + float(c["strong"])))
    assert parent_only["kind"] > 5 * parent_only["child"]


def test_noise_alone_singles_nothing_out() -> None:
    # Over several searches: chance may favour one parameter in one of them, a category more easily than a number.
    total = dict.fromkeys(SPACE.names, 0.0)
    rng = np.random.default_rng(1)
    for seed in range(10):
        for name, share in importance(SPACE, sampled(30, lambda _: rng.random(), seed=seed)).items():
            total[name] += share / 10
    assert max(total.values()) < 0.6


def test_few_trials_say_nothing() -> None:
    assert importance(SPACE, sampled(MIN_TRIALS - 1, quadratic)) == {}
    assert importance(SPACE, History()) == {}


def test_equal_losses_give_equal_shares_or_chance_but_sum_to_one() -> None:
    space = Space([Int("only", 3, 3), Categorical("choice", ("this",))])
    shares = importance(space, sampled(8, lambda _: 1.0, space=space))
    assert shares == {"only": 0.5, "choice": 0.5}


def test_budgets_are_compared_where_half_of_the_trials_got() -> None:
    # Trials that were promoted have low losses because they trained longer; that says nothing about "weak".
    rng = np.random.default_rng(0)
    trials = []
    for number in range(60):
        configuration = SPACE.sample(rng)
        start = quadratic(configuration)
        promoted = float(configuration["weak"]) > 0.5 and number % 3 == 0
        curve = ((1, start + 5.0), (3, start)) if promoted else ((1, start + 5.0),)
        outcome: Outcome = Paused(curve[-1][0])
        trials.append(Trial(number=number, hyperparameters=configuration, budget=3, curve=curve, outcome=outcome))
    shares = importance(SPACE, History(trials))
    assert shares["strong"] > 0.5
    assert shares["weak"] < 0.2


def test_failed_trials_count_as_the_worst() -> None:
    space = Space([Boolean("breaks"), Float("rate", 0.0, 1.0)])
    rng = np.random.default_rng(0)
    trials = []
    for number in range(40):
        configuration = space.sample(rng)
        outcome: Outcome = Failed("out of memory") if configuration["breaks"] else Completed(float(rng.random()))
        trials.append(Trial(number=number, hyperparameters=configuration, budget=1, outcome=outcome))
    assert next(iter(importance(space, History(trials)))) == "breaks"


@settings(deadline=None, max_examples=12)
@given(num=st.integers(0, 25), seed=st.integers(0, 1000), modulus=st.integers(1, 7))
def test_shares_are_of_all_parameters_sum_to_one_and_repeat(num: int, seed: int, modulus: int) -> None:
    history = sampled(num, lambda c: float(int(1000 * float(c["strong"])) % modulus), seed=seed)
    shares = importance(SPACE, history)
    assert list(importance(SPACE, history).items()) == list(shares.items())
    if num < MIN_TRIALS:
        assert shares == {}
        return
    assert set(shares) == set(SPACE.names)
    assert math.isclose(sum(shares.values()), 1.0)
    assert min(shares.values()) >= 0.0
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
