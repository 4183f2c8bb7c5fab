"""The rules of a pool of workers, wherever they run: leases, limits of memory, replacement.

Nothing here waits for a worker while trials are in flight: one that is being replaced imports TensorFlow and opens
the experiment while the others go on.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.errors import WorkerError, WorkerLostError
from app.execution.executor import Event, Executor
from app.execution.lease import DOING, Lease, after_a_hang, hung
from app.execution.machine import in_bytes
from app.execution.messages import (
    EpochEnded,
    OpenRun,
    PackFailed,
    Reply,
    Request,
    RequestFailed,
    RunOpened,
    RunPack,
    RunTrial,
    StillWorking,
    StopTrial,
    TrialEnded,
    WorkerReplaced,
)
from app.execution.worker_handle import WorkerHandle
from app.search.trial import Failed
from app.training.devices import Seat

RECYCLE_SHARE = 0.85
"""Between two trials a worker is replaced before it reaches its limit: past it, it would take a trial with it."""

MOST_UNSEEN_SECONDS = 5.0
"""A coordinator that was itself held up for an hour must not take its workers for dead: they may have told, unheard."""

MOST_FAILED_STARTS = 3


class _State(StrEnum):
    OPENING = "opening"
    IDLE = "idle"
    BUSY = "busy"


@dataclass(slots=True)
class _Post:
    """A place in the pool: the worker that holds it now, and what that is doing."""

    number: int
    handle: WorkerHandle
    state: _State = _State.IDLE
    trials: set[int] = field(default_factory=set)
    deadline: float = float("inf")
    awaited: int = 0
    heard: bool = False
    silence: float = 0.0
    failed_starts: int = 0


class WorkerPool(Executor):
    """Runs trials on workers that a subclass launches.

    Args:
        num_workers: At least 1.
        worker_memory: Bytes past which a worker is replaced, even in the middle of a trial; None for no such limit.
        usual_memory: Bytes past which all workers together are recycled, each between two of its trials.
        lease: When a silent worker counts as hung.
        clock: Tells the seconds by which silence is measured.
    """

    def __init__(
        self,
        *,
        num_workers: int,
        worker_memory: int | None,
        usual_memory: int | None,
        lease: Lease | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}: expected at least 1")
        self._request: OpenRun | None = None
        self._lease = lease or Lease()
        self._memory = worker_memory
        self._usual_memory = usual_memory
        self._longest = {True: 0.0, False: 0.0}
        self._clock = clock
        self._looked = clock()
        self._told: list[Event] = []
        self._num_seats, self._gathered = num_workers, ""
        self._posts = [_Post(number, self._launch(number)) for number in range(num_workers)]

    @abc.abstractmethod
    def _launch(self, number: int) -> WorkerHandle:
        """Starts worker `number` (from 0) and returns at once."""

    @abc.abstractmethod
    def _wait(self, handles: Collection[WorkerHandle], timeout: float) -> None:
        """Waits until one of `handles` has something to say or has ended, at most `timeout` seconds."""

    @abc.abstractmethod
    def _seat(self, number: int) -> Seat:
        """Returns the place of worker `number` among those that see the same devices and cores."""

    @property
    def num_workers(self) -> int:
        """Workers that there are, busy or not."""
        return len(self._posts)

    @property
    def num_free(self) -> int:
        """Requests that can be submitted now."""
        self._replace_the_dead()
        return sum(post.state is _State.IDLE for post in self._posts)

    def open(self, request: OpenRun) -> RunOpened:
        """Opens an experiment on every worker, and on every worker that replaces one.

        The first encodes the rows; the others, which find them encoded, get ready while the search begins.
        """
        before, self._request = self._request, request
        try:
            opened = self._open_first()
            if opened.gather and self._num_seats > 1:
                self._gather(opened.gather)
                opened = self._open_first()
        except WorkerError:
            self._request = before
            raise
        for post in self._posts[1:]:
            self._send_open(post)
        return opened

    def submit(self, request: RunTrial | RunPack) -> str:
        """Starts a trial, or a pack of trials, on a free worker; returns the worker's name."""
        post = self._idle_post()
        members = request.trials if isinstance(request, RunPack) else (request,)
        post.trials = {member.number for member in members}
        post.deadline = max(member.deadline for member in members)
        post.state, post.heard, post.silence = _State.BUSY, False, 0.0
        post.handle.send(request)
        return post.handle.name

    def events(self, *, timeout: float) -> Sequence[Event]:
        """Returns what happened, waiting at most `timeout` seconds for the first event."""
        self._replace_the_dead()
        awaited = [post for post in self._posts if post.state is not _State.IDLE]
        if awaited and not self._told:
            self._wait([post.handle for post in awaited], timeout)
        self._look_at(awaited)
        told, self._told = self._told, []
        return told

    def stop_trial(self, number: int) -> None:
        """Asks a trial to end soon; it still sends its `TrialEnded`."""
        for post in self._posts:
            if number in post.trials:
                post.handle.send(StopTrial(number))

    def stop_trials(self) -> None:
        """Asks every trial in flight to end soon; each still sends its `TrialEnded`."""
        for post in self._posts:
            if post.trials:
                post.handle.send(StopTrial())

    def call(self, request: Request, *, on_epoch: Callable[[EpochEnded], None] | None = None) -> Reply:
        """Sends a request to a free worker and waits for its answer."""
        post = self._idle_post()
        post.handle.send(request)
        while True:
            for reply in self._next_replies(post, doing=type(request)):
                if isinstance(reply, RequestFailed):
                    raise WorkerError(reply.reason)
                if isinstance(reply, EpochEnded):
                    if on_epoch is not None:
                        on_epoch(reply)
                elif not isinstance(reply, StillWorking):
                    return reply

    def close(self) -> None:
        """Ends all workers; harmless when called twice."""
        for post in self._posts:
            post.handle.kill()

    # Opening

    def _gather(self, reason: str) -> None:
        """Gives all devices to one new worker, since a worker that has begun keeps those that it sees."""
        for post in self._posts:
            post.handle.kill()
        self._num_seats, self._gathered = 1, reason
        self._posts = [_Post(0, self._launch(0))]

    @property
    def _recycle_at(self) -> int:
        """Bytes past which a worker is replaced between two trials; 0 for never."""
        if self._memory:
            return int(RECYCLE_SHARE * self._memory)
        return (self._usual_memory or 0) // self._num_seats

    def _open_first(self) -> RunOpened:
        post = self._posts[0]
        self._send_open(post)
        while True:
            for reply in self._replies_to_opening(post):
                if isinstance(reply, RequestFailed | RunOpened):
                    post.awaited -= 1
                if post.awaited or isinstance(reply, StillWorking):
                    continue  # an answer to an earlier request
                post.state, post.failed_starts = _State.IDLE, 0
                if isinstance(reply, RequestFailed):
                    raise WorkerError(reply.reason)
                if not isinstance(reply, RunOpened):
                    raise WorkerError(f"the worker answered {type(reply).__name__}: expected RunOpened")
                self._check_memory(reply.memory)
                return reply

    def _replies_to_opening(self, post: _Post) -> list[Reply]:
        """Waits for a worker that opens the experiment; once, another takes the place of one that dies of it.

        The first may have been killed for what it had no part in; two that die have a reason to.
        """
        name = post.handle.name
        try:
            return self._next_replies(post, doing=OpenRun)
        except WorkerError as error:
            post.failed_starts += 1
            if post.failed_starts > 1:
                post.failed_starts = 0
                raise
            self._told.append(WorkerReplaced(worker=name, reason=str(error)))
            return []

    def _check_memory(self, memory: int) -> None:
        if self._recycle_at and memory > self._recycle_at and self._memory:
            needed = in_bytes(int(1.5 * memory / RECYCLE_SHARE))
            raise WorkerError(
                f"a worker may hold {in_bytes(self._memory)}, but one that has opened this experiment holds "
                f"{in_bytes(memory)} before any trial: give --worker-memory {needed} or more"
            )

    def _send_open(self, post: _Post) -> None:
        if self._request is not None:
            post.handle.send(replace(self._request, seat=self._seat(post.number)))
            post.state, post.silence, post.awaited = _State.OPENING, 0.0, post.awaited + 1

    # Listening

    def _next_replies(self, post: _Post, *, doing: type[Request]) -> list[Reply]:
        """Waits for a worker; one that ends or hangs instead is replaced, and raises WorkerLostError."""
        allowed, silence, looked = self._lease.allowed_for(doing), 0.0, self._clock()
        try:
            while silence <= allowed:
                self._wait([post.handle], 1.0)
                replies = post.handle.receive()
                if replies:
                    return replies
                now = self._clock()
                silence, looked = silence + min(now - looked, MOST_UNSEEN_SECONDS), now
            post.handle.ask_where()
            reason = hung(silence, doing=DOING[doing])
            if self._request is not None:
                reason = f"{reason}; {after_a_hang(self._request.directory)}"
        except EOFError:
            reason = f"{DOING[doing]}: {post.handle.cause_of_death()}"
        self._replace(post)
        raise WorkerLostError(reason)

    def _look_at(self, posts: Sequence[_Post]) -> None:
        """Takes in what has arrived from busy workers, and gives up those that were silent for too long."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, MOST_UNSEEN_SECONDS), now
        for post in posts:
            post.silence += passed
            self._hear(post)
            if post.state is not _State.IDLE:
                self._check_lease(post)

    def _hear(self, post: _Post) -> None:
        """Takes in what has arrived from a worker; its death is the end of its trials."""
        try:
            replies = post.handle.receive()
        except EOFError:
            self._lose(post, post.handle.cause_of_death())
            return
        handle = post.handle
        for reply in replies:
            if post.handle is not handle:
                break  # it was just replaced for what it said
            if post.state is _State.OPENING:
                self._hear_opening(post, reply)
            else:
                self._hear_trial(post, reply)

    def _hear_opening(self, post: _Post, reply: Reply) -> None:
        post.silence = 0.0
        if isinstance(reply, RunOpened | RequestFailed):
            post.awaited -= 1
        if post.awaited == 0 and isinstance(reply, RunOpened):
            post.state, post.failed_starts = _State.IDLE, 0
        elif post.awaited == 0 and isinstance(reply, RequestFailed):
            self._lose(post, reply.reason)

    def _hear_trial(self, post: _Post, reply: Reply) -> None:
        before = not post.heard
        self._longest[before] = max(self._longest[before], post.silence)
        post.silence, post.heard = 0.0, True
        if isinstance(reply, EpochEnded | PackFailed):
            self._told.append(reply)
        elif isinstance(reply, TrialEnded):
            self._told.append(reply)
            post.trials.discard(reply.trial)
            if not post.trials:
                post.state = _State.IDLE
                if self._recycle_at and reply.memory > self._recycle_at:
                    self._lose(post, f"its memory has grown to {in_bytes(reply.memory)}")
        elif isinstance(reply, RequestFailed):
            self._told += [TrialEnded(trial=trial, outcome=Failed(reply.reason)) for trial in sorted(post.trials)]
            post.trials, post.state = set(), _State.IDLE
        elif isinstance(reply, StillWorking) and self._memory and reply.memory > self._memory:
            allowed = in_bytes(self._memory)
            self._lose(post, f"the worker outgrew its memory: it held {in_bytes(reply.memory)} of {allowed}")

    def _check_lease(self, post: _Post) -> None:
        if post.state is _State.OPENING:
            longest = self._longest[True]
            allowed = self._lease.allowed_for(OpenRun)
        else:
            longest = self._longest[not post.heard]
            allowed = self._lease.allowed(before_first_word=not post.heard, longest=longest)
        late = time.time() - post.deadline if post.trials else 0.0
        if post.silence > allowed or min(late, post.silence) > self._lease.grace(longest):
            post.handle.ask_where()
            self._lose(post, hung(post.silence, doing=DOING[OpenRun] if post.state is _State.OPENING else "training"))

    # Replacing

    def _replace_the_dead(self) -> None:
        """Replaces workers that ended while they had nothing to do: the next trial must not go with them."""
        for post in list(self._posts):
            if post.state is _State.IDLE and not post.handle.is_alive:
                self._lose(post, post.handle.cause_of_death())

    def _lose(self, post: _Post, reason: str) -> None:
        """Ends what a worker was doing, and the worker, and starts another in its place."""
        name, opening = post.handle.name, post.state is _State.OPENING
        self._told += [
            TrialEnded(trial=trial, outcome=Failed(reason), lost=True) for trial in sorted(post.trials)
        ]
        self._told.append(WorkerReplaced(worker=name, reason=reason))
        post.failed_starts, post.silence = post.failed_starts + opening, 0.0
        if post.failed_starts < MOST_FAILED_STARTS:
            self._replace(post)
            return
        post.handle.kill()
        self._posts.remove(post)
        if not self._posts:
            raise WorkerError(f"no worker is left, and none can be started: {reason}")

    def _replace(self, post: _Post) -> None:
        post.handle.kill()
        post.handle = self._launch(post.number)
        post.state, post.awaited, post.trials, post.silence = _State.IDLE, 0, set(), 0.0
        self._send_open(post)

    def _idle_post(self) -> _Post:
        """Returns a post that has nothing to do; waits for one that is getting ready if there is no other."""
        self._replace_the_dead()
        while True:
            for post in self._posts:
                if post.state is _State.IDLE:
                    return post
            opening = [post for post in self._posts if post.state is _State.OPENING]
            if not opening:
                raise WorkerError("all workers are busy: wait for a trial to end before the next request")
            self._wait([post.handle for post in opening], 1.0)
            self._look_at(opening)
