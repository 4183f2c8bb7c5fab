"""What a scheduler is: who trains next, and for how many epochs."""

from __future__ import annotations

import abc
from collections.abc import Collection

import numpy as np

from app.search.sampler import Sampler
from app.search.trial import History, Suggestion


class Scheduler(abc.ABC):
    """Turns configurations into suggestions with budgets, and brings paused trials back."""

    @abc.abstractmethod
    def next(
        self,
        history: History,
        sampler: Sampler,
        num: int,
        rng: np.random.Generator,
        *,
        alike: Collection[str] = (),
    ) -> list[Suggestion]:
        """Up to `num` suggestions; fewer while others must end first.

        [] while nothing runs means that nothing is left to do. Pure, as samplers are. New configurations share the
        values of the parameters named in `alike` (`Sampler.sample`); trials that are resumed keep theirs.
        """
