"""Hyperband: many configurations for a few epochs, the best of them for more.

Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar: "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization", JMLR 18 (2018), Algorithm 1. Departures: survivors resume instead of starting again, a rung's budget is
rounded to whole epochs, and brackets repeat until the space or the budget is exhausted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from app.search.sampler import Sampler
from app.search.scheduler import Scheduler
from app.search.space import Configuration
from app.search.trial import Completed, History, Paused, Suggestion, Trial


@dataclass(frozen=True, slots=True)
class Rung:
    """`num_trials` trials train until `budget` epochs are done."""

    num_trials: int
    budget: int


@dataclass(frozen=True, slots=True)
class Bracket:
    """Rungs of growing budget and falling number of trials."""

    rungs: tuple[Rung, ...]

    @property
    def num_trials(self) -> int:
        """Configurations that enter the bracket."""
        return self.rungs[0].num_trials

    @property
    def epochs_from_scratch(self) -> int:
        """Epochs if every rung started its trials again."""
        return sum(rung.num_trials * rung.budget for rung in self.rungs)

    @property
    def epochs(self) -> int:
        """Epochs trained when survivors resume."""
        done = (0, *(rung.budget for rung in self.rungs))
        return sum(rung.num_trials * (rung.budget - before) for rung, before in zip(self.rungs, done, strict=False))


def plan(*, max_epochs: int, eta: int = 3) -> tuple[Bracket, ...]:
    """The brackets of one round, from the boldest (most trials, smallest first budget) to full training.

    Args:
        max_epochs: largest budget of a trial in epochs (R in the paper); >= 1.
        eta: one in `eta` trials survives a rung; >= 2.
    """
    # Whole-number arithmetic: floor(log(243, 3)) is 4 in floating point.
    s_max = 0
    while eta ** (s_max + 1) <= max_epochs:
        s_max += 1
    brackets = []
    for s in range(s_max, -1, -1):
        num_trials = -(-(s_max + 1) * eta**s // (s + 1))
        rungs = tuple(
            Rung(num_trials=num_trials // eta**i, budget=math.floor(max_epochs / eta ** (s - i) + 0.5))
            for i in range(s + 1)
        )
        brackets.append(Bracket(rungs))
    return tuple(brackets)


@final
class Hyperband(Scheduler):
    """Hyperband over any sampler.

    A rung is judged when all its trials have ended. Failed and pruned trials take up their place but are never
    promoted. A completed trial (stopped early) keeps its loss; when it wins a promotion there is nothing left to train.

    Args:
        max_epochs: largest budget of a trial in epochs; >= 1.
        eta: one in `eta` trials survives a rung; >= 2.
        max_trials: no more configurations than this; None for no limit. The last bracket is then smaller.
    """

    def __init__(self, *, max_epochs: int, eta: int = 3, max_trials: int | None = None) -> None:
        self.brackets = plan(max_epochs=max_epochs, eta=eta)
        self.eta = eta
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
        """See `Scheduler.next`; promotions go before new trials, and a rung must end before the next begins."""
        # Results from elsewhere are in no bracket, -1.
        current = max(0, max((trial.bracket for trial in history.values()), default=0))
        members = [trial for trial in history.values() if trial.bracket == current]
        rungs = self.brackets[current % len(self.brackets)].rungs
        places = min(num, rungs[0].num_trials - len(members))
        fresh = self._new_trials(history, partial(sampler.sample, rng=rng, alike=alike), places, current)
        if fresh:
            return fresh
        # No more can enter: the rung is full, or the space or the number of trials is used up.
        promoted, finished = self._promotions(members, rungs, current)
        if promoted or not finished:
            return promoted[:num]
        following = self.brackets[(current + 1) % len(self.brackets)].rungs
        places = min(num, following[0].num_trials)
        return self._new_trials(history, partial(sampler.sample, rng=rng, alike=alike), places, current + 1)

    def _new_trials(
        self, history: History, draw: Callable[[History, int], list[Configuration]], num: int, bracket: int
    ) -> list[Suggestion]:
        if self.max_trials is not None:
            num = min(num, self.max_trials - len(history))
        if num <= 0:
            return []
        budget = self.brackets[bracket % len(self.brackets)].rungs[0].budget
        return [
            Suggestion(
                trial=number, hyperparameters=configuration, start_epoch=0, budget=budget, rung=0, bracket=bracket
            )
            for number, configuration in enumerate(draw(history, num), start=history.next_number)
        ]

    def _promotions(
        self, members: Sequence[Trial], rungs: Sequence[Rung], bracket: int
    ) -> tuple[list[Suggestion], bool]:
        """Trials that may resume now, best first; and whether the bracket is over."""
        entered = len(members)
        for level, rung in enumerate(rungs):
            if any(trial.rung == level and trial.outcome is None for trial in members):
                return [], False
            if level + 1 == len(rungs):
                break
            # A bracket cut short by an exhausted space shrinks as a full one would, but somebody reaches the top.
            places = max(1, entered * rungs[level + 1].num_trials // rungs[0].num_trials)
            members = _survivors(members, level=level, budget=rung.budget, places=places)
            waiting = [t for t in members if t.rung == level and isinstance(t.outcome, Paused)]
            if waiting:
                return [_resumed(trial, rungs[level + 1].budget, bracket) for trial in waiting], False
        return [], True


def _survivors(members: Sequence[Trial], *, level: int, budget: int, places: int) -> list[Trial]:
    """The trials that go on after rung `level`, best first."""
    ranked = []
    for trial in members:
        promoted = trial.rung > level
        loss = trial.loss if isinstance(trial.outcome, Completed) else trial.loss_until(budget)
        eligible = isinstance(trial.outcome, Paused | Completed) and loss is not None
        if promoted or eligible:
            # Those already promoted keep their place, even if a restart has lost their early losses.
            ranked.append((not promoted, math.inf if loss is None else loss, trial.number, trial))
    ranked.sort(key=lambda entry: entry[:3])
    return [trial for *_, trial in ranked[:places]]


def _resumed(trial: Trial, budget: int, bracket: int) -> Suggestion:
    step = trial.outcome.step if isinstance(trial.outcome, Paused) else trial.epochs
    return Suggestion(
        trial=trial.number,
        hyperparameters=trial.hyperparameters,
        start_epoch=step,
        budget=budget,
        rung=trial.rung + 1,
        bracket=bracket,
    )
