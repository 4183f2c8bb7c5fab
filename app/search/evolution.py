"""Regularised evolution: the young are parents, the winner of a tournament is mutated.

Real, Aggarwal, Huang, Le: "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, Algorithm 1.
Departures: the population is 40 rather than 100, since searches here have tens to hundreds of trials; children start
before it is full; a child that was tried before is mutated further.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import final

import numpy as np

from app.search.observations import observe_rung
from app.search.parameters import Array
from app.search.random import RandomSampler
from app.search.sampler import Sampler, Shared, UnitRows, draw_new
from app.search.space import Configuration, Space
from app.search.trial import History

NUM_INITIAL = 15  # quasi-random trials before the first child
_POPULATION = 40  # the youngest trials; older ones die whatever their loss, so that luck is forgotten
_TOURNAMENT = 10
_NUM_TRIES = 32  # children of one tournament before a random point is taken; every four of them mutate once more


@final
class EvolutionSampler(Sampler):
    """Mutations of the winners of tournaments among the youngest trials; for large spaces of architectures.

    It needs no model, so it costs nothing at any number of trials. A failed trial takes its place in the population
    and never wins.

    Args:
        space: what may be drawn.
        seed: of the quasi-random start; >= 0.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self.space = space
        self._start = RandomSampler(space, seed=seed)
        self._rows = UnitRows(space)

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """See `Sampler.sample`."""
        observed = observe_rung(history.values(), least=_TOURNAMENT)
        if len(history) < NUM_INITIAL or observed.num_known == 0:
            return self._start.sample(history, num, rng, alike=alike)
        young = self._rows.of(observed.trials)[-_POPULATION:]
        losses = np.where(np.isnan(observed.losses), np.inf, observed.losses)[-_POPULATION:]
        seen: set[Hashable] = {*self._rows.keys(history)}
        shared = Shared(self.space, alike)
        configurations: list[Configuration] = []
        for _ in range(num):
            row = self._child(young, losses, seen, rng, shared)
            if row is None:
                break
            configurations.append(self.space.from_units(row))
            shared.learn(row)
            seen.add(self.space.keys(row[None, :])[0])
        return configurations

    def _child(
        self, young: Array, losses: Array, seen: set[Hashable], rng: np.random.Generator, shared: Shared
    ) -> Array | None:
        """A new mutant (P,) of a tournament's winner."""
        entrants = rng.choice(len(young), size=min(_TOURNAMENT, len(young)), replace=False)
        parent = young[entrants[np.argmin(losses[entrants])]]
        children = self.space.mutate_units(
            np.repeat(parent[None, :], _NUM_TRIES, axis=0), rng=rng, num_changes=1 + np.arange(_NUM_TRIES) // 4
        )
        if shared:
            children = shared.imposed(children)
        for child, key in zip(children, self.space.keys(children), strict=True):
            if key not in seen:
                return np.asarray(child)
        left = draw_new(self.space, seen, rng, shared)
        return None if left is None else self.space.units(left)
