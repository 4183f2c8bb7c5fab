"""One worker as its pool sees it, wherever it runs."""

from __future__ import annotations

import abc

from app.execution.messages import Reply, Request


class WorkerHandle(abc.ABC):
    """One worker and the way to talk to it."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What people call it."""

    @property
    @abc.abstractmethod
    def is_alive(self) -> bool:
        """Whether it can still do anything."""

    @abc.abstractmethod
    def send(self, request: Request) -> None:
        """Sends a request; a dead worker is noticed when its answer is awaited."""

    @abc.abstractmethod
    def receive(self) -> list[Reply]:
        """Returns what has arrived, without waiting.

        Raises:
            EOFError: It has ended, and everything it said was returned before.
        """

    @abc.abstractmethod
    def cause_of_death(self) -> str:
        """Returns one line on why it ended."""

    @abc.abstractmethod
    def ask_where(self) -> None:
        """Has a worker that hangs write to its log where, if it can be asked."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Ends it at once, even when it hangs; harmless when called twice."""
