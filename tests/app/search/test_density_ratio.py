from __future__ import annotations

import math

import numpy as np
import pytest

from app.search import Boolean, Categorical, Completed, Condition, Ended, Float, Int, Scale, Space, Started, create
from app.search.density_ratio import _Density

SPACE = Space(
    [
        Float("rate", 1e-5, 1.0, scale=Scale.LOG),
        Categorical("kind", ("a", "b", "c", "d")),
        Float("extra", 0.0, 1.0, conditions=(Condition("kind", ("c",)),)),
        Int("depth", 1, 6),
        Boolean("norm"),
    ]
)


def loss(configuration: dict[str, object]) -> float:
    """Least (0) at rate 0.01, kind c, extra 0.2, depth 4."""
    extra = abs(float(configuration["extra"]) - 0.2) if configuration["kind"] == "c" else 1.0  # type: ignore[arg-type]
    rate = math.log10(float(configuration["rate"])) + 2.0  # type: ignore[arg-type]
    return rate**2 + extra + 0.1 * abs(int(configuration["depth"]) - 4)  # type: ignore[call-overload,no-any-return]


def best(name: str, seed: int) -> float:
    algorithm = create(name, space=SPACE, seed=seed, max_epochs=1)
    for _ in range(50):
        suggestion = algorithm.suggest(1)[0]
        value = loss(dict(suggestion.hyperparameters))
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Completed(value))])
    return min(trial.loss or 0.0 for trial in algorithm.history.values())


@pytest.mark.parametrize("name", ["tpe", "evolution"])
def test_sampler_beats_random_search_by_far(name: str) -> None:
    found = [best(name, seed) for seed in range(4)]
    random = [best("random", seed) for seed in range(4)]
    assert np.mean(found) < 0.6 * np.mean(random)


def test_density_integrates_to_one_over_each_kind_of_parameter() -> None:
    # Relative to the uniform density, so its mean over uniform points is 1.
    rng = np.random.default_rng(0)
    centers = SPACE.canonical(rng.random((7, 5)))
    density = _Density.around(SPACE, centers, np.arange(8.0, 0.0, -1.0))
    points = SPACE.canonical(rng.random((60_000, 5)))
    assert np.exp(density.log_ratio(points)).mean() == pytest.approx(1.0, abs=0.03)


def test_draws_follow_the_density() -> None:
    rng = np.random.default_rng(1)
    centers = SPACE.canonical(rng.random((4, 5)))
    density = _Density.around(SPACE, centers, np.ones(5))
    drawn = SPACE.canonical(density.draw(20_000, rng))
    uniform = SPACE.canonical(rng.random((60_000, 5)))
    weight = np.exp(density.log_ratio(uniform))
    for index in range(5):
        assert drawn[:, index].mean() == pytest.approx(np.average(uniform[:, index], weights=weight), abs=0.05)


def test_one_more_component_is_what_a_density_around_it_says() -> None:
    rng = np.random.default_rng(2)
    center, points = SPACE.canonical(rng.random((1, 5))), SPACE.canonical(rng.random((50, 5)))
    density = _Density.around(SPACE, center, np.array([1.0, 1e-12]))
    assert np.allclose(density.around_one(center[0], points), density.log_ratio(points), atol=1e-4)
