"""Writes what a search does: the journal, and TensorBoard's view of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, final

from app.evaluation.metrics import METRICS, Metric
from app.execution.messages import EpochEnded, PackFailed, TrialEnded, WorkerReplaced
from app.run_directory import RunDirectory
from app.search import journal
from app.search.facts_json import fact_to_json
from app.search.space import Configuration, Space
from app.search.trial import (
    Completed,
    Ended,
    History,
    Measured,
    Reported,
    Started,
    Suggestion,
)
from app.search_progress import Search, replay_progress
from app.shared_scores import shared_values
from app.tensorboard import TrialEventWriter, write_experiment_summary


@final
class SearchRecord:
    """Writes the journal and TensorBoard's files of a search that is going on.

    Args:
        directory: The experiment; its journal is created or continued.
        started: When this session began, in seconds since the epoch.
    """

    def __init__(self, directory: RunDirectory, *, started: float) -> None:
        self.progress, end = replay_progress(directory)
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
        loss = self.progress.loss(trial)
        metrics = {} if loss is None else {self.objective.name: self.objective.from_loss(loss)}
        board = self._board(event.trial)
        shared = shared_values(self.progress).get(event.trial)
        if shared is not None:
            board.scalars(0, {f"shared/{self.objective.name}": shared}, wall_time=time.time())
        board.hparams_end(trial.outcome or event.outcome, metrics=metrics)
        board.close()
        del self._boards[event.trial]

    def supernet_epoch(self, event: EpochEnded) -> None:
        """Records an epoch of the weights that cells share; so the time that it took counts."""
        self._write({"event": "supernet_epoch", "epoch": event.epoch, "loss": event.loss}, durable=False)

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

    def pack_failed(self, event: PackFailed) -> None:
        """Records that a pack failed as a whole, and why; its trials go on one by one."""
        told = {"event": "pack_failed", "trials": list(event.trials), "size": event.size, "reason": event.reason}
        self._write(told, durable=False)

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
