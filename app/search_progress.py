"""What a search has done so far, rebuilt from its journal when it is resumed or looked at (R8)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from app.epoch_choice import OBJECTIVE_ERROR, chosen_epoch
from app.fold_choice import FOLD_BEST_EPOCH, FOLD_EPOCHS, FOLD_VALUE
from app.run_directory import RunDirectory
from app.search import journal
from app.search.facts_json import fact_from_json
from app.search.limits import Limit, violation
from app.search.space import Configuration, Space
from app.search.trial import (
    Ended,
    Fact,
    Failed,
    History,
    Reported,
    Resource,
    Trial,
)
from app.time_budget import refit_seconds

FACT_EVENTS = ("started", "reported", "measured", "ended")

BUILDING_TIMES = 3
"""Of a trial by itself: when a worker took it, and when its first two epochs ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched and how; fixed once, so that a resumed search goes on with it.

    Attributes:
        algorithm: Name of the algorithm, never ``auto``.
        reason: Why this algorithm.
        objective: Name of the metric to select by.
        max_epochs: Epochs of a trial at full budget.
        seed: Seed of the experiment.
        max_trials: Most trials to start; None for no limit.
        folds: Folds of the cross-validation that judges trials; 1 for the validation part.
        others: Measures to minimise beside the objective.
        limits: What a trial must keep to win.
    """

    algorithm: str
    reason: str
    objective: str
    max_epochs: int
    seed: int
    max_trials: int | None
    folds: int = 1
    others: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object that `from_json` turns back."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"others": list(self.others), "limits": [limit.to_json() for limit in self.limits]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Search:
        """Returns the search in `record`; what an older journal does not have takes its default."""
        limits = tuple(Limit.from_json(limit) for limit in record.get("limits", ()))
        return cls(**{**record, "others": tuple(record.get("others", ())), "limits": limits})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who runs a trial.

    Attributes:
        worker: Name of the worker.
        since: When it got the trial, in seconds since the epoch.
    """

    worker: str
    since: float


@dataclass(slots=True)
class Progress:
    """What a journal says.

    Attributes:
        history: All trials.
        facts: The facts in their order.
        parameters: Trial -> weights of its network.
        seconds: Trial -> wall time of its training; of a pack, its share.
        alone_seconds: Trial -> what its training takes outside a pack.
        space: What is searched, as far as known.
        search: How it is searched; None before the search began.
        stages: Stage after the search -> its details.
        spent: Seconds that earlier sessions took.
        leases: Running trial -> who runs it; a trial whose session was killed has none.
        retried: Trial -> why its worker was lost, for those that were tried again for it.
        wishes: Configurations that somebody wants tried first, in their order.
        portfolio: Configurations that are tried after those, because they did well elsewhere.
        stopped: Trial -> why it was told to stop before its end, by its learning curve.
        failed_packs: Why packs failed as a whole, one after the other; their trials went on one by one.
        added: Trials whose result was brought from elsewhere; they were not trained here.
    """

    history: History = field(default_factory=History)
    facts: list[Fact] = field(default_factory=list)
    parameters: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    alone_seconds: dict[int, float] = field(default_factory=dict)
    space: Space | None = None
    search: Search | None = None
    stages: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    spent: float = 0.0
    leases: dict[int, Lease] = field(default_factory=dict)
    retried: dict[int, str] = field(default_factory=dict)
    wishes: list[Configuration] = field(default_factory=list)
    portfolio: list[Configuration] = field(default_factory=list)
    stopped: dict[int, str] = field(default_factory=dict)
    failed_packs: list[str] = field(default_factory=list)
    added: set[int] = field(default_factory=set)
    _ties: dict[int, dict[int, float]] = field(default_factory=dict)
    _errors: dict[int, dict[int, float]] = field(default_factory=dict)
    _folds: dict[int, dict[int, Mapping[str, float]]] = field(default_factory=dict)
    _first_times: dict[int, list[float]] = field(default_factory=dict)
    _session: tuple[float, float] | None = None
    _ranking: list[Trial] | None = None
    _scores: dict[int, tuple[Trial, tuple[float, float]]] = field(default_factory=dict)

    def apply(self, record: Mapping[str, Any]) -> None:
        """Learns one record of the journal."""
        self.apply_all([record])

    def apply_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Learns records of the journal in their order; a long journal is learned much faster than record by record."""
        known = len(self.facts)
        for record in records:
            self._learn(record)
        news = self.facts[known:]
        self.history = self.history.applied(news)
        if not all(isinstance(fact, Reported) for fact in news):
            self._ranking = None

    def _learn(self, record: Mapping[str, Any]) -> None:
        """Learns one record, but leaves the history to the caller."""
        self._count_time(record)
        event = record["event"]
        if event in FACT_EVENTS:
            fact = fact_from_json(record)
            self.facts.append(fact)
            if record.get("added"):
                self.added.add(record["trial"])
            if isinstance(fact, Reported):
                times = self._first_times.get(fact.trial, [])
                if 0 < len(times) < BUILDING_TIMES:
                    times.append(record.get("time", 0.0))
                loss = record.get("scalars", {}).get("val/loss")
                # NaN compares with nothing, and the journal holds null for it: both lose to every number.
                finite = loss is not None and math.isfinite(loss)
                self._ties.setdefault(fact.trial, {})[fact.epoch] = loss if finite else math.inf
                error = record.get("scalars", {}).get(OBJECTIVE_ERROR)
                if error is not None:
                    self._errors.setdefault(fact.trial, {})[fact.epoch] = error
                if FOLD_VALUE in record.get("scalars", {}):
                    self._folds.setdefault(fact.trial, {})[fact.epoch] = record["scalars"]
            if isinstance(fact, Ended):
                self.leases.pop(fact.trial, None)
                self.parameters[fact.trial] = record.get("parameters") or self.parameters.get(fact.trial, 0)
                self.seconds[fact.trial] = self.seconds.get(fact.trial, 0.0) + record.get("seconds", 0.0)
                alone = record.get("alone_seconds") or record.get("seconds", 0.0)
                self.alone_seconds[fact.trial] = self.alone_seconds.get(fact.trial, 0.0) + alone
        elif event == "search":
            self.search = Search.from_json(record["search"])
            if not self.history and self.search.folds > 1:
                self.history = History(resource=Resource.FOLDS)
            self.space = Space.from_json(record["space"])
        elif event == "space":
            self.space = Space.from_json(record["space"])
        elif event == "leased":
            lease = Lease(worker=record["worker"], since=record.get("time", 0.0))
            self.leases |= dict.fromkeys(record["trials"], lease)
            if len(record["trials"]) == 1 and len(self._first_times.get(record["trials"][0], ())) < BUILDING_TIMES:
                self._first_times[record["trials"][0]] = [lease.since]
        elif event == "retried":
            self.leases.pop(record["trial"], None)
            self.retried[record["trial"]] = record["reason"]
        elif event == "stopped":
            self.stopped[record["trial"]] = record["reason"]
        elif event == "pack_failed":
            self.failed_packs.append(f"{record['size']} trials: {record['reason']}")
        elif event == "enqueued":
            self.wishes.append(record["hyperparameters"])
        elif event == "portfolio":
            self.portfolio = list(record["configurations"])
        elif event == "session":
            self.leases = {}
        elif event == "stage":
            self.stages[record["stage"]] = record["details"]

    @property
    def best(self) -> Trial | None:
        """The ended trial with the best objective; None when none has one.

        On few validation rows many trials share the best accuracy; the validation loss tells them apart.
        """
        ranking = self.ranking
        return ranking[0] if ranking else None

    @property
    def winner(self) -> Trial | None:
        """The trial to train the final model from: the one that the search ended with, else the best."""
        number = self.stages.get("search", {}).get("winner")
        return self.best if number is None else self.history[number]

    @property
    def ranking(self) -> list[Trial]:
        """The ended trials that have an objective, best first."""
        if self._ranking is None:
            ended = [trial for trial in self.history.values() if trial.outcome is not None and trial.curve]
            ended = [trial for trial in ended if not isinstance(trial.outcome, Failed)]
            limits = self.search.limits if self.search else ()
            # A trial whose measures are not known breaks its limits as far as anyone can tell.
            broken = {trial.number: violation(trial, limits) for trial in ended}
            excess = {number: math.inf if far is None else far for number, far in broken.items()}
            self._ranking = sorted(ended, key=lambda t: (excess[t.number], *self._score(t), t.number))
        return self._ranking

    def best_epoch(self, trial: Trial) -> int:
        """Returns the epoch (from 1) at which `trial` was best (`app.epoch_choice`).

        Of a cross-validation it is the median of the folds' own best epochs.
        """
        if folds := self._folds.get(trial.number):
            return round(statistics.median(scalars[FOLD_BEST_EPOCH] for scalars in folds.values()))
        ties, errors = self._ties.get(trial.number, {}), self._errors.get(trial.number, {})
        place = chosen_epoch((loss, ties.get(epoch, math.inf), errors.get(epoch, 0.0)) for epoch, loss in trial.curve)
        return trial.curve[place or 0][0]

    def loss(self, trial: Trial) -> float | None:
        """Returns the loss of the network that `trial` came to; None when nothing finite was reported.

        It is not the least of its losses where more than the objective chooses the epoch (`app.epoch_choice`): some
        epoch had that by luck, and its network is not kept.
        """
        return self._score(trial)[0] if trial.curve and trial.number in self._errors else trial.loss

    def epochs_trained(self, trial: Trial) -> int:
        """Returns the epochs that `trial` was trained for, over all its folds."""
        folds = self._folds.get(trial.number)
        return int(sum(scalars[FOLD_EPOCHS] for scalars in folds.values())) if folds else trial.epochs

    def refit_seconds(self, trial: Trial) -> float:
        """Returns about how long the final training of `trial` takes; 0 where nothing is known."""
        if not trial.epochs:
            return 0.0
        by_folds = trial.resource is Resource.FOLDS
        share = self.best_epoch(trial) / self.epochs_trained(trial)
        return refit_seconds(self.alone_seconds.get(trial.number, 0.0), share=share, by_folds=by_folds)

    def building_seconds(self, trial: Trial) -> float:
        """Returns about how long the network of `trial` was built and traced: its first epoch against the others.

        It is 0 where the first two epochs are not known, or trained in a pack, whose graph is shared.
        """
        times = self._first_times.get(trial.number, [])
        if len(times) < BUILDING_TIMES:
            return 0.0
        leased, first, second = times
        return max(0.0, (first - leased) - (second - first))

    def first_epoch_seconds(self) -> float:
        """Returns how long trials by themselves take until their first epoch is over, in the median; 0 for none."""
        taken = [times[1] - times[0] for times in self._first_times.values() if len(times) > 1]
        return statistics.median(taken) if taken else 0.0

    def spread(self, trial: Trial) -> float | None:
        """Returns the standard error of the mean of `trial` over its folds; None for fewer than two of them."""
        values = [scalars[FOLD_VALUE] for scalars in self._folds.get(trial.number, {}).values()]
        return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None

    def _score(self, trial: Trial) -> tuple[float, ...]:
        if trial.resource is Resource.FOLDS:
            # A mean over fewer folds is no better for being lower.
            fold, loss = trial.curve[-1]
            return -fold, loss, self._ties.get(trial.number, {}).get(fold, math.inf)
        known, score = self._scores.get(trial.number, (None, (math.inf, math.inf)))
        if known is not trial:
            epoch = self.best_epoch(trial)
            score = (dict(trial.curve)[epoch], self._ties.get(trial.number, {}).get(epoch, math.inf))
            self._scores[trial.number] = (trial, score)
        return score

    def _count_time(self, record: Mapping[str, Any]) -> None:
        """A session lasts from its first record to its last: a killed one cannot say when it ended."""
        now = cast(float, record.get("time", 0.0))
        if record["event"] == "session" or self._session is None:
            if self._session is not None:
                self.spent += self._session[1] - self._session[0]
            self._session = (cast(float, record.get("started", now)), now)
        else:
            self._session = (self._session[0], max(now, self._session[1]))

    def close_session(self) -> None:
        """Counts the last session of a finished journal."""
        if self._session is not None:
            self.spent += self._session[1] - self._session[0]
            self._session = None


def read_progress(directory: RunDirectory) -> Progress:
    """Returns what the journal of an experiment says.

    Raises:
        JournalError: The journal is broken or from a newer version.
    """
    return replay_progress(directory)[0]


def replay_progress(directory: RunDirectory) -> tuple[Progress, int]:
    """Returns what the journal says, and where its last complete record ends, in bytes.

    Raises:
        JournalError: The journal is broken or from a newer version.
    """
    progress, end = Progress(), 0

    def records() -> Iterator[Mapping[str, Any]]:
        nonlocal end
        for record, end_of_record in journal.replay(directory.journal_file):
            end = end_of_record
            if record["event"] != "journal":
                yield record

    if directory.journal_file.exists():
        progress.apply_all(records())
    progress.close_session()
    return progress, end
