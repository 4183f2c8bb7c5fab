from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.search import Algorithm, Completed, Ended, Float, Int, Space, Started, create
from app.search.algorithm import check_algorithm_name

SPACE = Space([Float("x", 0.0, 1.0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "baysian"}, "no algorithm 'baysian'; did you mean 'bayesian'"),
        ({"name": "qqqq"}, "no algorithm 'qqqq'; expected one of random, grid, bayesian, tpe"),
        ({"name": "hyperband+qqqq"}, "no algorithm 'hyperband"),
        ({"name": "hyperband+ramdom"}, r"no algorithm 'hyperband\+ramdom'; did you mean 'hyperband\+random'"),
        ({"name": "hyprband+tpe"}, r"did you mean 'hyperband\+tpe'"),
        ({"name": "evolutoin"}, "did you mean 'evolution'"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"max_epochs": 0}, "max_epochs is 0; expected a whole number of at least 1"),
        ({"eta": 1}, "eta is 1; expected a whole number of at least 2"),
        ({"max_trials": 0}, "max_trials is 0"),
    ],
)
def test_impossible_recipes_are_refused(changes: dict[str, object], message: str) -> None:
    recipe: dict[str, object] = {"name": "random", "space": SPACE, "seed": 0, "max_epochs": 3, **changes}
    name = recipe.pop("name")
    with pytest.raises(ValueError, match=message):
        create(name, **recipe)  # type: ignore[arg-type]


def test_names_are_checked_without_a_space() -> None:
    assert check_algorithm_name("hyperband+random") == "hyperband+random"
    with pytest.raises(ValueError, match="did you mean 'grid'"):
        check_algorithm_name("gird")


def test_importing_the_search_does_not_load_scipy() -> None:
    root = Path(__file__).parents[3]
    program = "import sys, app.search; print('scipy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_asking_for_no_suggestion_is_refused() -> None:
    with pytest.raises(ValueError, match="0 suggestions asked for; expected at least 1"):
        create("random", space=SPACE, seed=0, max_epochs=3).suggest(0)


def test_dump_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2; this tamiz reads version 1"):
        Algorithm.load({"version": 2})


def test_contradicting_facts_leave_the_algorithm_as_it_was() -> None:
    algorithm = create("random", space=SPACE, seed=0, max_epochs=3)
    suggestion = algorithm.suggest(1)[0]
    with pytest.raises(ValueError, match="has not started"):
        algorithm.update([Started(suggestion), Ended(5, Completed(1.0))])
    assert len(algorithm.history) == 0
    assert algorithm.suggest(1) == [suggestion]


def test_recommendation_is_the_trial_with_the_lowest_loss() -> None:
    algorithm = create("random", space=SPACE, seed=0, max_epochs=3)
    assert algorithm.recommend() is None
    for loss in (3.0, 1.0, 2.0):
        suggestion = algorithm.suggest(1)[0]
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Completed(loss))])
    assert algorithm.recommend() == 1


def test_growing_by_known_parameters_changes_nothing() -> None:
    algorithm = create("bayesian", space=SPACE, seed=0, max_epochs=3)
    algorithm.grow(SPACE.parameters)
    assert algorithm.space is SPACE
    with pytest.raises(ValueError, match="declared twice"):
        algorithm.grow([Int("x", 0, 1)])
