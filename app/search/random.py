"""Random search: the space's defaults, then a quasi-random start."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import final

import numpy as np
from scipy.stats import qmc

from app.search.sampler import Sampler, Shared, UnitRows, draw_new
from app.search.space import Configuration, Space
from app.search.trial import History

# A Sobol sequence covers the space more evenly than random points while they are few; a power of two keeps its balance.
_NUM_QUASI_RANDOM = 64


@final
class RandomSampler(Sampler):
    """The defaults first, then scrambled Sobol points, then independent uniform points; never the same twice.

    Whoever wrote the space put its defaults where good results are to be expected: a search that has time for three
    trials should not leave them out.

    Args:
        space: what may be drawn.
        seed: scrambles the Sobol sequence; >= 0.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self.space = space
        self._rows = UnitRows(space)
        scrambler = np.random.default_rng([seed, 0x50B01])
        self._start = qmc.Sobol(len(space.parameters), scramble=True, rng=scrambler).random(_NUM_QUASI_RANDOM)

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """See `Sampler.sample`; the Sobol point used is the one of the trial's place in the history."""
        seen: set[Hashable] = {*self._rows.keys(history)}
        shared = Shared(self.space, alike)
        configurations: list[Configuration] = []
        for index in range(len(history), len(history) + num):
            configuration = self._quasi_random(index, seen, shared) or draw_new(self.space, seen, rng, shared)
            if configuration is None:
                break
            row = self.space.units(configuration)
            shared.learn(row)
            seen.add(self.space.keys(row[None, :])[0])
            configurations.append(configuration)
        return configurations

    def _quasi_random(self, index: int, seen: Collection[Hashable], shared: Shared) -> Configuration | None:
        if index > _NUM_QUASI_RANDOM:
            return None
        if index == 0:
            configuration = self.space.default()
        else:
            configuration = self.space.from_units(shared.imposed(self._start[index - 1 : index])[0])
        return None if self.space.key(configuration) in seen else configuration
