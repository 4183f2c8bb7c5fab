"""Trials as data: what was suggested, what was reported, how each ended, and the history that facts add up to.

Losses are always minimised here; whoever maximises a metric turns its sign at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from app.search.space import Configuration


class Resource(StrEnum):
    """What a budget counts, and with it which number of a curve is the value of a trial.

    EPOCHS: a report is the loss after an epoch, and the best of them counts. FOLDS: a report is the mean over the folds
    of a cross-validation so far, and the last of them counts; a mean over few folds is no better known for being low.
    """

    EPOCHS = "epochs"
    FOLDS = "folds"


@dataclass(frozen=True, slots=True)
class Completed:
    """The trial is over: `value` is its loss. It is never resumed, even when it stopped before its budget."""

    value: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The trial reached its budget at epoch `step` and can be resumed from there with a larger one."""

    step: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """The trial was given up at epoch `step` because it looked hopeless."""

    step: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The trial raised, died, or reached a loss that is not a number; `reason` is for people."""

    reason: str


Outcome = Completed | Paused | Pruned | Failed


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Train this configuration until `budget` epochs are done in all.

    Args:
        trial: the trial's number, from 0; a promoted trial keeps its number.
        hyperparameters: the configuration; inactive parameters are absent.
        start_epoch: 0 for a new trial; above 0, resume the paused trial that has done so many epochs.
        budget: total number of epochs after which to stop, start_epoch < budget.
        rung: how many promotions the trial has behind it.
        bracket: number of the bracket in the order they were started.
    """

    trial: int
    hyperparameters: Configuration
    start_epoch: int
    budget: int
    rung: int = 0
    bracket: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """A suggestion was handed to a worker."""

    suggestion: Suggestion


@dataclass(frozen=True, slots=True)
class Reported:
    """A trial finished `epoch` epochs (counted from 1) with this validation loss."""

    trial: int
    epoch: int
    loss: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial came to its outcome."""

    trial: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a trial beside its loss, each a number to be minimised; later measures are added.

    A measure that is not finite is left out: it says nothing.
    """

    trial: int
    measures: Mapping[str, float]


Fact = Started | Reported | Measured | Ended


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration and all that is known about it; `outcome` is None while it runs."""

    number: int
    hyperparameters: Configuration
    budget: int
    start_epoch: int = 0
    rung: int = 0
    bracket: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    outcome: Outcome | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    resource: Resource = Resource.EPOCHS

    @property
    def loss(self) -> float | None:
        """The value it completed with, else its loss so far (see `Resource`); None when nothing finite was reported."""
        if isinstance(self.outcome, Completed):
            return self.outcome.value
        return self._value(self.curve)

    @property
    def epochs(self) -> int:
        """Number of epochs trained, as far as reported; of folds where those count."""
        return self.curve[-1][0] if self.curve else self.start_epoch

    @property
    def suggestion(self) -> Suggestion:
        """What was asked of the trial last; after a kill, running trials are submitted again by it."""
        return Suggestion(
            trial=self.number,
            hyperparameters=self.hyperparameters,
            start_epoch=self.start_epoch,
            budget=self.budget,
            rung=self.rung,
            bracket=self.bracket,
        )

    def loss_until(self, epoch: int) -> float | None:
        """The loss after `epoch` epochs or folds; a trial known only by its completion has that value throughout."""
        if not self.curve:
            return self.loss
        return self._value([point for point in self.curve if point[0] <= epoch])

    def _value(self, curve: Sequence[tuple[int, float]]) -> float | None:
        if self.resource is Resource.FOLDS:
            return curve[-1][1] if curve else None
        return min((loss for _, loss in curve), default=None)


class History(Mapping[int, Trial]):
    """Trials by number, in the order of their numbers. Never changed: `applied` returns a new history.

    Args:
        trials: the trials; they count in `resource`.
        resource: what the budgets of its trials count.
        again: numbers of paused trials whose configurations a sampler may propose again, to have them resumed; only
            whoever asks a sampler sets it, `applied` forgets it.
        hidden: further trials, from which a sampler is to learn nothing but that they were tried; likewise.
    """

    def __init__(
        self,
        trials: Iterable[Trial] = (),
        *,
        resource: Resource = Resource.EPOCHS,
        again: Collection[int] = (),
        hidden: Iterable[Trial] = (),
    ) -> None:
        self.resource = resource
        self.again = frozenset(again)
        self.hidden = tuple(hidden)
        self._trials = {trial.number: trial for trial in sorted(trials, key=lambda trial: trial.number)}

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    def __repr__(self) -> str:
        return f"History({list(self._trials.values())!r})"

    def applied(self, facts: Iterable[Fact]) -> History:
        """The history after `facts`, in their order.

        A loss that is not finite ends its trial as Failed; what is said about the trial after that changes nothing.

        Raises:
            ValueError: a fact about a trial that never started, or a start that contradicts what is known.
        """
        trials = dict(self._trials)
        # Points that are not in their trial yet: a new trial for every epoch would be most of the cost of a replay.
        curves: dict[int, list[tuple[int, float]]] = {}
        in_order = True
        for fact in facts:
            number = fact.suggestion.trial if isinstance(fact, Started) else fact.trial
            if isinstance(fact, Reported) and number in trials and math.isfinite(fact.loss):
                if not isinstance(trials[number].outcome, Failed):
                    curve = curves[number] if number in curves else list(trials[number].curve)
                    while curve and curve[-1][0] >= fact.epoch:
                        curve.pop()
                    curve.append((fact.epoch, float(fact.loss)))
                    curves[number] = curve
                continue
            if number in curves:
                trials[number] = replace(trials[number], curve=tuple(curves.pop(number)))
            if isinstance(fact, Started):
                in_order = in_order and (number in trials or number >= next(reversed(trials), 0))
                trials[number] = _started(trials.get(number), fact.suggestion, self.resource)
                continue
            if fact.trial not in trials:
                raise ValueError(f"A fact about trial {fact.trial}, which has not started: {fact!r}.")
            trial = trials[fact.trial]
            if isinstance(trial.outcome, Failed):
                continue
            trials[fact.trial] = _told(trial, fact)
        for number, curve in curves.items():
            trials[number] = replace(trials[number], curve=tuple(curve))
        if not in_order:
            return History(trials.values(), resource=self.resource)
        # A replay may come here once for every epoch of a long search: sorting each time would be most of its cost.
        history = History(resource=self.resource)
        history._trials = trials
        return history

    def facts(self) -> Iterator[Fact]:
        """The shortest list of facts that leads to this history."""
        for trial in self._trials.values():
            yield Started(trial.suggestion)
            for epoch, loss in trial.curve:
                yield Reported(trial.number, epoch, loss)
            if trial.measures:
                yield Measured(trial.number, trial.measures)
            if trial.outcome is not None:
                yield Ended(trial.number, trial.outcome)

    @property
    def next_number(self) -> int:
        """The number of the next new trial."""
        return max(self._trials, default=-1) + 1

    @cached_property
    def running(self) -> tuple[Trial, ...]:
        """Trials started and not ended; after a kill these are to be submitted again (`Trial.suggestion`)."""
        return tuple(trial for trial in self.values() if trial.outcome is None)

    @cached_property
    def completed(self) -> tuple[Trial, ...]:
        """Trials that are over and have a value."""
        return tuple(trial for trial in self.values() if isinstance(trial.outcome, Completed))

    @cached_property
    def paused(self) -> tuple[Trial, ...]:
        """Trials that reached a budget and may be resumed."""
        return tuple(trial for trial in self.values() if isinstance(trial.outcome, Paused))

    @cached_property
    def pruned(self) -> tuple[Trial, ...]:
        """Trials given up as hopeless."""
        return tuple(trial for trial in self.values() if isinstance(trial.outcome, Pruned))

    @cached_property
    def failed(self) -> tuple[Trial, ...]:
        """Trials that failed."""
        return tuple(trial for trial in self.values() if isinstance(trial.outcome, Failed))

    @property
    def best(self) -> Trial | None:
        """The ended trial with the lowest loss (the earliest of equals); None when none has a loss.

        Where folds count, the trials with the most folds come first: a mean over fewer is no better for being lower.
        """
        ended = [
            (-trial.epochs if self.resource is Resource.FOLDS else 0, trial.loss, trial.number)
            for trial in self.values()
            if trial.outcome is not None and not isinstance(trial.outcome, Failed) and trial.loss is not None
        ]
        return self[min(ended)[-1]] if ended else None


def _started(known: Trial | None, suggestion: Suggestion, resource: Resource) -> Trial:
    number, start = suggestion.trial, suggestion.start_epoch
    if known is not None and dict(known.hyperparameters) != dict(suggestion.hyperparameters):
        raise ValueError(f"Trial {number} starts again with other hyperparameters; expected the same ones.")
    if known is not None and isinstance(known.outcome, Completed):
        raise ValueError(f"Trial {number} starts again although it is completed.")
    if not 0 <= start < suggestion.budget:
        raise ValueError(f"Trial {number} starts at epoch {start} with budget {suggestion.budget}; expected less.")
    # A trial restarted from an earlier checkpoint reports the epochs after it again.
    curve = () if known is None else tuple(point for point in known.curve if point[0] <= start)
    return Trial(
        number=number,
        hyperparameters=dict(suggestion.hyperparameters) if known is None else known.hyperparameters,
        budget=suggestion.budget,
        start_epoch=start,
        rung=suggestion.rung,
        bracket=suggestion.bracket,
        curve=curve,
        resource=resource,
        measures={} if known is None else known.measures,
    )


def _told(trial: Trial, fact: Reported | Measured | Ended) -> Trial:
    match fact:
        case Reported():  # one that is finite is a point of the curve
            return replace(trial, outcome=Failed(f"The loss became {fact.loss} in epoch {fact.epoch}."))
        case Measured():
            finite = {name: float(value) for name, value in fact.measures.items() if math.isfinite(value)}
            return replace(trial, measures={**trial.measures, **finite})
        case Ended():
            return _ended(trial, fact)


def _ended(trial: Trial, fact: Ended) -> Trial:
    outcome = fact.outcome
    if isinstance(outcome, Completed):
        if not math.isfinite(outcome.value):
            return replace(trial, outcome=Failed(f"The trial completed with the loss {outcome.value}."))
        outcome = Completed(float(outcome.value))
    return replace(trial, outcome=outcome)
