"""What a search has done so far: the journal on disk, and TensorBoard's view of it.

The journal is the truth (R8): all of this is rebuilt from it when an experiment is resumed or looked at.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, final

from app.evaluation.metrics import METRICS, Metric
from app.execution.messages import EpochEnded, TrialEnded, WorkerReplaced
from app.fold_choice import FOLD_BEST_EPOCH, FOLD_EPOCHS, FOLD_VALUE
from app.run_directory import RunDirectory
from app.search import journal
from app.search.facts_json import fact_from_json, fact_to_json
from app.search.limits import Limit, violation
from app.search.space import Configuration, Space
from app.search.trial import (
    Completed,
    Ended,
    Fact,
    Failed,
    History,
    Measured,
    Reported,
    Resource,
    Started,
    Suggestion,
    Trial,
)
from app.tensorboard import TrialEventWriter, write_experiment_summary

FACT_EVENTS = ("started", "reported", "measured", "ended")


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
    added: set[int] = field(default_factory=set)
    _ties: dict[int, dict[int, float]] = field(default_factory=dict)
    _folds: dict[int, dict[int, Mapping[str, float]]] = field(default_factory=dict)
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
                loss = record.get("scalars", {}).get("val/loss")
                # NaN compares with nothing, and the journal holds null for it: both lose to every number.
                finite = loss is not None and math.isfinite(loss)
                self._ties.setdefault(fact.trial, {})[fact.epoch] = loss if finite else math.inf
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
        elif event == "retried":
            self.leases.pop(record["trial"], None)
            self.retried[record["trial"]] = record["reason"]
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
        """Returns the epoch (from 1) at which `trial` was best; equal objectives are told apart by the loss.

        Of a cross-validation it is the median of the folds' own best epochs.
        """
        if folds := self._folds.get(trial.number):
            return round(statistics.median(scalars[FOLD_BEST_EPOCH] for scalars in folds.values()))
        ties = self._ties.get(trial.number, {})
        return min((loss, ties.get(epoch, math.inf), epoch) for epoch, loss in trial.curve)[2]

    def epochs_trained(self, trial: Trial) -> int:
        """Returns the epochs that `trial` was trained for, over all its folds."""
        folds = self._folds.get(trial.number)
        return int(sum(scalars[FOLD_EPOCHS] for scalars in folds.values())) if folds else trial.epochs

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
    return _replayed(directory)[0]


def _replayed(directory: RunDirectory) -> tuple[Progress, int]:
    """Returns what the journal says, and where its last complete record ends, in bytes."""
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


@final
class SearchRecord:
    """Writes the journal and TensorBoard's files of a search that is going on.

    Args:
        directory: The experiment; its journal is created or continued.
        started: When this session began, in seconds since the epoch.
    """

    def __init__(self, directory: RunDirectory, *, started: float) -> None:
        self.progress, end = _replayed(directory)
        self.directory = directory
        self._boards: dict[int, TrialEventWriter] = {}
        self._started = started
        self._journal = journal.Journal.open(directory.journal_file, end=end)
        self._write({"event": "session", "started": round(started, 3)}, durable=True)

    @property
    def history(self) -> History:
        """All trials so far."""
        return self.progress.history

    @property
    def objective(self) -> Metric:
        """The metric to select by; known once the search is."""
        if self.progress.search is None:
            raise RuntimeError("the search has not begun: expected begin() first")
        return METRICS[self.progress.search.objective]

    def elapsed(self) -> float:
        """Seconds that all sessions of this experiment have taken, this one included."""
        return self.progress.spent + time.time() - self._started

    def begin(self, search: Search, space: Space) -> None:
        """Records what is searched and how."""
        self._write({"event": "search", "search": search.to_json(), "space": space.to_json()}, durable=True)
        self._summarise(space)

    def started(self, suggestion: Suggestion) -> None:
        """Records that a trial starts or goes on."""
        self._write(fact_to_json(Started(suggestion)), durable=True)
        name = f"trial {suggestion.trial:04d}"
        self._board(suggestion.trial).hparams_start(suggestion.hyperparameters, group_name=name)

    def epoch_ended(self, event: EpochEnded) -> bool:
        """Records an epoch of a trial; returns False for one that was known: a resumed trial tells its past again.

        Of a cross-validation the journal has whole folds; TensorBoard has the epochs of each fold too.
        """
        if event.trial is not None and event.fold:
            scalars = {f"{tag}/fold_{event.fold}": value for tag, value in event.scalars.items()}
            self._board(event.trial).scalars(event.epoch, scalars, wall_time=event.wall_time)
            return False
        if event.trial is None or event.epoch <= self.history[event.trial].epochs:
            return False
        fact = Reported(event.trial, event.epoch, event.loss)
        self._write({**fact_to_json(fact), "scalars": dict(event.scalars)}, durable=False)
        self._board(event.trial).scalars(event.epoch, event.scalars, wall_time=event.wall_time)
        return True

    def trial_ended(self, event: TrialEnded) -> None:
        """Records the end or pause of a trial."""
        if event.measures:
            self._write(fact_to_json(Measured(event.trial, event.measures)), durable=False)
        fact = fact_to_json(Ended(event.trial, event.outcome))
        costs = {"parameters": event.num_parameters, "seconds": round(event.seconds, 3)}
        if event.alone_seconds:
            costs["alone_seconds"] = round(event.alone_seconds, 3)
        self._write({**fact, **costs}, durable=True)
        trial = self.history[event.trial]
        metrics = {} if trial.loss is None else {self.objective.name: self.objective.from_loss(trial.loss)}
        board = self._board(event.trial)
        board.hparams_end(trial.outcome or event.outcome, metrics=metrics)
        board.close()
        del self._boards[event.trial]

    def portfolio(self, configurations: Sequence[Configuration]) -> None:
        """Records what is tried before the search chooses for itself, but after what somebody wants."""
        found = [dict(configuration) for configuration in configurations]
        self._write({"event": "portfolio", "configurations": found}, durable=True)

    def enqueued(self, configuration: Configuration) -> None:
        """Records that somebody wants `configuration` tried before what the search would choose."""
        self._write({"event": "enqueued", "hyperparameters": dict(configuration)}, durable=True)

    def add(self, configuration: Configuration, loss: float) -> None:
        """Records a result from elsewhere as a trial that is over; the search learns from it, but cannot refit it."""
        search = self.progress.search
        if search is None:
            raise RuntimeError("the search has not begun: expected begin() first")
        budget = search.folds if search.folds > 1 else search.max_epochs
        number = self.history.next_number
        suggestion = Suggestion(trial=number, hyperparameters=configuration, start_epoch=0, budget=budget, bracket=-1)
        for fact in (Started(suggestion), Ended(number, Completed(loss))):
            self._write({**fact_to_json(fact), "added": True}, durable=True)

    def leased(self, trials: Sequence[int], *, worker: str) -> None:
        """Records who trains `trials` from now on."""
        self._write({"event": "leased", "trials": list(trials), "worker": worker}, durable=False)

    def retried(self, trial: int, *, reason: str) -> None:
        """Records that a trial goes on with another worker, and why it lost its own."""
        self._write({"event": "retried", "trial": trial, "reason": reason}, durable=True)

    def stopped(self, trial: int, *, reason: str) -> None:
        """Records why a trial that still runs was told to stop."""
        self._write({"event": "stopped", "trial": trial, "reason": reason}, durable=False)

    def worker_replaced(self, event: WorkerReplaced) -> None:
        """Records that a worker was lost or renewed."""
        self._write({"event": "worker_replaced", "worker": event.worker, "reason": event.reason}, durable=False)

    def grow(self, space: Space) -> None:
        """Records that the space has grown."""
        self._write({"event": "space", "space": space.to_json()}, durable=True)
        self._summarise(space)

    def stage_done(self, stage: str, **details: Any) -> None:
        """Records that a stage after the search is done."""
        self._write({"event": "stage", "stage": stage, "details": details}, durable=True)

    def final_board(self) -> TrialEventWriter:
        """Returns the writer of the final training's own event files."""
        return TrialEventWriter(self.directory.best)

    def close(self) -> None:
        """Closes the journal and the event files."""
        for board in self._boards.values():
            board.close()
        self._journal.close()

    def _write(self, record: Mapping[str, Any], *, durable: bool) -> None:
        stamped = {**record, "time": round(time.time(), 3)}
        self._journal.append(stamped, durable=durable)
        self.progress.apply(stamped)

    def _summarise(self, space: Space) -> None:
        write_experiment_summary(
            self.directory.trials, parameters=space.parameters, metrics=[self.objective.name]
        )

    def _board(self, number: int) -> TrialEventWriter:
        if number not in self._boards:
            self._boards[number] = TrialEventWriter(self.directory.trial(number))
        return self._boards[number]
