from __future__ import annotations

import numpy as np

from app.search.random import RandomSampler
from app.search.space import Categorical, Condition, Float, Int, Space
from app.search.trial import History, Started, Suggestion

PLANE = Space([Float("x", 0.0, 1.0), Float("y", 0.0, 1.0)])


def test_first_points_cover_the_space_evenly() -> None:
    defaults, *points = RandomSampler(PLANE, seed=0).sample(History(), 65, np.random.default_rng(0))
    assert defaults == PLANE.default()
    cells = {(int(float(point["x"]) * 8), int(float(point["y"]) * 8)) for point in points}
    # 64 independent points would leave about 23 of the 64 cells empty.
    assert len(cells) == 64


def test_prefix_of_a_batch_is_the_smaller_batch() -> None:
    sampler = RandomSampler(PLANE, seed=0)
    assert sampler.sample(History(), 70, np.random.default_rng(0))[:3] == sampler.sample(
        History(), 3, np.random.default_rng(0)
    )


def test_rare_branch_of_a_finite_space_is_still_found() -> None:
    # "many" has 1,000 settings; each of the 300 others is one configuration that is soon used up.
    kinds = ("many", *(f"single {index}" for index in range(300)))
    space = Space([Categorical("kind", kinds), Int("setting", 1, 1000, conditions=(Condition("kind", ("many",)),))])
    singles = [{"kind": kind} for kind in kinds[1:]]
    history = History().applied(
        Started(Suggestion(number, single, start_epoch=0, budget=1)) for number, single in enumerate(singles)
    )
    configurations = RandomSampler(space, seed=0).sample(history, 40, np.random.default_rng(0))
    assert len({space.key(configuration) for configuration in configurations}) == 40
    assert {configuration["kind"] for configuration in configurations} == {"many"}
