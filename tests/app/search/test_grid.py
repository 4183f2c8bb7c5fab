from __future__ import annotations

import numpy as np

from app.search.grid import GridSampler
from app.search.space import Boolean, Condition, Float, Int, Scale, Space
from app.search.trial import History


def everything(sampler: GridSampler) -> list[dict[str, object]]:
    return [dict(c) for c in sampler.sample(History(), 10_000, np.random.default_rng(0))]


def test_finite_space_is_visited_completely() -> None:
    space = Space([Int("a", 1, 30), Boolean("b")])
    found = everything(GridSampler(space))
    assert {(c["a"], c["b"]) for c in found} == {(a, b) for a in range(1, 31) for b in (False, True)}
    assert len(found) == 60


def test_infinite_space_is_thinned_to_levels_with_both_ends() -> None:
    space = Space([Float("rate", 1e-4, 1.0, scale=Scale.LOG), Int("width", 1, 1000)])
    found = everything(GridSampler(space))
    assert np.allclose(sorted({float(str(c["rate"])) for c in found}), [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert {1, 1000} <= {c["width"] for c in found}
    assert len(found) == 25


def test_levels_grow_with_the_number_of_trials() -> None:
    space = Space([Float("x", 0.0, 1.0), Float("y", 0.0, 1.0)])
    assert [len(everything(GridSampler(space, max_trials=limit))) for limit in (1, 10, 50, 1000)] == [4, 9, 49, 100]


def test_values_that_conditions_name_stay_on_the_grid() -> None:
    child = Boolean("child", conditions=(Condition("parent", (437,)),))
    space = Space([Int("parent", 1, 1000), Float("x", 0.0, 1.0), child])
    found = everything(GridSampler(space))
    assert {c["child"] for c in found if c["parent"] == 437} == {False, True}
    for configuration in found:
        space.validate(configuration)  # type: ignore[arg-type]
