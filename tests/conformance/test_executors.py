"""What every executor must keep. A new one inherits the suite by its line in `EXECUTORS`.

The executor is started once: its workers import TensorFlow, which takes longer than all the trials here.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from app.config import DataConfig, ExperimentConfig, SearchConfig, TrainingConfig
from app.data_files import write_config, write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.errors import WorkerError
from app.execution.executor import Event, Executor
from app.execution.lease import Lease
from app.execution.local_executor import LocalExecutor
from app.execution.messages import (
    EpochEnded,
    FinalTrained,
    OpenRun,
    Predict,
    RunOpened,
    RunTrial,
    TrainFinal,
    TrialEnded,
    WorkerReplaced,
)
from app.run_directory import RunDirectory
from app.search.limits import Limit
from app.search.trial import Failed, Paused, Pruned

# A hang must show soon here, and a machine that is busy with other tests must not look like one.
LEASE = Lease(first=240.0, later=15.0, least=15.0)


def local() -> Executor:
    return LocalExecutor(lease=LEASE)


def ray() -> Executor:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from app.execution.ray_executor import RayExecutor

    return RayExecutor(lease=LEASE)


EXECUTORS: Mapping[str, Callable[[], Executor]] = {"local": local, "ray": ray}

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = 10**6
PATIENCE_SECONDS = 300.0

COORDINATOR = """
import time
from app.execution.local_executor import LocalExecutor
executor = LocalExecutor(num_workers=2)
print("started", flush=True)
time.sleep(600)
"""


def workers_of(coordinator: int) -> set[int]:
    """Process ids of the living workers that a coordinator started."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if int(parent) == coordinator and state != "Z" and "app.execution.worker_process" in command:
            found.add(int(entry.name))
    return found


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        # The first thread of a killed process is a zombie while the others still end.
        return state != "Z" or len(os.listdir(f"/proc/{process}/task")) > 1
    except OSError:
        return False


def wait_until(reached: Callable[[], bool]) -> bool:
    """Whether something comes true in good time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not reached() and time.monotonic() < end:
        time.sleep(0.02)
    return reached()


@dataclasses.dataclass
class OpenExecutor:
    """An executor that has opened an experiment."""

    executor: Executor
    opened: RunOpened
    directory: RunDirectory
    next_trial: int = 0
    processes: list[int] = dataclasses.field(default_factory=list)

    @property
    def process(self) -> int:
        """The process that trains the trial submitted last."""
        return self.processes[-1]

    def submit(self, *, budget: int) -> int:
        """Starts a trial; returns its number."""
        number, self.next_trial = self.next_trial, self.next_trial + 1
        self.wait_until_free()
        worker = self.executor.submit(
            RunTrial(
                number=number,
                hyperparameters=self.opened.space.default(),
                budget=budget,
                space=self.opened.space,
                deadline=math.inf,
            )
        )
        found = re.search(r"worker 0 \(process (\d+)", worker)
        if found is None:
            pytest.fail(f"a worker is called {worker!r}")
        self.processes.append(int(found[1]))
        return number

    def wait_until_free(self) -> None:
        """Waits until a worker that takes the place of another is ready."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.executor.num_free:
            if time.monotonic() > end:
                pytest.fail("no worker becomes free")
            self.executor.events(timeout=0.2)

    def events_until(self, done: Callable[[list[Event]], bool]) -> list[Event]:
        """Collects events until there are enough."""
        events: list[Event] = []
        end = time.monotonic() + PATIENCE_SECONDS
        while not done(events):
            if time.monotonic() > end:
                pytest.fail(f"the executor hangs after {events[-1:]}")
            events.extend(self.executor.events(timeout=0.2))
        return events

    def finish(self) -> list[Event]:
        """Collects events until the trial has ended."""
        return self.events_until(lambda events: any(isinstance(event, TrialEnded) for event in events))


@pytest.fixture(scope="module", params=EXECUTORS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running(
    name: str, space_folder: Path, penguins_csv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenExecutor]:
    config = ExperimentConfig(
        data=DataConfig(target="species"),
        search=SearchConfig(space="penguin_spaces:classes"),
        training=TrainingConfig(max_epochs=ENDLESS, patience=ENDLESS),
    )
    directory = RunDirectory(tmp_path_factory.mktemp("executor") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(space_folder)
        executor = EXECUTORS[name]()
        try:
            with directory.staged() as staged:
                write_data(prepare_data(read_source(penguins_csv, config), config), config, directory=staged)
            opened = executor.open(request_for(directory))
            running = OpenExecutor(executor, opened, directory)
            yield running
            executor.close()
            if not wait_until(lambda: not any(is_alive(process) for process in running.processes)):
                pytest.fail("workers outlive their executor")
        finally:
            executor.close()


def request_for(directory: RunDirectory) -> OpenRun:
    return OpenRun(directory=str(directory.path), objective="accuracy", max_epochs=ENDLESS, seed=1)


def test_opening_declares_the_space(running: OpenExecutor) -> None:
    assert set(running.opened.space.names) == {"width", "rate"}
    assert running.opened.num_replicas == 1


def test_a_trial_reports_its_epochs_in_order_and_ends_once(running: OpenExecutor) -> None:
    number = running.submit(budget=4)
    assert (running.executor.num_workers, running.executor.num_free) == (1, 0)
    events = running.finish()
    assert [event.epoch for event in events if isinstance(event, EpochEnded)] == [1, 2, 3, 4]
    assert {event.trial for event in events} == {number}
    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert [event.outcome for event in ended] == [Paused(4)]
    assert ended[0].num_parameters > 0
    assert running.executor.num_free == 1
    assert running.executor.events(timeout=0.0) == []


def test_epochs_carry_what_tensorboard_shows(running: OpenExecutor) -> None:
    running.submit(budget=1)
    event = running.finish()[0]
    assert isinstance(event, EpochEnded)
    assert set(event.scalars) == {"train/loss", "val/loss", "val/accuracy", "learning_rate"}
    assert event.loss == -event.scalars["val/accuracy"]


def test_a_busy_executor_refuses_another_request(running: OpenExecutor) -> None:
    running.submit(budget=2)
    with pytest.raises(WorkerError, match="all workers are busy: wait for a trial to end before the next request"):
        running.executor.call(Predict(directory="anywhere", columns={}))
    running.finish()


def test_stopping_ends_a_trial_as_pruned(running: OpenExecutor) -> None:
    running.submit(budget=ENDLESS)
    epochs = running.events_until(lambda events: len(events) >= 2)
    running.executor.stop_trials()
    events = [*epochs, *running.finish()]
    assert [event.epoch for event in events[:-1] if isinstance(event, EpochEnded)] == [*range(1, len(events))]
    last = events[-1]
    assert isinstance(last, TrialEnded)
    assert last.outcome == Pruned(len(events) - 1)


def test_a_stop_that_comes_late_does_not_stop_the_next_trial(running: OpenExecutor) -> None:
    running.submit(budget=1)
    while not (running.directory.trial_state(running.next_trial - 1) / "current").exists():
        time.sleep(0.01)
    running.executor.stop_trials()
    running.finish()
    running.submit(budget=3)
    last = running.finish()[-1]
    assert isinstance(last, TrialEnded)
    assert last.outcome == Paused(3)


def test_a_request_that_fails_gives_its_reason(running: OpenExecutor) -> None:
    with pytest.raises(WorkerError, match="absent"):
        running.executor.call(Predict(directory="/absent", columns={"age": np.zeros(1, np.float32)}))
    assert running.executor.num_free == 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("no_such_module:build", "cannot import the space module 'no_such_module': ModuleNotFoundError"),
        ("penguin_spaces:clases", r"module 'penguin_spaces' has no 'clases' \(did you mean 'classes'\?\)"),
        ("penguin_spaces:nothing", "NoneType.*expected build.* to return a keras.Model"),
    ],
)
def test_a_space_that_cannot_be_used_is_refused(running: OpenExecutor, space: str, message: str) -> None:
    config = running.directory.read_config()
    try:
        write_config(running.directory, dataclasses.replace(config, search=SearchConfig(space=space)))
        with pytest.raises(WorkerError, match=message):
            running.executor.open(request_for(running.directory))
    finally:
        write_config(running.directory, config)


def test_measures_are_taken_and_a_network_beyond_a_limit_is_not_trained(running: OpenExecutor) -> None:
    plain = request_for(running.directory)
    measuring = dataclasses.replace(plain, measure=("latency_ms", "log_loss"))
    try:
        running.executor.open(measuring)
        running.submit(budget=3)
        *epochs, ended = running.finish()
        assert isinstance(ended, TrialEnded)
        assert ended.outcome == Paused(3)
        assert set(ended.measures) == {"latency_ms", "log_loss"}
        best = min(epochs, key=lambda event: (event.loss, event.scalars["val/loss"]))
        assert ended.measures["log_loss"] == best.scalars["val/log_loss"]
        # A metric is known after the training only, so a limit on it prevents none.
        limits = (Limit("log_loss", 1e-9), Limit("num_parameters", 10.0))
        running.executor.open(dataclasses.replace(measuring, limits=limits[:1]))
        running.submit(budget=1)
        assert running.finish()[-1].outcome == Paused(1)
        running.executor.open(dataclasses.replace(measuring, limits=limits))
        number = running.submit(budget=3)
        (pruned,) = running.finish()
        assert isinstance(pruned, TrialEnded)
        assert pruned.outcome == Pruned(0)
        assert set(pruned.measures) == {"latency_ms", "num_parameters"}
        assert not (running.directory.trial_state(number) / "current").exists()
    finally:
        running.executor.open(plain)


def test_a_final_training_without_time_leaves_the_network_of_its_trial(running: OpenExecutor) -> None:
    number = running.submit(budget=2)
    running.finish()
    request = TrainFinal(trial=number, hyperparameters=running.opened.space.default(), epochs=3, deadline=0.0)
    reply = running.executor.call(request)
    assert isinstance(reply, FinalTrained)
    assert (reply.epochs, reply.of_trial) == (0, True)
    # One that kept nothing is no help.
    reply = running.executor.call(dataclasses.replace(request, trial=10_000))
    assert isinstance(reply, FinalTrained)
    assert (reply.epochs, reply.of_trial) == (1, False)


def test_one_trial_is_stopped_by_its_number(running: OpenExecutor) -> None:
    number = running.submit(budget=ENDLESS)
    running.events_until(lambda events: len(events) >= 1)
    running.executor.stop_trial(number - 1)
    # Long enough for a worker that took the number of another for its own.
    epochs = running.events_until(lambda events: len(events) >= 5)
    assert all(isinstance(event, EpochEnded) for event in epochs)
    running.executor.stop_trial(number)
    last = running.finish()[-1]
    assert isinstance(last, TrialEnded)
    assert isinstance(last.outcome, Pruned)


def lost(running: OpenExecutor, number: int) -> str:
    """Why a trial has lost its worker; the executor tells of both, and nothing of the trial after that."""
    events = running.finish()
    ended = next(event for event in events if isinstance(event, TrialEnded))
    assert (ended.trial, ended.lost) == (number, True)
    assert isinstance(ended.outcome, Failed)
    replaced = events[-1]
    assert isinstance(replaced, WorkerReplaced)
    assert str(running.process) in replaced.worker
    assert replaced.reason == ended.outcome.reason
    return replaced.reason


def test_a_run_directory_that_a_worker_does_not_see_is_refused(running: OpenExecutor) -> None:
    request = dataclasses.replace(request_for(running.directory), directory="/absent/run")
    with pytest.raises(WorkerError, match=r"/absent/run is not there on .*: expected a run directory on a file system"):
        running.executor.open(request)


def test_a_killed_worker_loses_its_trial_and_the_next_one_runs(running: OpenExecutor, name: str) -> None:
    running.executor.open(request_for(running.directory))
    number = running.submit(budget=ENDLESS)
    running.events_until(lambda events: len(events) >= 1)
    os.kill(running.process, signal.SIGKILL)
    reason = lost(running, number)
    expected = {
        "local": r"the worker was killed by SIGKILL \(the system kills with this signal when memory runs out\)",
        "ray": r"the worker was lost: .*",
    }
    assert re.fullmatch(expected[name], reason)
    # Nobody waits for the one that takes its place.
    assert running.executor.num_free == 0
    # It goes on from its saved state, as any trial does.
    running.next_trial = number
    running.submit(budget=1)
    events = running.finish()
    assert isinstance(events[-1], TrialEnded)
    assert events[-1].outcome == Paused(max(event.epoch for event in events if isinstance(event, EpochEnded)))


@pytest.fixture
def stored(running: OpenExecutor, tmp_path: Path) -> Iterator[Path]:
    """The folder behind the URL at which the states of trials are kept meanwhile."""
    config = running.directory.read_config()
    execution = dataclasses.replace(config.execution, checkpoints=f"file://{tmp_path}/states")
    try:
        write_config(running.directory, dataclasses.replace(config, execution=execution))
        running.executor.open(request_for(running.directory))
        yield tmp_path / "states"
    finally:
        write_config(running.directory, config)
        running.executor.open(request_for(running.directory))


def test_a_worker_that_dies_between_two_trials_takes_none_with_it(running: OpenExecutor, stored: Path) -> None:
    number = running.submit(budget=2)
    told = [event for event in running.finish() if isinstance(event, EpochEnded)]
    state = stored / f"{number:04d}"
    assert {path.name for path in state.iterdir()} == {"current", "best", "predictions"}
    assert not running.directory.trial_state(number).exists()
    os.kill(running.process, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(running.process))
    # The one that takes its place goes on from what is kept, and takes its network from there.
    running.next_trial = number
    running.submit(budget=4)
    *epochs, ended = [event for event in running.finish() if isinstance(event, EpochEnded | TrialEnded)]
    assert isinstance(ended, TrialEnded)
    assert ended.outcome == Paused(4)
    again = [event for event in epochs if isinstance(event, EpochEnded)]
    assert [event.epoch for event in again] == [1, 2, 3, 4]
    assert [event.scalars for event in again[:2]] == [event.scalars for event in told]
    request = TrainFinal(trial=number, hyperparameters=running.opened.space.default(), epochs=4, deadline=0.0)
    reply = running.executor.call(request)
    assert isinstance(reply, FinalTrained)
    assert reply.of_trial
    # What cannot be kept is no fault of the trial: the search ends with the reason, and can be resumed.
    shutil.rmtree(stored)
    stored.write_text("no folder")
    running.submit(budget=1)
    failed = running.finish()[-1]
    assert isinstance(failed, TrialEnded)
    assert failed.disk_full
    assert isinstance(failed.outcome, Failed)
    assert "cannot be reached (" in failed.outcome.reason
    stored.unlink()


def test_a_worker_that_hangs_past_its_lease_is_replaced(running: OpenExecutor) -> None:
    number = running.submit(budget=ENDLESS)
    running.events_until(lambda events: len(events) >= 1)
    os.kill(running.process, signal.SIGSTOP)
    reason = lost(running, number)
    assert re.fullmatch(r"the worker hung: nothing was heard of it for \d+ s of training", reason)
    assert wait_until(lambda: not is_alive(running.process))


def test_closing_leaves_no_process_behind() -> None:
    before = workers_of(os.getpid())
    executor = LocalExecutor()
    started = workers_of(os.getpid()) - before
    assert started
    executor.close()
    executor.close()
    assert not any(is_alive(worker) for worker in started)


def test_workers_end_with_a_killed_coordinator() -> None:
    coordinator = subprocess.Popen([sys.executable, "-c", COORDINATOR], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        if coordinator.stdout is None or coordinator.stdout.readline() != b"started\n":
            pytest.fail("the coordinator did not start")
        workers = workers_of(coordinator.pid)
        assert len(workers) == 2
    finally:
        coordinator.kill()
        coordinator.communicate()
    end = time.monotonic() + PATIENCE_SECONDS
    while any(is_alive(worker) for worker in workers):
        if time.monotonic() > end:
            pytest.fail("workers outlive their coordinator")
        time.sleep(0.05)


def test_an_executor_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="num_workers is 0: expected at least 1"):
        LocalExecutor(num_workers=0)
