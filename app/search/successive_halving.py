"""Asynchronous successive halving: promote whoever is among the best of its rung, without waiting for the rung to fill.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020, Algorithm 2. Departures: a promoted trial resumes instead of starting again; no more than one in
`eta` of a rung is promoted, also when the early ones turn out to have been the wrong ones (the delay of Li et al.,
"Hyper-Tune", VLDB 2022, section 4.2); and when no new trial can come, the best of a rung too small for the rule goes
on, so that somebody reaches the full budget.

A hedge against rungs that mislead, in the spirit of Hyperband's brackets and of BOHB's model: a share of the epochs
goes to trials of the full budget. Where promotions do not use it up, the sampler is asked what it would train, knowing
only the trials of the largest budget that enough of them reached; its answer trains to the end at once. Often that is a
trial which a low rung ranked too badly to promote it, and then it goes on from where it paused.

The rest is decided as by freezing and thawing (Swersky, Snoek, Adams: "Freeze-Thaw Bayesian Optimization", 2014): a
sampler that models all budgets may also answer with a paused trial, which then trains to the next rung. So one whose
like have stopped to gain is left, and one that a rung ranked low but that promises more goes on.
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
from app.search.space import Configuration
from app.search.trial import Completed, Failed, History, Paused, Pruned, Started, Suggestion, Trial

FULL_SHARE = 0.75
"""Least share of the epochs for trials of the full budget, where the sampler learns."""


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
        full_share: least share of the epochs for trials of the full budget, once the first has completed; with 0 only
            promotions lead there. In [0, 1).
        least_shown: trials from which the sampler learns what to train to the end; its random start should be over.
    """

    def __init__(
        self,
        *,
        max_epochs: int,
        eta: int = 3,
        max_trials: int | None = None,
        full_share: float = 0.0,
        least_shown: int = 1,
    ) -> None:
        self.budgets = tuple(rung.budget for rung in plan(max_epochs=max_epochs, eta=eta)[0].rungs)
        self.eta = eta
        self.max_trials = max_trials
        self.full_share = full_share
        self.least_shown = least_shown

    def next(
        self,
        history: History,
        sampler: Sampler,
        num: int,
        rng: np.random.Generator,
        *,
        alike: Collection[str] = (),
    ) -> list[Suggestion]:
        """See `Scheduler.next`; promotions first, those to the highest rung before others, then full trainings."""
        levels = self._levels(history)
        suggestions: list[Suggestion] = []
        for level in reversed(range(len(self.budgets) - 1)):
            rung = levels[level]
            places = len(rung.ranked) // self.eta
            waiting = [trial for trial in rung.ranked[:places] if self._can_go_on(trial, level)]
            suggestions += [self._promoted(trial) for trial in waiting[: max(0, places - rung.num_promoted)]]
        suggestions = suggestions[:num]
        suggestions += self._full_trainings(history, sampler, suggestions, num - len(suggestions), rng, alike)
        # Those that start for the full budget would not share their values with those that start for the first rung.
        if not alike or all(suggestion.start_epoch for suggestion in suggestions):
            known = history.applied(Started(suggestion) for suggestion in suggestions)
            suggestions += self._new_or_thawed(known, sampler, num - len(suggestions), rng, alike)
        return suggestions or self._last_promotion(levels)

    def _levels(self, history: History) -> list[_Level]:
        """The rungs, lowest first."""
        levels: list[_Level] = []
        # Results from elsewhere, in no bracket (-1), neither fill a rung nor take a place.
        entered: Sequence[Trial] = [trial for trial in history.values() if trial.bracket >= 0]
        for level, budget in enumerate(self.budgets):
            # Nor do trials that leave out the rungs from here on.
            entered = [trial for trial in entered if trial.rung > level or trial.budget <= budget]
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
        return self._resumed(trial, self.budgets[trial.rung + 1])

    def _resumed(self, trial: Trial, budget: int) -> Suggestion:
        return Suggestion(
            trial=trial.number,
            hyperparameters=trial.hyperparameters,
            start_epoch=_step(trial),
            budget=budget,
            rung=trial.rung + 1,
            bracket=trial.bracket,
        )

    def _full_trainings(
        self,
        history: History,
        sampler: Sampler,
        promoted: Sequence[Suggestion],
        num: int,
        rng: np.random.Generator,
        alike: Collection[str],
    ) -> list[Suggestion]:
        """Up to `num` trials that train to the end at once: what their share of the epochs leaves room for."""
        num = min(num, self._full_room(history, promoted))
        if self.max_trials is not None:
            num = min(num, self.max_trials - len(history))
        if num <= 0:
            return []
        history = history.applied(Started(suggestion) for suggestion in promoted)
        shown = _most_telling(history, self.budgets, least=self.least_shown)
        known = {_identity(trial.hyperparameters): trial for trial in history.values()}
        suggestions: list[Suggestion] = []
        for configuration in sampler.sample(shown, num, rng, alike=alike):
            trial = known.get(_identity(configuration))
            if trial is None:
                number = history.next_number + sum(suggestion.start_epoch == 0 for suggestion in suggestions)
                suggestions.append(Suggestion(number, configuration, start_epoch=0, budget=self.budgets[-1]))
            elif isinstance(trial.outcome, Paused) and self._can_thaw(trial):
                suggestions.append(self._resumed(trial, self.budgets[-1]))
        return suggestions

    def _full_room(self, history: History, promoted: Sequence[Suggestion]) -> int:
        """How many more trials of the full budget their share of the epochs has room for."""
        full = self.budgets[-1]
        if not self.full_share or len(self.budgets) == 1 or not any(_is_through(t, full) for t in history.values()):
            return 0
        own = [trial for trial in history.values() if trial.bracket >= 0]
        at_full = sum(_epochs(trial) for trial in own if trial.budget >= full)
        at_full += sum(s.budget - s.start_epoch for s in promoted if s.budget >= full)
        spent = sum(_epochs(trial) for trial in own) + sum(s.budget - s.start_epoch for s in promoted)
        # Each of them adds its epochs to both sides.
        return max(0, math.ceil((self.full_share * spent - at_full) / ((1.0 - self.full_share) * full)))

    def _new_or_thawed(
        self, history: History, sampler: Sampler, num: int, rng: np.random.Generator, alike: Collection[str]
    ) -> list[Suggestion]:
        if self.max_trials is not None:
            num = min(num, self.max_trials - len(history))
        if num <= 0:
            return []
        paused = {_identity(trial.hyperparameters): trial for trial in history.paused if self._can_thaw(trial)}
        asked = History(history.values(), resource=history.resource, again=[trial.number for trial in paused.values()])
        suggestions: list[Suggestion] = []
        number = history.next_number
        for configuration in sampler.sample(asked, num, rng, alike=alike):
            trial = paused.get(_identity(configuration))
            if trial is None:
                suggestions.append(Suggestion(number, configuration, start_epoch=0, budget=self.budgets[0]))
                number += 1
            else:
                following = next(budget for budget in self.budgets if budget > _step(trial))
                suggestions.append(self._resumed(trial, following))
        return suggestions

    def _can_thaw(self, trial: Trial) -> bool:
        # Not a result from elsewhere (bracket -1), which has no state to go on from.
        return trial.bracket >= 0 and trial.loss is not None and _step(trial) < self.budgets[-1]

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


def _identity(configuration: Configuration) -> frozenset[tuple[str, object]]:
    return frozenset(configuration.items())


def _step(trial: Trial) -> int:
    """Epochs after which a trial that is resumed goes on."""
    return trial.outcome.step if isinstance(trial.outcome, Paused) else trial.epochs


def _epochs(trial: Trial) -> int:
    """Epochs that a trial has had or, while it runs, is to have."""
    return trial.budget if trial.outcome is None else trial.epochs


def _is_through(trial: Trial, budget: int) -> bool:
    return isinstance(trial.outcome, Completed) and trial.budget >= budget


def _most_telling(history: History, budgets: Sequence[int], *, least: int) -> History:
    """The trials that reached, or run towards, the largest budget with enough of them; and those that are lost.

    A model of these is not misled by what the first epochs say, and may choose what was given up after them.
    """
    for budget in reversed(budgets):
        reached = [trial for trial in history.values() if trial.loss is not None and _has_reached(trial, budget)]
        if len(reached) >= least or budget == budgets[0]:
            break
    shown = {trial.number for trial in reached}
    parts: dict[bool, list[Trial]] = {True: [], False: []}
    for trial in history.values():
        is_lost = isinstance(trial.outcome, Failed | Pruned)
        is_on_its_way = trial.outcome is None and trial.budget >= budget
        parts[trial.number in shown or is_lost or is_on_its_way].append(trial)
    return History(parts[True], resource=history.resource, hidden=parts[False])


def _has_reached(trial: Trial, budget: int) -> bool:
    return isinstance(trial.outcome, Completed) or (trial.outcome is not None and trial.epochs >= budget)
