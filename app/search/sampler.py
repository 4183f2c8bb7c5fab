"""What a sampler is: history in, new configurations out."""

from __future__ import annotations

import abc
from collections.abc import Collection, Hashable, Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray

from app.search.parameters import Array
from app.search.space import INACTIVE, Configuration, Space
from app.search.trial import History, Trial

_NUM_DRAWS = 200  # tries before a finite space is walked through for what is left


class Sampler(abc.ABC):
    """Proposes configurations that no trial of the history has tried."""

    space: Space

    @abc.abstractmethod
    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """Up to `num` new, distinct configurations; fewer when the space is nearly exhausted, [] when it is.

        Pure: the answer depends on the arguments and on how the sampler was built, on nothing else.

        Args:
            history: all trials so far.
            num: most configurations wanted; >= 1.
            rng: the source of randomness.
            alike: names of parameters that have one value in all configurations of the answer in which they are
                active, so that these trials can train in one graph; names that the space lacks mean nothing. The first
                configuration is chosen as without, and the others may be fewer when not enough share its values.
        """


@final
class Shared:
    """The values that the members of one batch have in common; it learns them from the members as they are chosen.

    Args:
        space: what is drawn from.
        alike: names of the parameters to share.
    """

    def __init__(self, space: Space, alike: Collection[str]) -> None:
        self._indices = [index for index, name in enumerate(space.names) if name in alike]
        self._units: dict[int, float] = {}
        self._space = space

    def __bool__(self) -> bool:
        """Whether anything is shared so far."""
        return bool(self._units)

    def learn(self, row: Array) -> None:
        """Take the values of a member (P,), canonical, for those that no member before it had."""
        for index in self._indices:
            if row[index] != INACTIVE:
                self._units.setdefault(index, float(row[index]))

    def imposed(self, units: Array) -> Array:
        """Canonical rows (n, P) with the shared values put into coordinates (n, P) in [0, 1]."""
        rows = np.where(units == INACTIVE, 0.5, units)
        for index, unit in self._units.items():
            rows[:, index] = unit
        return self._space.canonical(rows)

    def fits(self, rows: Array) -> NDArray[np.bool_]:
        """Which canonical rows (n, P) have the shared values where they have these parameters."""
        fitting = np.ones(len(rows), dtype=np.bool_)
        for index, unit in self._units.items():
            fitting &= (rows[:, index] == INACTIVE) | (np.abs(rows[:, index] - unit) < 1e-9)
        return fitting


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

    def closed(self, history: History) -> Array:
        """Rows (n, P) of the configurations that may not be proposed again."""
        return self.of(trial for trial in history.values() if trial.number not in history.again)


def draw_new(
    space: Space, seen: Collection[Hashable], rng: np.random.Generator, shared: Shared | None = None
) -> Configuration | None:
    """A random configuration that is not among those seen; None when there is none left.

    With values that are shared already, None may also mean that what is left is rare: the batch is then over.
    """
    if shared:
        for row in shared.imposed(rng.random((_NUM_DRAWS, len(space.parameters)))):
            if space.keys(row[None, :])[0] not in seen:
                return space.from_units(row)
        return None
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
