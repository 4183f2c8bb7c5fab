"""Asynchronous successive halving: promote whoever is among the best of its rung, without waiting for the rung to fill.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020, Algorithm 2. Departures: a promoted trial resumes instead of starting again; no more than one in
`eta` of a rung is promoted, also when the early ones turn out to have been the wrong ones (the delay of Li et al.,
"Hyper-Tune", VLDB 2022, section 4.2); and when no new trial can come, the best of a rung too small for the rule goes
on, so that somebody reaches the full budget.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from app.search.hyperband import plan
from app.search.sampler import Sampler
from app.search.scheduler import Scheduler
from app.search.trial import Completed, History, Paused, Suggestion, Trial


@dataclass(frozen=True, slots=True)
class _Level:
    """A rung as it stands.

    Attributes:
        ranked: trials that are through with it, best first; promoted ones keep their place.
        num_running: trials that train towards its budget.
        num_promoted: trials that went on from it, or won the place and had nothing left to train.
    """

    ranked: tuple[Trial, ...]
    num_running: int
    num_promoted: int


@final
class SuccessiveHalving(Scheduler):
    """Asynchronous successive halving (ASHA); for many epochs a trial and any number of workers, none of which waits.

    Failed and pruned trials count as members of their rung but are never promoted. A completed trial (stopped early)
    keeps its loss in the rung where it ended and, as long as it is among the best there, in those above.

    Args:
        max_epochs: largest budget of a trial in epochs; >= 1.
        eta: one in `eta` trials of a rung goes on; >= 2.
        max_trials: no more configurations than this; None for no limit.
    """

    def __init__(self, *, max_epochs: int, eta: int = 3, max_trials: int | None = None) -> None:
        self.budgets = tuple(rung.budget for rung in plan(max_epochs=max_epochs, eta=eta)[0].rungs)
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
        """See `Scheduler.next`; promotions go before new trials, those to the highest rung first."""
        levels = self._levels(history)
        suggestions: list[Suggestion] = []
        for level in reversed(range(len(self.budgets) - 1)):
            rung = levels[level]
            places = len(rung.ranked) // self.eta
            waiting = [trial for trial in rung.ranked[:places] if self._can_go_on(trial, level)]
            suggestions += [self._promoted(trial) for trial in waiting[: max(0, places - rung.num_promoted)]]
        suggestions = suggestions[:num]
        suggestions += self._new_trials(history, sampler, num - len(suggestions), rng, alike)
        return suggestions or self._last_promotion(levels)

    def _levels(self, history: History) -> list[_Level]:
        """The rungs, lowest first."""
        levels: list[_Level] = []
        # Results from elsewhere, in no bracket (-1), neither fill a rung nor take a place.
        entered: Sequence[Trial] = [trial for trial in history.values() if trial.bracket >= 0]
        for level, budget in enumerate(self.budgets):
            ranked = sorted(
                (trial for trial in entered if trial.rung > level or trial.outcome is not None),
                key=lambda trial: (_loss_at(trial, level, budget), trial.number),
            )
            best = ranked[: len(ranked) // self.eta]
            over = {trial.number for trial in best if isinstance(trial.outcome, Completed)}
            following = [trial for trial in ranked if trial.rung > level or trial.number in over]
            num_running = len(entered) - len(ranked)
            levels.append(_Level(tuple(ranked), num_running=num_running, num_promoted=len(following)))
            entered = following
        return levels

    def _can_go_on(self, trial: Trial, level: int) -> bool:
        """Whether `trial` waits in rung `level` and has something left to train in the next."""
        return (
            trial.rung == level
            and isinstance(trial.outcome, Paused)
            and trial.loss is not None
            and trial.outcome.step < self.budgets[level + 1]
        )

    def _promoted(self, trial: Trial) -> Suggestion:
        return Suggestion(
            trial=trial.number,
            hyperparameters=trial.hyperparameters,
            start_epoch=trial.outcome.step if isinstance(trial.outcome, Paused) else trial.epochs,
            budget=self.budgets[trial.rung + 1],
            rung=trial.rung + 1,
            bracket=trial.bracket,
        )

    def _new_trials(
        self, history: History, sampler: Sampler, num: int, rng: np.random.Generator, alike: Collection[str]
    ) -> list[Suggestion]:
        if self.max_trials is not None:
            num = min(num, self.max_trials - len(history))
        if num <= 0:
            return []
        configurations = sampler.sample(history, num, rng, alike=alike)
        return [
            Suggestion(trial=number, hyperparameters=configuration, start_epoch=0, budget=self.budgets[0])
            for number, configuration in enumerate(configurations, start=history.next_number)
        ]

    def _last_promotion(self, levels: Sequence[_Level]) -> list[Suggestion]:
        """The best of the lowest rung that is over and had no place to give; [] while a lower one is not over."""
        for level, rung in enumerate(levels[:-1]):
            if rung.num_running:
                break
            if not rung.num_promoted:
                waiting = [trial for trial in rung.ranked if self._can_go_on(trial, level)]
                return [self._promoted(trial) for trial in waiting[:1]]
        return []


def _loss_at(trial: Trial, level: int, budget: int) -> float:
    """What rung `level` ranks by."""
    loss = trial.loss if isinstance(trial.outcome, Completed) else trial.loss_until(budget)
    if trial.rung > level:
        # A restart may have lost the early losses; the place is kept.
        return -math.inf if loss is None else loss
    return loss if loss is not None and isinstance(trial.outcome, Paused | Completed) else math.inf
