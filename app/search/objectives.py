"""Several objectives and limits over any sampler and any scheduler.

A sampler is asked with a history whose losses are a scalarisation of all objectives, another one for each suggestion
(ParEGO: Knowles, "ParEGO: A Hybrid Algorithm With On-Line Landscape Approximation for Expensive Multiobjective
Optimization Problems", IEEE Trans. Evol. Comp. 10 (2006), equation 2). A scheduler is asked with losses that say how
far a trial is from the front. So neither knows of any of this.

Departures from ParEGO: objectives are normalised by the extent of the front, not of all trials, so that one absurdly
slow or bad trial does not flatten the differences between good ones; weights are drawn from the whole simplex, not from
a lattice; rho is larger (on a space of 600 configurations the front missed half as much volume as with 0.05).
A trial that breaks a limit counts as worse than every one that keeps all, the more it breaks them the worse (Deb's rule
of feasibility first, "An efficient constraint handling method for genetic algorithms", 2000).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from app.search.limits import Limit, is_feasible, violation
from app.search.parameters import Array
from app.search.pareto import distance_to_front, is_undominated
from app.search.sampler import Sampler
from app.search.scheduler import Scheduler
from app.search.space import Configuration
from app.search.trial import Completed, Failed, History, Resource, Suggestion, Trial

_AUGMENTATION = 0.2  # ParEGO's rho: how much the other objectives count beside the worst one
_MOST_WEIGHTS = 8  # scalarisations in one batch: each costs a fit of the model
_UNKNOWN = 0.5  # a measure that is missing counts as one in the middle of the front

_Scalar = Callable[[Array, NDArray[np.intp]], Array]


@dataclass(frozen=True, slots=True)
class Goals:
    """What a search is after beside the lowest loss.

    Args:
        objectives: measures to be minimised beside the loss.
        limits: what a trial must keep to be of use.
    """

    objectives: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.objectives or self.limits)

    def point(self, trial: Trial) -> tuple[float, ...] | None:
        """The trial's loss and measures (m,); None when one of them is unknown, or the trial failed or still runs."""
        if trial.outcome is None or isinstance(trial.outcome, Failed) or trial.loss is None:
            return None
        if any(name not in trial.measures for name in self.objectives):
            return None
        return (trial.loss, *(trial.measures[name] for name in self.objectives))

    def front(self, history: History) -> list[int]:
        """Numbers of the trials that keep all limits and that no other such trial dominates, by rising loss."""
        found = [
            (point, trial.number)
            for trial in history.values()
            if (point := self.point(trial)) is not None and is_feasible(trial, self.limits)
        ]
        if not found:
            return []
        undominated = is_undominated(np.array([point for point, _ in found]))
        return [number for (_, number), keep in sorted(zip(found, undominated, strict=True)) if keep]

    def recommend(self, history: History) -> int | None:
        """The trial with the lowest loss among those that keep all limits; None when no trial has a loss.

        When none keeps them, the one that breaks them least, since a search should end with something to look at.
        """
        ended = [trial for trial in history.values() if trial.outcome is not None]
        ranked = [
            # A mean over fewer folds is no better for being lower.
            (self._rank(trial), -trial.epochs if trial.resource is Resource.FOLDS else 0, trial.loss, trial.number)
            for trial in ended
            if not isinstance(trial.outcome, Failed) and trial.loss is not None
        ]
        return min(ranked)[-1] if ranked else None

    def _rank(self, trial: Trial) -> float:
        broken = violation(trial, self.limits)
        return math.inf if broken is None else broken


@final
class ScalarisingSampler(Sampler):
    """Asks another sampler with all objectives in one number, weighted anew for each suggestion; see the module.

    Args:
        inner: any sampler.
        goals: objectives and limits.
    """

    def __init__(self, inner: Sampler, *, goals: Goals) -> None:
        self.space = inner.space
        self._inner = inner
        self._goals = goals

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """See `Sampler.sample`; configurations that are to be alike are drawn with one weighting."""
        num_weights = 1 if alike or not self._goals.objectives else min(num, _MOST_WEIGHTS)
        configurations: list[Configuration] = []
        for part in range(num_weights):
            wanted = (num * (part + 1)) // num_weights - len(configurations)
            weights = rng.dirichlet(np.ones(1 + len(self._goals.objectives)))
            known = _with_pending(_scalarised(history, self._goals, weights), configurations)
            found = self._inner.sample(known, wanted, rng, alike=alike)
            configurations += found
            if len(found) < wanted:
                break
        return configurations


@final
class FrontScheduler(Scheduler):
    """Asks another scheduler with losses that say how far each trial is from the Pareto front; see the module.

    A rung keeps those nearest to the front, not those with the lowest loss: a small network that is on the front for
    its latency goes on although larger ones have lower losses. Trials that break a limit come last. A trial whose
    measures are not known yet is taken to have the best ones, so that it is never given up for its loss alone.

    Args:
        inner: any scheduler.
        goals: objectives and limits.
    """

    def __init__(self, inner: Scheduler, *, goals: Goals) -> None:
        self.inner = inner
        self._goals = goals

    def next(
        self, history: History, sampler: Sampler, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Suggestion]:
        """See `Scheduler.next`; the sampler is asked with the losses as they are."""
        return self.inner.next(
            _distances(history, self._goals), _AsItWas(sampler, history=history), num, rng, alike=alike
        )


@final
class _AsItWas(Sampler):
    """A sampler that sees the trials of `history` wherever a scheduler passes its own view of them."""

    def __init__(self, inner: Sampler, *, history: History) -> None:
        self.space = inner.space
        self._inner = inner
        self._history = history

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        trials = [self._history.get(number, trial) for number, trial in history.items()]
        original = History(trials, resource=history.resource, again=history.again)
        return self._inner.sample(original, num, rng, alike=alike)


def _scalarised(history: History, goals: Goals, weights: Array) -> History:
    """The history with the augmented Chebyshev scalarisation of all objectives for losses."""
    if not goals.objectives:
        return _rewritten(history, goals, lambda losses, _: losses, end_untrained=True)
    coordinates = _Coordinates(list(history.values()), goals, unknown=_UNKNOWN)

    def scalar(losses: Array, owners: NDArray[np.intp]) -> Array:
        weighted = weights * coordinates.of(losses, owners)
        return np.asarray(weighted.max(axis=1) + _AUGMENTATION * weighted.sum(axis=1))

    return _rewritten(history, goals, scalar, end_untrained=True)


def _distances(history: History, goals: Goals) -> History:
    """The history with the distance to the front for losses."""
    trials = list(history.values())
    if not goals.objectives:
        return _rewritten(history, goals, lambda losses, _: losses)
    numbers = {trial.number: index for index, trial in enumerate(trials)}
    members = np.array([numbers[number] for number in goals.front(history)], dtype=np.intp)
    coordinates = _Coordinates(trials, goals, unknown=0.0)
    final_losses = np.array([trials[index].loss for index in members], dtype=np.float64)
    front = coordinates.of(final_losses, members)

    def scalar(losses: Array, owners: NDArray[np.intp]) -> Array:
        points = coordinates.of(losses, owners)
        if len(members) < 2:
            return np.asarray(points.min(axis=1)) if len(members) == 0 else distance_to_front(points, front)
        # A member of the front is measured against the others: by how much it extends what they reach.
        result = np.empty(len(points))
        for place, member in enumerate(members):
            own = owners == member
            result[own] = distance_to_front(points[own], np.delete(front, place, axis=0))
        rest = ~np.isin(owners, members)
        result[rest] = distance_to_front(points[rest], front)
        return result

    return _rewritten(history, goals, scalar)


class _Coordinates:
    """Loss and measures of trials in units of the front: 0 is the best of a coordinate on the front, 1 the worst."""

    def __init__(self, trials: Sequence[Trial], goals: Goals, *, unknown: float) -> None:
        self._unknown = unknown
        self._measures = np.array([[t.measures.get(name, math.nan) for name in goals.objectives] for t in trials])
        found = [(point, is_feasible(t, goals.limits)) for t in trials if (point := goals.point(t)) is not None]
        # Before two trials keep the limits, those that break them have to give the scale.
        feasible = [point for point, is_kept in found if is_kept]
        points = np.array(feasible if len(feasible) > 1 else [point for point, _ in found])
        self._low = np.zeros(1 + len(goals.objectives))
        self._spread = np.ones(1 + len(goals.objectives))
        if len(points):
            front = points[is_undominated(points)]
            self._low = front.min(axis=0)
            spread = np.ptp(front, axis=0)
            # A front of one point has no extent; then all trials together give the scale.
            spread = np.where(spread > 0.0, spread, np.ptp(points, axis=0))
            self._spread = np.where(spread > 0.0, spread, 1.0)

    def of(self, losses: Array, owners: NDArray[np.intp]) -> Array:
        """Points (n, m) of losses (n,) reported by the trials at positions `owners` (n,)."""
        scaled = (np.column_stack([losses, self._measures[owners]]) - self._low) / self._spread
        return np.where(np.isnan(scaled), self._unknown, scaled)


def _rewritten(history: History, goals: Goals, scalar: _Scalar, *, end_untrained: bool = False) -> History:
    """The history with `scalar` of every loss; trials that break limits are worse than all others.

    A trial that broke a limit before it was trained has no loss. With `end_untrained` it is completed with its penalty,
    so that models learn where the limits are broken; schedulers have to know that it was pruned.
    """
    trials = list(history.values())
    broken = [violation(trial, goals.limits) or 0.0 for trial in trials]
    losses, owners = [], []
    for index, trial in enumerate(trials):
        values = [loss for _, loss in trial.curve]
        if isinstance(trial.outcome, Completed):
            values.append(trial.outcome.value)
        losses += values
        owners += [index] * len(values)
    scalars = scalar(np.array(losses, dtype=np.float64), np.array(owners, dtype=np.intp)) if losses else np.empty(0)
    worst = float(scalars.max()) if len(scalars) else 0.0
    spread = (worst - float(scalars.min()) if len(scalars) else 0.0) or 1.0
    rewritten = []
    start = 0
    for trial, excess in zip(trials, broken, strict=True):
        is_completed = isinstance(trial.outcome, Completed)
        values = scalars[start : start + len(trial.curve) + is_completed].tolist()
        start += len(values)
        if excess and not isinstance(trial.outcome, Failed):
            penalty = worst + spread * (1.0 + min(excess, 1e6))
            values = [penalty] * len(values)
            if not values and trial.outcome is not None and end_untrained:
                rewritten.append(replace(trial, outcome=Completed(penalty)))
                continue
        curve = tuple((epoch, value) for (epoch, _), value in zip(trial.curve, values, strict=False))
        outcome = Completed(values[-1]) if is_completed else trial.outcome
        rewritten.append(replace(trial, curve=curve, outcome=outcome))
    return History(rewritten, resource=history.resource, again=history.again)


def _with_pending(history: History, configurations: Sequence[Configuration]) -> History:
    """The history in which the configurations of this batch are running already."""
    if not configurations:
        return history
    budget = max((trial.budget for trial in history.values()), default=1)
    pending = [
        Trial(number=number, hyperparameters=configuration, budget=budget)
        for number, configuration in enumerate(configurations, start=history.next_number)
    ]
    return History([*history.values(), *pending], resource=history.resource, again=history.again)
