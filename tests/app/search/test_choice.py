from __future__ import annotations

import pytest

from app.search import ALGORITHMS, Boolean, Condition, Float, Int, Space, choose

FINITE = Space([Int("a", 1, 5), Int("b", 1, 4)])
INFINITE = Space([Float("a", 0.0, 1.0)])
WIDE = Space([Float(f"x{index}", 0.0, 1.0) for index in range(41)])
NESTED = Space(
    [
        *(Boolean(f"use{index}") for index in range(8)),
        *(Float(f"x{index}", 0.0, 1.0, conditions=(Condition(f"use{index % 8}", (True,)),)) for index in range(12)),
    ]
)


@pytest.mark.parametrize(
    ("space", "num_rows", "time_seconds", "max_trials", "max_epochs", "name", "reason"),
    [
        (FINITE, 1000, None, 20, 10, "grid", "the space has only 20 configurations and about 20 full trials fit"),
        (FINITE, 1000, None, None, 10, "grid", "the budget has no limit, so each is tried once"),
        (FINITE, 1000, None, 19, 10, "bayesian", "about 19 full trials fit the budget and the space has 2 parameters"),
        (INFINITE, 1000, None, 9, 10, "random", "9 trials are too few for a model to learn from"),
        (INFINITE, 1000, 300.0, None, 10, "bayesian", "the space has 1 parameter, so a model"),
        (INFINITE, 40_000, 300.0, None, 27, "asha", "with 40,000 rows an epoch is expensive"),
        (INFINITE, 40_000, 90.0, None, 27, "bayesian", "halving down to one full trial would take about 96 of 90 s"),
        (INFINITE, 40_000, 300.0, None, 8, "bayesian", "a model"),
        (INFINITE, 40_000, None, 100, 27, "bayesian", "about 100 full trials"),
        (INFINITE, 1000, None, 5000, 10, "tpe", "with about 5,000 trials, where good and bad ones are dense"),
        (WIDE, 1000, None, 100, 10, "tpe", "41 parameters are too many for a smooth model"),
        (NESTED, 1000, None, 100, 10, "tpe", "12 of 20 parameters are conditional"),
        (WIDE, 40_000, 300.0, None, 27, "bohb", "weak trials stop early and the best go on to 27 epochs; 41"),
    ],
)
def test_choice_follows_budget_and_size_and_says_why(
    space: Space,
    num_rows: int,
    time_seconds: float | None,
    max_trials: int | None,
    max_epochs: int,
    name: str,
    reason: str,
) -> None:
    choice = choose(
        space=space, num_rows=num_rows, time_seconds=time_seconds, max_trials=max_trials, max_epochs=max_epochs
    )
    assert choice.name == name
    assert reason in choice.reason
    assert choice.name in ALGORITHMS


def test_measured_epoch_counts_more_than_the_rows() -> None:
    choice = choose(
        space=INFINITE, num_rows=100, time_seconds=60.0, max_trials=None, max_epochs=10, seconds_per_epoch_guess=3.0
    )
    assert choice.name == "bayesian"
    assert choice.reason.startswith("about 2 full trials")
