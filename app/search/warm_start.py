"""Configurations that somebody wants tried before the search chooses for itself.

They come from people (`enqueue`), from a space's portfolio of configurations known to be good, and from earlier
searches on like data. The history decides which of them are still to be tried: there is no queue to lose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from typing import final

import numpy as np

from app.search.parameters import Categorical, Float, Int, Parameter, same_value
from app.search.sampler import Sampler, UnitRows
from app.search.space import Configuration, Space, Value
from app.search.trial import History


@final
class WishesFirst(Sampler):
    """Proposes wished-for configurations in their order, then what another sampler proposes.

    A wish that was tried already, wherever it came from, is not tried again.

    Args:
        inner: Asked when no wish is left.
        wishes: Configurations of the inner sampler's space.
    """

    def __init__(self, inner: Sampler, *, wishes: Sequence[Configuration]) -> None:
        self.space = inner.space
        self._inner = inner
        self._rows = UnitRows(self.space)
        self._wishes = {self.space.key(wish): dict(wish) for wish in wishes}

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """See `Sampler.sample`; a batch of wishes may be smaller than asked."""
        if self._wishes:
            # What a scheduler keeps from the sampler was tried too: how far it trains is for its rank to say.
            tried = self._rows.keys(history) | set(self.space.keys(self._rows.of(history.hidden)))
            left = [wish for key, wish in self._wishes.items() if key not in tried]
            if left:
                shared = {name: left[0].get(name) for name in alike}
                like_first = [wish for wish in left if all(wish.get(name) == shared[name] for name in alike)]
                return [dict(wish) for wish in like_first[:num]]
        return self._inner.sample(history, num, rng, alike=alike)


def transferred(configurations: Iterable[Configuration], *, space: Space, most: int) -> list[Configuration]:
    """Returns configurations of another search as configurations of `space`, in their order.

    A parameter that `space` does not have is left out; one that is missing, or whose value is out of range, takes
    its default. What is left of a configuration that has nothing in common with `space` is its default, so such are
    dropped.

    Args:
        configurations: The other search's, best first.
        space: This search's.
        most: How many at most, at least 0.
    """
    found: dict[object, Configuration] = {}
    for configuration in configurations:
        if len(found) >= most:
            break
        fitted, num_kept = _fitted(configuration, space)
        if num_kept:
            found.setdefault(space.key(fitted), fitted)
    return list(found.values())


def _fitted(configuration: Configuration, space: Space) -> tuple[Configuration, int]:
    fitted: dict[str, Value] = {}
    num_kept = 0
    # Parents come before children, so the value that a parent has by now decides which children there are.
    for parameter in space.parameters:
        if not space.is_active(parameter.name, fitted):
            continue
        fitted[parameter.name] = parameter.fallback
        if parameter.name in configuration:
            with contextlib.suppress(ValueError):
                parameter.check(configuration[parameter.name])
                fitted[parameter.name] = configuration[parameter.name]
                num_kept += 1
    return fitted, num_kept


def filled(configuration: Configuration, *, space: Space) -> Configuration:
    """Returns `configuration` with the defaults of the active parameters that it leaves out.

    Raises:
        ValueError: It has a parameter that the space does not have or that is not active, or a value out of range; the
            message names both.
    """
    complete = dict(configuration)
    for parameter in space.parameters:
        if parameter.name not in complete and space.is_active(parameter.name, complete):
            complete[parameter.name] = parameter.fallback
    space.validate(complete)
    return {name: _plain(space[name], value) for name, value in complete.items()}


def _plain(parameter: Parameter, value: Value) -> Value:
    """Returns a value of a parameter as the space itself has it: of NumPy, journals and builds know no numbers."""
    match parameter:
        case Int():
            return int(value)
        case Float():
            return float(value)
        case Categorical():
            return next(choice for choice in parameter.choices if same_value(choice, value))
    return value
