"""What a worker and the coordinator say to each other while something is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, final

from app.execution.machine import resident_memory
from app.execution.messages import EpochEnded, Reply, Request, StillWorking, StopTrial
from app.training.epochs import EpochResult, Verdict

SIGN_OF_LIFE_SECONDS = 1.0


class Channel(Protocol):
    """A two-way connection to the coordinator, of which `multiprocessing` has one; both ends may be far apart."""

    def send(self, obj: Any, /) -> None:
        """Sends a message."""

    def recv(self) -> Any:
        """Waits for the next message; raises EOFError when there will be none."""

    def poll(self) -> bool:
        """Whether a message has arrived."""


@final
class Conversation:
    """The worker's side of a connection.

    Args:
        channel: Two-way connection to the coordinator.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last_sign = 0.0

    def hear(self) -> Request:
        """Waits for the next request.

        Raises:
            EOFError: The coordinator closed the connection.
        """
        request: Request = self._channel.recv()
        return request

    def say(self, reply: Reply) -> None:
        """Sends a message."""
        self._channel.send(reply)

    def tell_epoch(self, trial: int | None, result: EpochResult, *, loss: float) -> None:
        """Tells of an epoch of a trial; None is the final training."""
        self.say(
            EpochEnded(
                trial=trial,
                epoch=result.epoch,
                loss=loss,
                scalars=result.scalars,
                wall_time=time.time(),
                fold=result.fold,
            )
        )

    def give_sign_of_life(self) -> None:
        """Says that the work goes on, if it was not said within the last second."""
        if time.monotonic() - self._last_sign > SIGN_OF_LIFE_SECONDS:
            self.say(StillWorking(resident_memory()))
            self._last_sign = time.monotonic()

    def asker(
        self, trial: int | None, deadline: float, *, has_to_answer: bool = False
    ) -> Callable[[], Verdict]:
        """Returns what a trainer asks between two calls: whether the trial goes on. Once told to stop, it is for good.

        Args:
            trial: Its number; None for the final training.
            deadline: When it has to end, in seconds since the epoch of `time.time`.
            has_to_answer: Whether it comes to an answer when its time is over, however little it was.
        """
        is_stopped = False

        def ask() -> Verdict:
            nonlocal is_stopped
            stopped = self.stopped_trials()
            is_stopped = is_stopped or None in stopped or trial in stopped
            if is_stopped:
                return Verdict.STOP
            if time.time() < deadline:
                return Verdict.GO_ON
            return Verdict.ANSWER if has_to_answer else Verdict.STOP

        return ask

    def stopped_trials(self) -> set[int | None]:
        """Gives a sign of life; returns the trials that the coordinator wants to end now (None is all of them)."""
        self.give_sign_of_life()
        stopped: set[int | None] = set()
        while self._channel.poll():
            message = self._channel.recv()
            if not isinstance(message, StopTrial):
                raise TypeError(f"{type(message).__name__} came during a trial: expected StopTrial")
            stopped.add(message.trial)
        return stopped
