"""Who runs trials: the interface that local workers and a cluster implement."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Protocol

from app.execution.messages import (
    EpochEnded,
    OpenRun,
    PackFailed,
    Reply,
    Request,
    RunOpened,
    RunPack,
    RunTrial,
    TrialEnded,
    WorkerReplaced,
)

Event = EpochEnded | PackFailed | TrialEnded | WorkerReplaced


class Answering(Protocol):
    """What answers requests, which is all of an `Executor` that a stage after the search needs."""

    def call(self, request: Request, *, on_epoch: Callable[[EpochEnded], None] | None = None) -> Reply:
        """See `Executor.call`."""
        ...


class Training(Protocol):
    """What runs trials, which is all of an `Executor` that the search needs."""

    @property
    def num_workers(self) -> int:
        """See `Executor.num_workers`."""
        ...

    @property
    def num_free(self) -> int:
        """See `Executor.num_free`."""
        ...

    def submit(self, request: RunTrial | RunPack) -> str:
        """See `Executor.submit`."""
        ...

    def events(self, *, timeout: float) -> Sequence[Event]:
        """See `Executor.events`."""
        ...

    def stop_trial(self, number: int) -> None:
        """See `Executor.stop_trial`."""
        ...

    def stop_trials(self) -> None:
        """See `Executor.stop_trials`."""
        ...


class Executor(abc.ABC):
    """Runs trials on workers and requests on one of them.

    A trial that was submitted ends in exactly one `TrialEnded`, whatever becomes of its worker.
    """

    @property
    @abc.abstractmethod
    def num_workers(self) -> int:
        """Workers that there are, busy or not."""

    @property
    @abc.abstractmethod
    def num_free(self) -> int:
        """Requests that can be submitted now."""

    @abc.abstractmethod
    def open(self, request: OpenRun) -> RunOpened:
        """Opens an experiment on every worker, and on every worker that replaces one.

        Returns when the first has opened it; the others become free as they get there.

        Raises:
            WorkerError: A worker cannot open it.
        """

    @abc.abstractmethod
    def submit(self, request: RunTrial | RunPack) -> str:
        """Starts a trial, or a pack of trials, on a free worker; returns the worker's name."""

    @abc.abstractmethod
    def events(self, *, timeout: float) -> Sequence[Event]:
        """Returns what happened, waiting at most `timeout` seconds for the first event.

        Raises:
            WorkerError: No worker is left, and none can be started.
        """

    @abc.abstractmethod
    def stop_trial(self, number: int) -> None:
        """Asks a trial to end soon; it still sends its `TrialEnded`. Nothing happens when it is not in flight."""

    @abc.abstractmethod
    def stop_trials(self) -> None:
        """Asks every trial in flight to end soon; each still sends its `TrialEnded`."""

    @abc.abstractmethod
    def call(self, request: Request, *, on_epoch: Callable[[EpochEnded], None] | None = None) -> Reply:
        """Sends a request to a free worker and waits for its answer.

        Args:
            request: Anything but a trial.
            on_epoch: Receives the epochs of a training that the request starts.

        Raises:
            WorkerLostError: The worker died; the request may be sent again, to another.
            WorkerError: The worker could not do it; the message says why.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Ends all workers; harmless when called twice."""
