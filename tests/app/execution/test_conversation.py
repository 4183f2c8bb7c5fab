from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

from app.execution.conversation import Conversation
from app.execution.messages import StillWorking, StopTrial
from app.training.epochs import Verdict

Ends = tuple[Connection, Conversation]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The coordinator's end, and the worker's."""
    ours, theirs = Pipe()
    with ours, theirs:
        yield ours, Conversation(theirs)


def test_a_trial_that_was_told_to_stop_is_so_whenever_it_asks(ends: Ends) -> None:
    coordinator, worker = ends
    ask = worker.asker(3, time.time() + 1000.0)
    assert ask() is Verdict.GO_ON
    coordinator.send(StopTrial(3))
    assert [ask(), ask()] == [Verdict.STOP, Verdict.STOP]


def test_what_ends_another_trial_does_not_end_this_one(ends: Ends) -> None:
    coordinator, worker = ends
    ask = worker.asker(3, time.time() + 1000.0)
    coordinator.send(StopTrial(4))
    assert ask() is Verdict.GO_ON
    coordinator.send(StopTrial())
    assert ask() is Verdict.STOP


@pytest.mark.parametrize(("has_to_answer", "verdict"), [(False, Verdict.STOP), (True, Verdict.ANSWER)])
def test_the_time_ends_a_trial(ends: Ends, has_to_answer: bool, verdict: Verdict) -> None:
    _, worker = ends
    assert worker.asker(3, time.time() - 1.0, has_to_answer=has_to_answer)() is verdict


def test_whoever_asks_gives_a_sign_of_life(ends: Ends) -> None:
    coordinator, worker = ends
    worker.asker(3, time.time() + 1000.0)()
    assert isinstance(coordinator.recv(), StillWorking)
