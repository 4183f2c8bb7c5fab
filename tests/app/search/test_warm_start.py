from __future__ import annotations

import json

import numpy as np
import pytest

from app.search.algorithm import Algorithm, Recipe
from app.search.space import Categorical, Condition, Float, Int, Space
from app.search.trial import Completed, Ended, Started
from app.search.warm_start import filled, transferred

SPACE = Space(
    [
        Int("depth", 1, 4, default=2),
        Float("rate", 0.0, 1.0, default=0.5),
        Categorical("kind", ("a", "b"), default="a"),
        Float("extra", 0.0, 1.0, default=0.25, conditions=(Condition("kind", ("b",)),)),
    ]
)


def made(name: str = "random", **fields: object) -> Algorithm:
    return Algorithm(Recipe(name, SPACE, 0, 9, **fields))  # type: ignore[arg-type]


def run(algorithm: Algorithm, num: int) -> list[dict[str, object]]:
    tried = []
    for _ in range(num):
        (suggestion,) = algorithm.suggest()
        tried.append(dict(suggestion.hyperparameters))
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Completed(1.0))])
    return tried


@pytest.mark.parametrize("name", ["random", "grid", "bayesian", "tpe", "evolution", "hyperband", "asha"])
def test_wishes_come_first_in_their_order_with_defaults_for_what_is_left_out(name: str) -> None:
    algorithm = made(name, wishes=({"depth": 4}, {"kind": "b"}))
    first, second, *others = [dict(s.hyperparameters) for s in algorithm.suggest(2)] + [
        dict(s.hyperparameters) for s in made(name).suggest(1)
    ]
    assert first == {"depth": 4, "rate": 0.5, "kind": "a"}
    assert second == {"depth": 2, "rate": 0.5, "kind": "b", "extra": 0.25}
    assert others


def test_after_the_wishes_the_sampler_goes_on() -> None:
    tried = run(made(wishes=({"depth": 4},)), 4)
    assert tried[0] == {"depth": 4, "rate": 0.5, "kind": "a"}
    assert len({tuple(sorted(item.items())) for item in tried}) == 4


def test_a_wish_that_was_tried_already_is_not_tried_again() -> None:
    algorithm = made(wishes=({"depth": 4}, {"depth": 4}))
    run(algorithm, 1)
    algorithm.enqueue([{"depth": 4}, {"depth": 3}])
    assert dict(algorithm.suggest()[0].hyperparameters)["depth"] == 3


def test_numbers_of_numpy_become_those_of_the_space() -> None:
    space = Space([Int("depth", 1, 4), Float("rate", 0.0, 1.0), Categorical("width", (32, 64)), Float("low", 0.0, 1.0)])
    wish = {"depth": np.int64(3), "rate": np.float32(0.5), "width": np.float64(64.0), "low": 1}
    complete = filled(wish, space=space)  # type: ignore[arg-type]
    assert json.dumps(complete) == '{"depth": 3, "rate": 0.5, "width": 64, "low": 1.0}'


def test_a_wish_may_come_before_earlier_ones() -> None:
    algorithm = made(wishes=({"depth": 4},))
    algorithm.enqueue([{"depth": 3}], first=True)
    assert [dict(suggestion.hyperparameters)["depth"] for suggestion in algorithm.suggest(2)] == [3, 4]


def test_what_is_enqueued_during_a_search_comes_next_and_survives_dump_and_load() -> None:
    algorithm = made("bayesian")
    run(algorithm, 3)
    algorithm.enqueue([{"rate": 0.125}])
    again = Algorithm.load(algorithm.dump())
    for one in (algorithm, again):
        assert dict(one.suggest()[0].hyperparameters) == {"depth": 2, "rate": 0.125, "kind": "a"}


def test_a_batch_of_wishes_holds_only_those_like_the_first() -> None:
    algorithm = made(wishes=({"depth": 4}, {"depth": 3}, {"depth": 4, "rate": 0.1}))
    batch = algorithm.suggest(8, alike=("depth",))
    assert [(s.hyperparameters["depth"], s.hyperparameters["rate"]) for s in batch] == [(4, 0.5), (4, 0.1)]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"dept": 3}, "no parameter 'dept'; did you mean 'depth'?"),
        ({"depth": 9}, r"depth.*9"),
        ({"extra": 0.5}, r"'extra' is set but not active; it exists only when kind in \['b'\]"),
    ],
)
def test_a_wish_that_does_not_fit_is_refused_by_name_and_range(wish: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made().enqueue([wish])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=message):
        filled(wish, space=SPACE)  # type: ignore[arg-type]


def test_what_another_search_tried_is_fitted_to_this_space() -> None:
    others = [
        {"depth": 3, "rate": 7.0, "kind": "b", "extra": 0.75, "foreign": 1},
        {"foreign": 2},
        {"depth": 3, "kind": "b", "extra": 0.75},
        {"kind": "a", "extra": 0.75},
        {"depth": 1},
    ]
    found = transferred(others, space=SPACE, most=2)  # type: ignore[arg-type]
    assert found == [
        {"depth": 3, "rate": 0.5, "kind": "b", "extra": 0.75},
        {"depth": 2, "rate": 0.5, "kind": "a"},
    ]
    assert transferred(others, space=SPACE, most=0) == []  # type: ignore[arg-type]
