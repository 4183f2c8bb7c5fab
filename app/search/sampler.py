"""What a sampler is: history in, new configurations out."""

from __future__ import annotations

import abc
from collections.abc import Collection, Hashable, Iterable

import numpy as np

from app.search.parameters import Array
from app.search.space import Configuration, Space
from app.search.trial import History, Trial

_NUM_DRAWS = 200  # tries before a finite space is walked through for what is left


class Sampler(abc.ABC):
    """Proposes configurations that no trial of the history has tried."""

    space: Space

    @abc.abstractmethod
    def sample(self, history: History, num: int, rng: np.random.Generator) -> list[Configuration]:
        """Up to `num` new, distinct configurations; fewer when the space is nearly exhausted, [] when it is.

        Pure: the answer depends on the arguments and on how the sampler was built, on nothing else.
        """


class UnitRows:
    """Canonical coordinates of a history's configurations, computed once per configuration.

    A trial's configuration is the same object in all histories it occurs in, so its identity is the key; keeping the
    object with the row makes sure that the identity is not reused.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._rows: dict[int, tuple[Configuration, Array]] = {}

    def of(self, trials: Iterable[Trial]) -> Array:
        """Rows (n, P), one a trial."""
        rows = []
        for trial in trials:
            configuration = trial.hyperparameters
            known = self._rows.get(id(configuration))
            if known is None:
                known = (configuration, self._space.units(configuration))
                self._rows[id(configuration)] = known
            rows.append(known[1])
        return np.array(rows).reshape(len(rows), len(self._space.parameters))

    def keys(self, history: History) -> set[bytes]:
        """Identities of all configurations in the history."""
        return set(self._space.keys(self.of(history.values())))


def draw_new(space: Space, seen: Collection[Hashable], rng: np.random.Generator) -> Configuration | None:
    """A random configuration that is not among those seen; None when there is none left."""
    count = space.num_configurations
    if count is not None and len(seen) >= count:
        # `seen` may also hold points from before the space grew, so count what is really left.
        return next((c for c in space.enumerate() if space.key(c) not in seen), None)
    for _ in range(_NUM_DRAWS):
        configuration = space.sample(rng)
        if space.key(configuration) not in seen:
            return configuration
    if count is None:
        return None
    # What is left may be rare under uniform draws (one branch of a condition): walk from a random place.
    start = int(rng.integers(count))
    walk = (space.configuration_at((start + step) % count) for step in range(count))
    return next((configuration for configuration in walk if space.key(configuration) not in seen), None)
