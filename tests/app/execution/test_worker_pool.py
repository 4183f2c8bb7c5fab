"""The rules of a pool, with workers whose every word is written here; real ones are in the conformance suite."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import pytest

from app.errors import WorkerError, WorkerLostError
from app.execution.executor import Event
from app.execution.lease import Lease
from app.execution.messages import (
    EpochEnded,
    ExportModel,
    FinalTrained,
    MeasureExport,
    OpenRun,
    OpenTest,
    PackFailed,
    Predict,
    Reply,
    Request,
    RequestFailed,
    RunOpened,
    RunPack,
    RunTrial,
    StillWorking,
    StopTrial,
    TrainFinal,
    TrialEnded,
    WorkerReplaced,
)
from app.execution.worker_handle import WorkerHandle
from app.execution.worker_pool import WorkerPool
from app.search.space import Float, Space
from app.search.trial import Completed, Failed
from app.training.devices import Seat

SPACE = Space([Float("x", 0.0, 1.0)])
OPEN = OpenRun(directory="run", objective="accuracy", max_epochs=3, seed=1)
OPENED = RunOpened(space=SPACE, devices="none", num_replicas=1, memory=400)
SOON = Lease(first=0.3, later=0.05, least=0.05)


@dataclass
class ScriptedWorker(WorkerHandle):
    """Says what a test has it say.

    Attributes:
        number: Its post.
        says: What has not been received yet.
        heard: Every request.
        dead: Whether it has ended.
        was_asked: Whether it was asked where it hangs.
    """

    number: int
    says: list[Reply] = field(default_factory=list)
    heard: list[Request] = field(default_factory=list)
    dead: bool = False
    was_asked: bool = False

    @property
    def name(self) -> str:
        return f"worker {self.number}"

    @property
    def is_alive(self) -> bool:
        return not self.dead

    def send(self, request: Request) -> None:
        self.heard.append(request)

    def receive(self) -> list[Reply]:
        said, self.says = self.says, []
        if self.dead and not said:
            raise EOFError
        return said

    def cause_of_death(self) -> str:
        return "it died"

    def ask_where(self) -> None:
        self.was_asked = True

    def kill(self) -> None:
        self.dead = True


class ScriptedPool(WorkerPool):
    """A pool of such workers; each opens at once unless told what else to answer, or that it is dead from the start."""

    def __init__(
        self,
        *answers: Reply | type[EOFError] | None,
        num_workers: int = 1,
        worker_memory: int | None = None,
        usual_memory: int | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.answers = list(answers)
        self.launched: list[ScriptedWorker] = []
        self.now = 0.0
        super().__init__(
            num_workers=num_workers,
            worker_memory=worker_memory,
            usual_memory=usual_memory,
            lease=lease,
            clock=lambda: self.now,
        )

    def _launch(self, number: int) -> ScriptedWorker:
        answer = self.answers.pop(0) if self.answers else OPENED
        says: list[Reply] = [] if answer is None or isinstance(answer, type) else [answer]
        self.launched.append(ScriptedWorker(number, says=says, dead=answer is EOFError))
        return self.launched[-1]

    def _wait(self, handles: Collection[WorkerHandle], timeout: float) -> None:
        del handles, timeout  # they have said what they say

    def _seat(self, number: int) -> Seat:
        return Seat(worker=number, num_workers=self._num_seats, threads=1, gathered=self._gathered)


def trial(number: int, *, deadline: float = math.inf) -> RunTrial:
    return RunTrial(number=number, hyperparameters={"x": 0.5}, budget=3, space=SPACE, deadline=deadline)


def epoch(number: int, at: int = 1) -> EpochEnded:
    return EpochEnded(trial=number, epoch=at, loss=0.5, scalars={}, wall_time=0.0)


def ended(number: int, *, memory: int = 0) -> TrialEnded:
    return TrialEnded(trial=number, outcome=Completed(0.5), memory=memory)


def lost(number: int, reason: str) -> TrialEnded:
    return TrialEnded(trial=number, outcome=Failed(reason), lost=True)


def events_for(pool: ScriptedPool, seconds: float) -> list[Event]:
    """What is told within some time, on the clock of the pool."""
    events: list[Event] = []
    for _ in range(round(seconds / 0.01)):
        pool.now += 0.01
        events += pool.events(timeout=0.0)
    return events


def test_the_search_begins_when_the_first_worker_is_ready() -> None:
    pool = ScriptedPool(OPENED, None, num_workers=2)
    assert pool.open(OPEN) == OPENED
    assert (pool.num_workers, pool.num_free) == (2, 1)
    assert pool.submit(trial(0)) == "worker 0"
    pool.launched[1].says.append(OPENED)
    pool.events(timeout=0.0)
    assert pool.submit(trial(1)) == "worker 1"
    assert [worker.heard[0] for worker in pool.launched] == [
        replace(OPEN, seat=Seat(worker=number, num_workers=2, threads=1)) for number in (0, 1)
    ]


def test_networks_too_large_for_one_device_each_get_one_worker_with_all_of_them() -> None:
    mirrored = replace(OPENED, num_replicas=2)
    pool = ScriptedPool(replace(OPENED, gather="they are large"), None, mirrored, num_workers=2)
    assert pool.open(OPEN) == mirrored
    assert [worker.dead for worker in pool.launched] == [True, True, False]
    assert pool.launched[2].heard == [replace(OPEN, seat=Seat(threads=1, gathered="they are large"))]
    assert (pool.num_workers, pool.submit(trial(0))) == (1, "worker 0")


def test_a_worker_that_is_alone_already_is_not_replaced_for_the_size_of_networks() -> None:
    pool = ScriptedPool(replace(OPENED, gather="they are large"))
    pool.open(OPEN)
    assert len(pool.launched) == 1


def test_a_pack_keeps_a_worker_until_its_last_member_has_ended() -> None:
    pool = ScriptedPool()
    pool.open(OPEN)
    pool.submit(RunPack(trials=(trial(3), trial(4))))
    pool.launched[0].says += [epoch(3), epoch(4), ended(4)]
    assert pool.events(timeout=0.1) == [epoch(3), epoch(4), ended(4)]
    assert pool.num_free == 0
    pool.launched[0].says.append(ended(3))
    assert pool.events(timeout=0.1) == [ended(3)]
    assert pool.num_free == 1


def test_a_pack_that_failed_as_a_whole_is_told_of_and_its_members_go_on() -> None:
    pool = ScriptedPool()
    pool.open(OPEN)
    pool.submit(RunPack(trials=(trial(3), trial(4))))
    failed = PackFailed(trials=(3, 4), size=2, reason="out of memory")
    pool.launched[0].says += [failed, ended(3)]
    assert pool.events(timeout=0.1) == [failed, ended(3)]
    assert pool.num_free == 0


def test_the_death_of_a_pack_loses_the_members_that_have_not_ended() -> None:
    pool = ScriptedPool()
    pool.open(OPEN)
    pool.submit(RunPack(trials=(trial(3), trial(4), trial(5))))
    pool.launched[0].says.append(ended(4))
    pool.launched[0].dead = True
    told = [*pool.events(timeout=0.1), *pool.events(timeout=0.1)]
    replaced = WorkerReplaced(worker="worker 0", reason="it died")
    assert told == [ended(4), lost(3, "it died"), lost(5, "it died"), replaced]


def test_a_request_that_cannot_be_met_fails_every_member_of_a_pack() -> None:
    pool = ScriptedPool()
    pool.open(OPEN)
    pool.submit(RunPack(trials=(trial(0), trial(1))))
    pool.launched[0].says.append(RequestFailed(reason="no such space"))
    told = pool.events(timeout=0.1)
    assert told == [TrialEnded(trial=number, outcome=Failed("no such space")) for number in (0, 1)]
    assert pool.num_free == 1


def test_only_the_worker_that_has_the_trial_hears_of_its_stop() -> None:
    pool = ScriptedPool(num_workers=2)
    pool.open(OPEN)
    pool.events(timeout=0.0)
    pool.submit(RunPack(trials=(trial(0), trial(1))))
    pool.submit(trial(2))
    pool.stop_trial(1)
    pool.stop_trial(7)
    assert [StopTrial(1) in worker.heard for worker in pool.launched] == [True, False]
    pool.stop_trials()
    assert all(worker.heard[-1] == StopTrial() for worker in pool.launched)


def test_a_silent_worker_is_replaced_and_a_sign_of_life_is_none_of_silence() -> None:
    pool = ScriptedPool(lease=SOON)
    pool.open(OPEN)
    pool.submit(trial(0))
    for _ in range(12):
        pool.launched[0].says.append(StillWorking(memory=1))
        assert events_for(pool, 0.03) == []
    (told, replaced) = events_for(pool, 0.4)
    assert isinstance(told, TrialEnded)
    assert isinstance(told.outcome, Failed)
    assert told.outcome.reason == "the worker hung: nothing was heard of it for 0 s of training"
    assert (told.trial, told.lost) == (0, True)
    assert replaced == WorkerReplaced(worker="worker 0", reason=told.outcome.reason)
    assert pool.launched[0].dead
    assert pool.num_free == 1


def test_a_worker_may_be_silent_for_longer_before_its_first_word() -> None:
    pool = ScriptedPool(lease=SOON)
    pool.open(OPEN)
    pool.submit(trial(0))
    assert events_for(pool, 0.15) == []
    assert [type(event) for event in events_for(pool, 0.5)] == [TrialEnded, WorkerReplaced]


def test_a_lease_learns_what_is_usual_within_its_bounds() -> None:
    lease = Lease(first=900.0, later=300.0, least=60.0, factor=20.0)
    assert lease.allowed(before_first_word=True, longest=0.0) == 900.0
    assert lease.allowed(before_first_word=False, longest=0.0) == 300.0
    assert lease.allowed(before_first_word=False, longest=1.0) == 60.0
    assert lease.allowed(before_first_word=False, longest=5.0) == 100.0
    assert lease.allowed(before_first_word=False, longest=50.0) == 300.0


def test_a_trial_that_goes_on_past_its_deadline_hangs() -> None:
    pool = ScriptedPool(lease=Lease(first=60.0, later=60.0, least=0.2))
    pool.open(OPEN)
    pool.submit(trial(0, deadline=time.time() - 60.0))
    assert events_for(pool, 0.05) == []
    assert [type(event) for event in events_for(pool, 0.5)] == [TrialEnded, WorkerReplaced]


def test_the_grace_after_a_deadline_grows_with_what_is_usual() -> None:
    lease = Lease(least=60.0)
    assert [lease.grace(longest) for longest in (0.0, 1.0, 20.0)] == [60.0, 30.0, 60.0]


def test_a_coordinator_that_was_held_up_does_not_blame_its_workers() -> None:
    pool = ScriptedPool(lease=Lease(first=60.0, later=60.0, least=60.0))
    pool.open(OPEN)
    pool.submit(trial(0))
    pool.events(timeout=0.0)
    pool.now += 3600.0
    assert pool.events(timeout=0.0) == []
    assert pool.num_free == 0


def test_a_worker_that_outgrows_its_memory_is_replaced_in_the_middle_of_a_trial() -> None:
    pool = ScriptedPool(worker_memory=2_000_000)
    pool.open(OPEN)
    pool.submit(trial(0))
    pool.launched[0].says.append(StillWorking(memory=2_500_000))
    reason = "the worker outgrew its memory: it held 2.5MB of 2MB"
    assert pool.events(timeout=0.1) == [lost(0, reason), WorkerReplaced(worker="worker 0", reason=reason)]
    assert pool.launched[0].dead


@pytest.mark.parametrize(("most", "usual"), [(2_000_000, None), (None, 1_700_000)])
def test_a_worker_that_has_grown_is_replaced_between_two_trials(most: int | None, usual: int | None) -> None:
    pool = ScriptedPool(worker_memory=most, usual_memory=usual)
    pool.open(OPEN)
    pool.submit(trial(0))
    grown = ended(0, memory=1_800_000)
    pool.launched[0].says.append(grown)
    replaced = WorkerReplaced(worker="worker 0", reason="its memory has grown to 1.8MB")
    assert pool.events(timeout=0.1) == [grown, replaced]
    assert len(pool.launched) == 2


def test_memory_that_is_not_enough_for_the_experiment_is_refused() -> None:
    with pytest.raises(WorkerError, match=r"may hold 300 bytes, but .* holds 400 bytes before any trial: give "):
        ScriptedPool(worker_memory=300).open(OPEN)


def test_a_worker_that_cannot_start_again_is_given_up_and_the_others_go_on() -> None:
    broken = RequestFailed(reason="no file")
    pool = ScriptedPool(OPENED, OPENED, broken, broken, broken, num_workers=2)
    pool.open(OPEN)
    pool.events(timeout=0.0)
    pool.submit(trial(0))
    pool.launched[0].dead = True
    events = events_for(pool, 0.2)
    reasons = [event.reason for event in events if isinstance(event, WorkerReplaced)]
    assert reasons == ["it died", "no file", "no file", "no file"]
    assert (pool.num_workers, pool.num_free) == (1, 1)
    pool.launched[1].dead = True
    pool.answers = [broken, broken, broken]
    with pytest.raises(WorkerError, match="no worker is left, and none can be started: no file"):
        events_for(pool, 0.5)


def test_a_worker_that_dies_while_it_opens_the_experiment_is_replaced_once() -> None:
    pool = ScriptedPool(EOFError)
    assert pool.open(OPEN) == OPENED
    assert pool.events(timeout=0.0) == [
        WorkerReplaced(worker="worker 0", reason="opening the experiment: it died")
    ]
    pool.submit(trial(0))
    assert [type(request) for request in pool.launched[1].heard] == [OpenRun, RunTrial]


def test_an_experiment_that_two_workers_die_of_is_not_opened() -> None:
    pool = ScriptedPool(EOFError, EOFError)
    with pytest.raises(WorkerError, match="opening the experiment: it died"):
        pool.open(OPEN)
    assert len(pool.launched) == 3


def test_a_request_waits_for_the_worker_that_is_getting_ready() -> None:
    pool = ScriptedPool()
    pool.open(OPEN)
    pool.launched[0].dead = True
    pool.submit(trial(0))
    assert [type(request) for request in pool.launched[1].heard] == [OpenRun, RunTrial]


@dataclass
class TalkingPool:
    """What a pool's worker says while it is waited for: at a time of the pool's clock, which waiting drives."""

    pool: ScriptedPool
    words: dict[float, Reply]

    def wait(self, handles: Collection[WorkerHandle], timeout: float) -> None:
        del handles
        self.pool.now += timeout
        for at in [at for at in self.words if at <= self.pool.now]:
            self.pool.launched[-1].says.append(self.words.pop(at))


FINAL = TrainFinal(trial=0, hyperparameters={"x": 0.5}, epochs=3, deadline=math.inf)
TRAINED = FinalTrained(epochs=3, num_parameters=10, seconds=9.0)


@pytest.mark.parametrize(
    ("request_", "doing"),
    [
        (FINAL, "training the final model"),
        (OpenTest(), "judging the sealed test rows"),
        (ExportModel(extra_files={}), "exporting the model"),
        (MeasureExport(directory="run/export/run/1"), "measuring the exported model"),
    ],
)
def test_what_is_no_trial_and_silent_for_too_long_has_hung(
    request_: Request, doing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ScriptedPool(lease=Lease(first=30.0))
    pool.open(OPEN)
    monkeypatch.setattr(pool, "_wait", TalkingPool(pool, {20.0: StillWorking(0)}).wait)
    told = (
        f"the worker hung: nothing was heard of it for 31 s of {doing}; go on with `tamiz resume run`; if it hangs "
        "there again, run/logs tells what the worker did last"
    )
    with pytest.raises(WorkerLostError, match=f"^{re.escape(told)}$"):
        pool.call(request_)
    # Another one is there for the next request.
    assert [(worker.was_asked, worker.dead) for worker in pool.launched] == [(True, True), (False, False)]


def test_what_is_no_trial_and_gives_signs_of_life_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ScriptedPool(lease=Lease(first=30.0))
    pool.open(OPEN)
    words: dict[float, Reply] = {25.0 * number: StillWorking(0) for number in range(1, 9)}
    monkeypatch.setattr(pool, "_wait", TalkingPool(pool, words | {220.0: TRAINED}).wait)
    assert pool.call(FINAL) == TRAINED


def test_answers_to_rows_are_waited_for_however_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ScriptedPool(lease=Lease(first=30.0))
    pool.open(OPEN)
    opened: dict[float, Reply] = {500.0: RequestFailed(reason="no model")}
    monkeypatch.setattr(pool, "_wait", TalkingPool(pool, opened).wait)
    with pytest.raises(WorkerError, match="no model"):
        pool.call(Predict(directory="run/export/run/1", columns={}))


def test_a_worker_that_hangs_while_it_opens_the_experiment_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ScriptedPool(None, lease=Lease(first=30.0))
    # The first encodes rows for longer than a silence may be, and then is heard of no more.
    words: dict[float, Reply] = {20.0 * number: StillWorking(0) for number in range(1, 5)}
    monkeypatch.setattr(pool, "_wait", TalkingPool(pool, words).wait)
    assert pool.open(OPEN) == OPENED
    (replaced,) = pool.events(timeout=0.0)
    assert isinstance(replaced, WorkerReplaced)
    assert replaced.reason.startswith("the worker hung: nothing was heard of it for 31 s of opening the experiment; ")
    assert pool.now > 80.0 + 30.0


def test_a_request_does_not_wait_for_a_worker_that_hangs_while_it_gets_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ScriptedPool(OPENED, None, lease=Lease(first=30.0))
    pool.open(OPEN)
    pool.launched[0].dead = True
    monkeypatch.setattr(pool, "_wait", TalkingPool(pool, {20.0: StillWorking(0)}).wait)
    pool.submit(trial(0))
    assert [worker.dead for worker in pool.launched] == [True, True, False]
    assert pool.now == pytest.approx(51.0, abs=2.0)
