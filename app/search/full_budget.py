"""Every trial trains to the full number of epochs."""

from __future__ import annotations

from collections.abc import Collection
from typing import final

import numpy as np

from app.search.sampler import Sampler
from app.search.scheduler import Scheduler
from app.search.trial import History, Suggestion


@final
class FullBudget(Scheduler):
    """New trials only, each with the whole budget.

    Args:
        max_epochs: budget of a trial in epochs; >= 1.
        max_trials: no more trials than this; None for no limit.
    """

    def __init__(self, *, max_epochs: int, max_trials: int | None = None) -> None:
        self.max_epochs = max_epochs
        self.max_trials = max_trials

    def next(
        self,
        history: History,
        sampler: Sampler,
        num: int,
        rng: np.random.Generator,
        *,
        alike: Collection[str] = (),
    ) -> list[Suggestion]:
        """See `Scheduler.next`."""
        if self.max_trials is not None:
            num = min(num, self.max_trials - len(history))
        if num <= 0:
            return []
        first = history.next_number
        return [
            Suggestion(trial=number, hyperparameters=configuration, start_epoch=0, budget=self.max_epochs)
            for number, configuration in enumerate(sampler.sample(history, num, rng, alike=alike), start=first)
        ]
