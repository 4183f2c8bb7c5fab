"""Grid search: every configuration of a finite space, once."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import final

import numpy as np

from app.search.parameters import Categorical, Float, Int, Parameter, Value, same_value
from app.search.sampler import Sampler, Shared, draw_new
from app.search.space import Configuration, Space
from app.search.trial import History

_MOST_LEVELS = 10
_DEFAULT_LEVELS = 5


@final
class GridSampler(Sampler):
    """Visits all points of a grid in random order.

    The order is random because a budget may end the search early: in counting order the first parameter would then
    never have changed. A finite space is its own grid. An infinite one is thinned to a few levels for each number, ends
    included.

    Args:
        space: what may be tried.
        max_trials: expected number of trials; an infinite space gets as many levels (2 to 10) as fit, 5 when None.
    """

    def __init__(self, space: Space, *, max_trials: int | None = None) -> None:
        self.space = space
        self.grid = space if space.num_configurations is not None else _thinned(space, max_trials)

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """See `Sampler.sample`."""
        seen: set[Hashable] = {self.grid.key(trial.hyperparameters) for trial in history.values()}
        shared = Shared(self.grid, alike)
        configurations: list[Configuration] = []
        while len(configurations) < num:
            configuration = draw_new(self.grid, seen, rng, shared)
            if configuration is None:
                break
            row = self.grid.units(configuration)
            shared.learn(row)
            seen.add(self.grid.keys(row[None, :])[0])
            configurations.append(configuration)
        return configurations


def _thinned(space: Space, max_trials: int | None) -> Space:
    if max_trials is None:
        return _with_levels(space, _DEFAULT_LEVELS)
    for num_levels in range(_MOST_LEVELS, 2, -1):
        grid = _with_levels(space, num_levels)
        if grid.num_configurations is not None and grid.num_configurations <= max_trials:
            return grid
    return _with_levels(space, 2)


def _with_levels(space: Space, num_levels: int) -> Space:
    wanted: dict[str, list[Value]] = {name: [] for name in space.names}
    for parameter in space.parameters:
        for condition in parameter.conditions:
            wanted[condition.parent].extend(condition.values)
    return Space([_levels(parameter, num_levels, wanted[parameter.name]) for parameter in space.parameters])


def _levels(parameter: Parameter, num_levels: int, wanted: list[Value]) -> Parameter:
    """The parameter as an ordered choice of levels; values that conditions name stay among them."""
    count = parameter.num_values
    if not isinstance(parameter, Float | Int) or (count is not None and count <= num_levels):
        return parameter
    values: list[Value] = [parameter.value_at(unit) for unit in np.linspace(0.0, 1.0, num_levels).tolist()]
    values += [value for value in wanted if not any(same_value(value, other) for other in values)]
    return Categorical(parameter.name, tuple(sorted(set(values))), ordered=True, conditions=parameter.conditions)
