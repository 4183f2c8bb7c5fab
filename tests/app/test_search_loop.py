"""The loop around an algorithm, with an executor that computes a known function instead of training networks."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import SearchError
from app.execution.executor import Event
from app.execution.messages import (
    EpochEnded,
    PackFailed,
    RunPack,
    RunTrial,
    TrialEnded,
    WorkerReplaced,
)
from app.interrupts import Interrupts
from app.packing import Packing
from app.run_directory import RunDirectory
from app.search.algorithm import Algorithm, Recipe
from app.search.facts_json import suggestion_to_json
from app.search.limits import Limit
from app.search.space import Categorical, Configuration, Float, Int, Parameter, Space, Value
from app.search.trial import Completed, Failed, History, Outcome, Paused, Pruned, Suggestion
from app.search_loop import SearchLoop, SearchView
from app.search_progress import Search, read_progress
from app.search_record import SearchRecord
from app.time_budget import COMPOSE_SHARE, LEAST_FOLD_REFIT, REFIT_FACTOR, TimeBudget
from search_spaces.pack_shapes import MAX_PACK, pack_shape

SPACE = Space([Float("x", 0.0, 1.0), Int("depth", 1, 4), Categorical("kind", ("a", "b"))])
MAX_EPOCHS = 9
FOREVER = TimeBudget(end=math.inf, finishing=0.0)


def loss_of(values: Mapping[str, Value], epoch: int) -> float:
    """A curve that falls towards the distance to x = 0.3."""
    return abs(float(values["x"]) - 0.3) + 1.0 / epoch


@dataclass
class FunctionExecutor:
    """Computes `loss_of` in this process, an epoch of one worker a call of `events`; keeps states on disk.

    Attributes:
        directory: The experiment.
        seconds: Time an epoch takes.
        told_seconds: What a trial is said to have taken.
        fails: Says of a trial why it fails, if it does.
        reveals: Trial -> parameters that its build reveals.
        lost: Trial -> the epochs after which its worker is lost, one for each time it is tried.
        workers: How many trials or packs run at a time.
        whose_turn: Number of busy workers -> the one that tells of an epoch next.
        submitted: Every trial that was asked for.
        packs: The numbers of the trials that were asked for together.
        stopped: Trials that were asked to stop.
        largest: Members of a pack past which it fails as a whole.
    """

    directory: RunDirectory
    seconds: float = 0.0
    told_seconds: float = 0.1
    fails: Callable[[int], str] = lambda _: ""
    reveals: Mapping[int, tuple[Parameter, ...]] = field(default_factory=dict)
    full_at: int | None = None
    latency: float | None = None
    lost: dict[int, list[int]] = field(default_factory=dict)
    workers: int = 1
    whose_turn: Callable[[int], int] = lambda _: 0
    submitted: list[RunTrial] = field(default_factory=list)
    packs: list[tuple[int, ...]] = field(default_factory=list)
    running: list[dict[int, RunTrial]] = field(default_factory=list)
    epochs: dict[int, int] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)
    largest: int = 99

    @property
    def num_workers(self) -> int:
        return self.workers

    @property
    def num_free(self) -> int:
        return self.workers - len(self.running)

    def submit(self, request: RunTrial | RunPack) -> str:
        members = request.trials if isinstance(request, RunPack) else (request,)
        self.submitted += members
        self.packs.append(tuple(member.number for member in members))
        self.running.append({member.number: member for member in members})
        self.epochs |= {member.number: 0 for member in members}
        return f"worker {len(self.running)}"

    def events(self, *, timeout: float) -> Sequence[Event]:
        del timeout  # there is always something to tell
        if not self.running:
            return []
        job = self.running.pop(self.whose_turn(len(self.running)))
        happened: list[Event] = []
        if len(job) > self.largest and not any(self.epochs[number] for number in job):
            happened.append(PackFailed(trials=tuple(job), size=len(job), reason="out of memory"))
        for request in list(job.values()):
            told = self._advance(request)
            happened += told
            if isinstance(told[-1], TrialEnded):
                del job[request.number]
            if isinstance(told[-1], TrialEnded) and told[-1].lost:
                # Its worker is gone, with all that it trained.
                happened += [TrialEnded(trial=n, outcome=Failed("lost"), lost=True) for n in job]
                job.clear()
                happened.append(WorkerReplaced(worker="worker 1", reason="lost"))
                break
        if job:
            self.running.append(job)
        return happened

    def _advance(self, request: RunTrial) -> list[Event]:
        number = request.number
        state = self.directory.trial_state(number) / "current"
        saved = json.loads(state.read_text()) if state.is_file() else 0
        if self.fails(number):
            return [self._end(number, Failed(self.fails(number)))]
        if self.latency is not None and not request.past_limits:
            measures = {"latency_ms": self.latency}
            return [TrialEnded(trial=number, outcome=Pruned(0), measures=measures)]
        if self.full_at == number:
            return [TrialEnded(trial=number, outcome=Failed("the disk is full: free some"), disk_full=True)]
        if self.lost.get(number, [-1])[0] == self.epochs[number]:
            self.lost[number] = self.lost[number][1:] or [-1]
            return [TrialEnded(trial=number, outcome=Failed("lost"), lost=True)]
        if number in self.stopped or time.time() >= request.deadline:
            return [self._end(number, Pruned(self.epochs[number]))]
        self.epochs[number] = epoch = self.epochs[number] + 1
        if epoch > saved:
            time.sleep(self.seconds)
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps(epoch))
        loss = loss_of(request.hyperparameters, epoch)
        event = EpochEnded(trial=number, epoch=epoch, loss=loss, scalars={"val/loss": loss}, wall_time=time.time())
        if epoch < request.budget:
            return [event]
        return [event, self._end(number, Completed(loss) if epoch >= MAX_EPOCHS else Paused(epoch))]

    def stop_trial(self, number: int) -> None:
        self.stopped.add(number)

    def stop_trials(self) -> None:
        self.stopped |= {number for job in self.running for number in job}

    def _end(self, number: int, outcome: Outcome) -> TrialEnded:
        return TrialEnded(
            trial=number,
            outcome=outcome,
            num_parameters=10,
            seconds=self.told_seconds,
            new_parameters=self.reveals.get(number, ()),
        )


@dataclass
class Session:
    """One run of the loop over a directory; several sessions may follow each other."""

    directory: RunDirectory
    algorithm: str = "random"
    max_trials: int | None = 4
    budget: TimeBudget = FOREVER
    pack_space: str = ""
    space: Space = SPACE
    until: int | None = None
    keep: int = 3
    limits: tuple[Limit, ...] = ()
    wishes: tuple[Configuration, ...] = ()
    interrupts: Interrupts = field(default_factory=Interrupts)
    show: Callable[[SearchView], None] = lambda _: None
    live: History = field(default_factory=History)

    def run(self, executor: FunctionExecutor) -> str:
        """Searches as `app.experiment` does."""
        record = SearchRecord(self.directory, started=time.time())
        try:
            space = record.progress.space or self.space
            if record.progress.search is None:
                search = Search(
                    algorithm=self.algorithm,
                    reason="test",
                    objective="log_loss",
                    max_epochs=MAX_EPOCHS,
                    seed=1,
                    max_trials=self.max_trials,
                )
                record.begin(search, space)
            recipe = Recipe(self.algorithm, space, 1, MAX_EPOCHS, max_trials=self.max_trials, limits=self.limits)
            algorithm = Algorithm(replace(recipe, wishes=self.wishes))
            algorithm.update(record.progress.facts)
            loop = SearchLoop(
                algorithm,
                executor=executor,
                record=record,
                directory=self.directory,
                budget=self.budget,
                keep=self.keep,
                packing=Packing(space=self.pack_space, num_rows=100) if self.pack_space else None,
            )
            return loop.run(interrupts=self.interrupts, show=self.look)
        finally:
            self.live = algorithm.history
            record.close()

    def look(self, view: SearchView) -> None:
        """Interrupts the search when it has as many trials as it should."""
        self.show(view)
        if self.until is not None and len(view.history) >= self.until:
            self.interrupts.requested = True


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run")
    made.path.mkdir()
    return made


def sequence(executor: FunctionExecutor) -> list[tuple[int, Mapping[str, Value], int]]:
    """What was asked for, in order."""
    return [(request.number, dict(request.hyperparameters), request.budget) for request in executor.submitted]


def states(directory: RunDirectory) -> set[int]:
    return {int(path.parent.name) for path in directory.trials.glob("*/state")}


def test_the_number_of_trials_ends_the_search(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    assert Session(directory).run(executor) == "all trials are done"
    assert [request.number for request in executor.submitted] == [0, 1, 2, 3]
    assert len(read_progress(directory).history.completed) == 4


def test_a_small_space_ends_the_search(directory: RunDirectory) -> None:
    record = SearchRecord(directory, started=time.time())
    search = Search(
        algorithm="grid", reason="test", objective="log_loss", max_epochs=MAX_EPOCHS, seed=1, max_trials=None
    )
    record.begin(search, Space([Float("x", 0.5, 0.5), Categorical("kind", ("a", "b"))]))
    record.close()
    executor = FunctionExecutor(directory)
    session = Session(directory, algorithm="grid", max_trials=None)
    assert session.run(executor) == "all trials are done"
    assert len(executor.submitted) == 2


@pytest.mark.parametrize(("told_seconds", "is_last"), [(400.0, True), (0.1, False)])
def test_the_best_goes_on_by_a_longer_schedule_when_there_is_time_for_no_more_than_that(
    directory: RunDirectory, told_seconds: float, is_last: bool
) -> None:
    space = Space([Float("x", 0.0, 1.0), Categorical("epoch_share", (0.25, 0.5, 1.0), default=0.25, ordered=True)])
    executor = FunctionExecutor(directory, told_seconds=told_seconds)
    budget = TimeBudget(end=time.time() + 1000.0, finishing=0.0)
    session = Session(directory, algorithm="bayesian", max_trials=None, space=space, budget=budget, until=2)
    session.wishes = ({"x": 0.75, "epoch_share": 0.25},)
    session.run(executor)
    longer = {"x": 0.75, "epoch_share": 1.0}
    assert (dict(executor.submitted[1].hyperparameters) == longer) is is_last
    # A search that is resumed knows of it.
    assert read_progress(directory).wishes == ([longer] if is_last else [])


def test_no_trial_starts_that_has_no_time_for_an_epoch(directory: RunDirectory) -> None:
    earlier = SearchRecord(directory, started=time.time())
    search = Search(
        algorithm="random", reason="test", objective="log_loss", max_epochs=MAX_EPOCHS, seed=1, max_trials=None
    )
    earlier.begin(search, SPACE)
    for record in (
        {"event": "started", **suggestion_to_json(Suggestion(0, {"x": 0.5, "depth": 1, "kind": "a"}, 0, MAX_EPOCHS))},
        {"event": "leased", "trials": [0], "worker": "one", "time": 1_000.0},
        {"event": "reported", "trial": 0, "epoch": 1, "loss": 0.5, "time": 1_500.0},
        {"event": "ended", "trial": 0, "outcome": "completed", "value": 0.5, "seconds": 0.1, "time": 1_500.0},
    ):
        with directory.journal_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    earlier.close()
    executor = FunctionExecutor(directory)
    budget = TimeBudget(end=time.time() + 400.0, finishing=0.0)
    assert Session(directory, max_trials=None, budget=budget).run(executor) == "the time is used up"
    assert executor.submitted == []


def test_the_best_trial_is_the_one_with_the_lowest_loss(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    Session(directory, max_trials=6).run(executor)
    best = read_progress(directory).best
    losses = {request.number: loss_of(request.hyperparameters, MAX_EPOCHS) for request in executor.submitted}
    assert best is not None
    assert best.number == min(losses, key=losses.__getitem__)


@pytest.mark.parametrize(("num_trials", "winner"), [(12, 7), (40, 3)])
def test_of_many_trials_with_one_value_the_lowest_loss_wins_until_luck_is_told_from_merit(
    directory: RunDirectory, num_trials: int, winner: int
) -> None:
    space = Space([Categorical("kind", ("a", "b"))])
    record = SearchRecord(directory, started=time.time())
    search = Search(
        algorithm="random", reason="test", objective="accuracy", max_epochs=MAX_EPOCHS, seed=1, max_trials=None
    )
    record.begin(search, space)
    for number in range(num_trials):
        # Trial 3 is the first with the best accuracy, trial 7 has the lowest loss of those.
        loss = -0.9 if number in (3, 7) else -0.5
        record.started(Suggestion(number, {"kind": "b" if number in (3, 7) else "a"}, 0, MAX_EPOCHS))
        scalars = {"val/loss": 0.1 if number == 7 else 0.2}
        record.epoch_ended(EpochEnded(trial=number, epoch=1, loss=loss, scalars=scalars, wall_time=0.0))
        record.trial_ended(TrialEnded(trial=number, outcome=Completed(loss)))
    algorithm = Algorithm(Recipe("random", space, 1, MAX_EPOCHS), history=record.history)
    executor = FunctionExecutor(directory)
    loop = SearchLoop(algorithm, executor=executor, record=record, directory=directory, budget=FOREVER, keep=3)
    assert loop.winner() == winner
    record.close()


def test_with_several_objectives_the_winner_is_one_that_no_trial_dominates(directory: RunDirectory) -> None:
    record = SearchRecord(directory, started=time.time())
    search = Search(
        algorithm="random",
        reason="test",
        objective="accuracy",
        max_epochs=MAX_EPOCHS,
        seed=1,
        max_trials=None,
        others=("latency_ms",),
    )
    record.begin(search, SPACE)
    # The first is as good as the third and slower; the second is quick and worse.
    for number, (loss, latency) in enumerate([(-0.9, 8.0), (-0.5, 1.0), (-0.9, 2.0)]):
        values = {"x": 0.1 * number, "depth": 1, "kind": "a"}
        record.started(Suggestion(number, values, 0, MAX_EPOCHS))
        scalars = {"val/loss": 0.1 if number == 0 else 0.2}
        record.epoch_ended(EpochEnded(trial=number, epoch=1, loss=loss, scalars=scalars, wall_time=0.0))
        record.trial_ended(TrialEnded(trial=number, outcome=Completed(loss), measures={"latency_ms": latency}))
    recipe = Recipe("random", SPACE, 1, MAX_EPOCHS, objectives=("latency_ms",))
    algorithm = Algorithm(recipe, history=record.history)
    executor = FunctionExecutor(directory)
    loop = SearchLoop(algorithm, executor=executor, record=record, directory=directory, budget=FOREVER, keep=3)
    assert record.progress.ranking[0].number == 0
    assert loop.winner() == 2
    record.close()


def test_the_time_ends_the_search_and_trials_leave_what_the_end_needs(directory: RunDirectory) -> None:
    budget = TimeBudget(end=time.time() + 3.0, finishing=1.0)
    executor = FunctionExecutor(directory, seconds=0.01)
    assert Session(directory, max_trials=None, budget=budget).run(executor) == "the time is used up"
    # The first trial has nothing to fall back on and may take more.
    assert all(request.deadline <= budget.end - budget.finishing for request in executor.submitted[1:])
    assert all(request.deadline < budget.end for request in executor.submitted)


def test_a_budget_that_is_over_before_an_epoch_says_so(directory: RunDirectory) -> None:
    budget = TimeBudget(end=time.time() - 1.0, finishing=0.5)
    with pytest.raises(SearchError, match=r"no trial finished an epoch \(the time is used up\): give the search more"):
        Session(directory, budget=budget).run(FunctionExecutor(directory))


def test_no_clock_means_no_deadline(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    Session(directory).run(executor)
    assert {request.deadline for request in executor.submitted} == {math.inf}


def test_the_first_five_failing_end_the_search_with_the_reason(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, fails=lambda number: f"no good {number}")
    with pytest.raises(SearchError, match="the first 5 trials all failed; the last one: no good 4"):
        Session(directory, max_trials=50).run(executor)
    assert len(read_progress(directory).history.failed) == 5


def test_a_few_trials_that_all_fail_end_with_the_reason(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, fails=lambda _: "no good")
    with pytest.raises(SearchError, match=r"no trial succeeded \(all trials are done\); the last failure: no good"):
        Session(directory, max_trials=2).run(executor)


def test_a_failed_trial_does_not_end_the_search(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, fails=lambda number: "it died" if number in (0, 2) else "")
    Session(directory).run(executor)
    history = read_progress(directory).history
    assert [trial.outcome for trial in history.failed] == [Failed("it died"), Failed("it died")]
    assert len(history.completed) == 2


def test_a_full_disk_ends_the_search_and_is_not_the_trials_failure(directory: RunDirectory) -> None:
    with pytest.raises(SearchError, match="the disk is full: free some"):
        Session(directory).run(FunctionExecutor(directory, full_at=2))
    assert [trial.number for trial in read_progress(directory).history.running] == [2]
    executor = FunctionExecutor(directory)
    Session(directory).run(executor)
    assert [request.number for request in executor.submitted] == [2, 3]


def test_hyperband_pauses_many_and_resumes_the_best(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    Session(directory, algorithm="hyperband+random", max_trials=9).run(executor)
    numbers = [request.number for request in executor.submitted]
    assert len(numbers) > len(set(numbers)) == 9
    for request in executor.submitted:
        assert request.budget <= MAX_EPOCHS
    history = read_progress(directory).history
    assert len(history.completed) >= 1
    assert len(history.paused) >= 1


def test_a_resumed_trial_tells_its_past_again_and_it_is_recorded_once(directory: RunDirectory) -> None:
    Session(directory, algorithm="hyperband+random", max_trials=9).run(FunctionExecutor(directory))
    for trial in read_progress(directory).history.values():
        assert [epoch for epoch, _ in trial.curve] == list(range(1, trial.epochs + 1))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("algorithm", ["random", "hyperband+random"])
def test_only_the_best_keep_their_state(directory: RunDirectory, algorithm: str, workers: int) -> None:
    executor = FunctionExecutor(directory, workers=workers)
    Session(directory, algorithm=algorithm, max_trials=9, keep=2).run(executor)
    progress = read_progress(directory)
    assert states(directory) == {trial.number for trial in progress.ranking[:2]}
    assert progress.best is not None
    assert progress.best.number in states(directory)


def test_the_losers_of_a_bracket_lose_their_state_when_the_next_begins(directory: RunDirectory) -> None:
    seen: list[tuple[int, int]] = []

    def show(view: SearchView) -> None:
        paused = [trial for trial in view.history.paused if trial.number in states(directory)]
        current = max(trial.bracket for trial in view.history.values())
        if any(trial.bracket == current and trial.outcome for trial in view.history.values()):
            seen.append((current, sum(trial.bracket < current for trial in paused)))

    Session(directory, algorithm="hyperband+random", max_trials=20, keep=1, show=show).run(FunctionExecutor(directory))
    # The best of all may be one of them.
    assert max(losers for current, losers in seen if current == 1) <= 1
    assert max(current for current, _ in seen) >= 1


def test_an_interrupt_stops_the_trial_and_keeps_what_there_is(directory: RunDirectory) -> None:
    interrupts = Interrupts()

    def show(view: SearchView) -> None:
        interrupts.requested = interrupts.requested or (1 in view.history and view.history[1].epochs == 2)

    executor = FunctionExecutor(directory)
    assert Session(directory, interrupts=interrupts, show=show).run(executor) == "interrupted"
    history = read_progress(directory).history
    assert history[1].outcome == Pruned(2)
    assert len(history) == 2


def test_an_interrupt_before_any_epoch_says_what_to_do(directory: RunDirectory) -> None:
    interrupts = Interrupts()
    interrupts.requested = True
    with pytest.raises(SearchError, match=r"no trial finished an epoch \(interrupted\): .*go on with `tamiz resume`"):
        Session(directory, interrupts=interrupts).run(FunctionExecutor(directory))


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband+random"])
@pytest.mark.parametrize("lines", [8, 40])
def test_a_search_cut_anywhere_goes_on_with_the_same_sequence(tmp_path: Path, algorithm: str, lines: int) -> None:
    whole, cut = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "cut")
    for directory in (whole, cut):
        directory.path.mkdir()
    undisturbed = FunctionExecutor(whole)
    Session(whole, algorithm=algorithm, max_trials=9).run(undisturbed)
    # A kill leaves the first lines of the journal, half of one more, and the states of the trials so far.
    journal = whole.journal_file.read_bytes().splitlines(keepends=True)
    cut.journal_file.write_bytes(b"".join(journal[:lines]) + journal[lines][:9])
    for trial in read_progress(cut).history.values():
        if trial.epochs:
            cut.trial_state(trial.number).mkdir(parents=True)
            (cut.trial_state(trial.number) / "current").write_text(str(trial.epochs))
    resumed = FunctionExecutor(cut)
    Session(cut, algorithm=algorithm, max_trials=9).run(resumed)
    assert resumed.submitted
    done = len(undisturbed.submitted) - len(resumed.submitted)
    assert sequence(resumed) == sequence(undisturbed)[done:]
    assert dict(read_progress(cut).history) == dict(read_progress(whole).history)


def test_revealed_parameters_grow_the_space(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, reveals={1: (Int("extra", 1, 8),)})
    Session(directory, max_trials=6).run(executor)
    assert all("extra" not in request.hyperparameters for request in executor.submitted[:2])
    assert all("extra" in request.hyperparameters for request in executor.submitted[2:])
    assert "extra" in executor.submitted[2].space.names
    space = read_progress(directory).space
    assert space is not None
    assert "extra" in space.names


def test_a_parameter_that_two_trials_reveal_differently_stays_as_the_first_has_it(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, reveals={0: (Int("extra", 1, 8),), 1: (Int("extra", 1, 9),)}, workers=2)
    assert Session(directory, max_trials=4).run(executor) == "all trials are done"
    space = read_progress(directory).space
    assert space is not None
    assert space["extra"] == Int("extra", 1, 8)


def test_the_view_counts_and_shows_the_best_in_the_metrics_direction(directory: RunDirectory) -> None:
    seen: list[SearchView] = []
    Session(directory, show=seen.append).run(FunctionExecutor(directory))
    assert seen[0].best is None
    assert seen[-1].max_trials == 4
    best = read_progress(directory).best
    assert best is not None
    assert seen[-1].best == best.loss


def test_a_budget_without_time_has_no_end() -> None:
    budget = TimeBudget.starting_at(time.time(), seconds=0.0, opening=1.0, num_rows=10)
    assert budget.left() == math.inf
    assert budget.trial_deadline(3.0) == math.inf


def test_a_short_budget_is_split_in_halves() -> None:
    budget = TimeBudget.starting_at(100.0, seconds=6.0, opening=60.0, num_rows=10**6)
    assert (budget.end, budget.finishing) == (106.0, 3.0)


def test_a_trial_leaves_room_for_the_final_training() -> None:
    budget = TimeBudget(end=time.time() + 1000.0, finishing=100.0)
    assert budget.trial_deadline(refit_seconds=600.0) <= budget.end - 100.0 - 600.0
    assert budget.trial_deadline(refit_seconds=0.0) <= budget.end - 100.0


def test_a_final_training_that_takes_too_much_of_the_time_is_not_waited_for() -> None:
    budget = TimeBudget(end=time.time() + 1000.0, finishing=100.0, refitting=50.0)
    assert budget.trial_deadline(refit_seconds=60.0) == pytest.approx(budget.end - 100.0)
    assert budget.trial_deadline(refit_seconds=40.0) == pytest.approx(budget.end - 140.0)
    assert not budget.refits(60.0)
    assert budget.refits(40.0)
    assert not TimeBudget(end=time.time() + 120.0, finishing=100.0, refitting=50.0).refits(40.0)
    assert TimeBudget.starting_at(time.time(), seconds=0.0, opening=1.0, num_rows=10).refits(1e9)


def test_a_network_that_takes_long_to_build_leaves_room_to_build_it_again() -> None:
    budget = TimeBudget(end=time.time() + 1000.0, finishing=100.0, rebuilding=0.5)
    assert budget.trial_deadline(refit_seconds=0.0, building=60.0) == pytest.approx(budget.end - 130.0)
    assert budget.compose_deadline(60.0) == pytest.approx(budget.end - COMPOSE_SHARE * 100.0 - 30.0)
    assert budget.refits(860.0, building=60.0)
    assert not budget.refits(880.0, building=60.0)


def test_a_trial_of_folds_leaves_room_to_train_one_network_again() -> None:
    budget = TimeBudget(end=time.time() + 1000.0, finishing=100.0, refitting=50.0)
    left = budget.trial_deadline(refit_seconds=0.0, repeated=LEAST_FOLD_REFIT) - time.time()
    assert left == pytest.approx(900.0 / (1.0 + REFIT_FACTOR * LEAST_FOLD_REFIT), abs=1.0)


def test_other_networks_that_answer_too_leave_less_time_to_train_the_winner_again() -> None:
    alone, together = (
        TimeBudget.starting_at(0.0, seconds=60.0, opening=6.0, num_rows=10, num_networks=number) for number in (1, 8)
    )
    assert together.refitting < alone.refitting < 60.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_leaves(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    interrupts = Interrupts()
    with interrupts.caught():
        os.kill(os.getpid(), number)
        assert interrupts.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def events_of(directory: RunDirectory, kind: str) -> list[dict[str, Any]]:
    """The records of one kind in the journal."""
    records = map(json.loads, directory.journal_file.read_text().splitlines())
    return [record for record in records if record["event"] == kind]


def test_a_trial_that_lost_its_worker_goes_on_once_from_its_saved_state(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, lost={1: [4]})
    Session(directory, max_trials=3).run(executor)
    assert [request.number for request in executor.submitted] == [0, 1, 1, 2]
    progress = read_progress(directory)
    assert len(progress.history.completed) == 3
    assert [epoch for epoch, _ in progress.history[1].curve] == [*range(1, MAX_EPOCHS + 1)]
    assert progress.retried == {1: "lost"}
    assert [record["reason"] for record in events_of(directory, "worker_replaced")] == ["lost"]


def test_a_trial_that_loses_two_workers_has_failed(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, lost={1: [4, 2]})
    Session(directory, max_trials=3).run(executor)
    assert [request.number for request in executor.submitted] == [0, 1, 1, 2]
    assert read_progress(directory).history[1].outcome == Failed("lost")


def test_a_second_chance_is_not_given_again_by_a_resume(directory: RunDirectory) -> None:
    Session(directory, max_trials=3).run(FunctionExecutor(directory, lost={1: [4]}))
    lines = directory.journal_file.read_bytes().splitlines(keepends=True)
    retried = next(index for index, line in enumerate(lines) if b'"retried"' in line)
    directory.journal_file.write_bytes(b"".join(lines[: retried + 1]))
    executor = FunctionExecutor(directory, lost={1: [5]})
    Session(directory, max_trials=3).run(executor)
    assert [request.number for request in executor.submitted] == [1, 2]
    assert read_progress(directory).history[1].outcome == Failed("lost")


def test_the_journal_says_who_runs_what_since_when(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, workers=2)
    leases: list[dict[int, str]] = []

    def show(view: SearchView) -> None:
        del view
        found = read_progress(directory).leases
        assert all(time.time() - 60 < lease.since <= time.time() for lease in found.values())
        leases.append({number: lease.worker for number, lease in found.items()})

    Session(directory, show=show).run(executor)
    assert leases[0] == {0: "worker 1", 1: "worker 2"}
    assert leases[-1] == {}
    # Who ran a trial of a session that was killed is of no use to the next one.
    with directory.journal_file.open("a") as file:
        file.write('{"event":"leased","trials":[3],"worker":"worker 1","time":1.0}\n')
    assert set(read_progress(directory).leases) == {3}
    SearchRecord(directory, started=time.time()).close()
    assert read_progress(directory).leases == {}


def test_several_workers_never_start_more_trials_than_asked_for(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, workers=3)
    Session(directory, algorithm="hyperband+random", max_trials=7).run(executor)
    assert {request.number for request in executor.submitted} == set(range(7))
    assert {trial.outcome for trial in read_progress(directory).history.values()} >= {Paused(1)}


def test_a_hopeless_trial_is_stopped_and_the_journal_says_why(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    session = Session(directory, max_trials=25)
    session.run(executor)
    stopped = {record["trial"]: record["reason"] for record in events_of(directory, "stopped")}
    history = read_progress(directory).history
    assert stopped
    assert all(stopped.values())
    assert executor.stopped == set(stopped) == {trial.number for trial in history.pruned}


@pytest.mark.parametrize(
    ("finished", "begun", "is_stopped"),
    [
        ({"epoch_share": 0.25}, {"epoch_share": 0.25}, True),
        ({"epoch_share": 1.0}, {"epoch_share": 0.25}, True),
        # Its rate is still high where the others have come to rest.
        ({"epoch_share": 0.25}, {"epoch_share": 1.0}, False),
        ({"epoch_share": 0.25}, {"epoch_share": 0.25, "schedule": "constant"}, False),
        # Networks of another kind may learn late.
        ({"family": "mlp"}, {"family": "realmlp"}, False),
    ],
)
def test_a_trial_is_held_against_those_that_learn_as_it_does_for_no_shorter(
    directory: RunDirectory, finished: Configuration, begun: Configuration, is_stopped: bool
) -> None:
    values: dict[str, tuple[Value, ...]] = {}
    for name, value in (*finished.items(), *begun.items()):
        values[name] = tuple(dict.fromkeys((*values.get(name, ()), value)))
    if "schedule" in values:
        values["schedule"] = ("cosine", *values["schedule"])
    space = Space([Float("x", 0.0, 1.0), *(Categorical(name, choices) for name, choices in values.items())])
    good: list[Configuration] = [{"x": 0.3 + 0.001 * number, **finished} for number in range(10)]
    bad: Configuration = {"x": 0.9, **begun}
    Session(directory, max_trials=11, space=space, wishes=(*good, bad)).run(FunctionExecutor(directory))
    assert (10 in {record["trial"] for record in events_of(directory, "stopped")}) is is_stopped


MLP = Space([Float("x", 0.0, 1.0), Int("width", 16, 64), Categorical("batch_size", (32, 64))])


def packs_of(executor: FunctionExecutor) -> list[list[RunTrial]]:
    """The requests of each pack."""
    requests = iter(executor.submitted)
    return [[next(requests) for _ in pack] for pack in executor.packs]


def test_trials_of_one_shape_train_in_packs_and_none_is_too_many(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    Session(directory, max_trials=None, pack_space="mlp", space=MLP, until=40).run(executor)
    assert max(len(pack) for pack in executor.packs) == MAX_PACK
    for pack in packs_of(executor):
        assert len({pack_shape("mlp", request.hyperparameters) for request in pack}) == 1
        assert len({request.budget for request in pack}) == 1
    numbers = sorted(request.number for request in executor.submitted)
    assert numbers == [*range(len(numbers))]


def test_few_trials_are_decided_in_small_packs(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    Session(directory, max_trials=26, pack_space="mlp", space=MLP).run(executor)
    assert max(len(pack) for pack in executor.packs) == 3
    assert sorted(request.number for request in executor.submitted) == [*range(26)]


def test_several_workers_divide_a_pack(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, workers=4)
    Session(directory, max_trials=None, pack_space="mlp", space=MLP, until=40).run(executor)
    assert max(len(pack) for pack in executor.packs) == MAX_PACK // 4


def test_promotions_train_in_packs_of_one_budget(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    Session(directory, algorithm="hyperband+random", max_trials=64, pack_space="mlp", space=MLP).run(executor)
    packs = packs_of(executor)
    promoted = [pack for pack in packs if len(pack) > 1 and pack[0].budget > 1]
    assert promoted
    assert all(len({request.budget for request in pack}) == 1 for pack in packs)
    assert len(read_progress(directory).history) == 64


def test_a_space_that_does_not_pack_trains_one_trial_at_a_time(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory)
    Session(directory, max_trials=10, pack_space="resnet", space=MLP).run(executor)
    assert executor.packs == [(number,) for number in range(10)]


def test_a_pack_that_fails_as_a_whole_is_written_down_and_the_next_ones_are_smaller(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, largest=4)
    Session(directory, max_trials=None, pack_space="mlp", space=MLP, until=50).run(executor)
    failed = events_of(directory, "pack_failed")
    assert failed[0]["size"] == MAX_PACK
    assert [record["size"] for record in failed] == sorted({record["size"] for record in failed}, reverse=True)
    assert {len(pack) for pack in executor.packs if pack[0] > failed[-1]["trials"][-1]} <= {1, 2, 3, 4}
    progress = read_progress(directory)
    assert progress.failed_packs[0] == f"{MAX_PACK} trials: out of memory"
    assert not progress.history.failed


def test_members_of_a_lost_pack_are_tried_again_alone(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, lost={1: [2, 0]})
    Session(directory, max_trials=26, pack_space="mlp", space=MLP).run(executor)
    members = next(pack for pack in executor.packs if 1 in pack)
    assert len(members) > 1
    after = executor.packs[executor.packs.index(members) + 1 :]
    assert {pack for pack in after if set(pack) & set(members)} == {(number,) for number in members}
    history = read_progress(directory).history
    assert history[1].outcome == Failed("lost")
    assert [trial.number for trial in history.failed] == [1]


def test_a_search_cut_in_a_pack_goes_on_with_it(tmp_path: Path) -> None:
    whole, cut = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "cut")
    for directory in (whole, cut):
        directory.path.mkdir()
    Session(whole, max_trials=26, pack_space="mlp", space=MLP).run(FunctionExecutor(whole))
    journal = whole.journal_file.read_bytes().splitlines(keepends=True)
    second = [index for index, line in enumerate(journal) if b'"leased"' in line][1]
    cut.journal_file.write_bytes(b"".join(journal[: second + 3]))
    running = tuple(trial.number for trial in read_progress(cut).history.running)
    assert len(running) > 1
    executor = FunctionExecutor(cut)
    Session(cut, max_trials=26, pack_space="mlp", space=MLP).run(executor)
    assert executor.packs[0] == running
    assert dict(read_progress(cut).history) == dict(read_progress(whole).history)


def test_what_waited_to_go_on_when_the_time_was_up_is_ended(directory: RunDirectory) -> None:
    Session(directory, max_trials=2).run(FunctionExecutor(directory))
    lines = directory.journal_file.read_bytes().splitlines(keepends=True)
    second = next(index for index, line in enumerate(lines) if b'"trial":1,"epoch":3' in line)
    directory.journal_file.write_bytes(b"".join(lines[: second + 1]))
    budget = TimeBudget(end=time.time() - 1.0, finishing=0.5)
    executor = FunctionExecutor(directory)
    assert Session(directory, budget=budget).run(executor) == "the time is used up"
    assert executor.submitted == []
    assert read_progress(directory).history[1].outcome == Pruned(3)


@pytest.mark.parametrize(("before", "after"), [("hyperband+random", "random"), ("random", "hyperband+random")])
def test_a_resumed_search_may_have_another_algorithm_limit_and_number_of_workers(
    directory: RunDirectory, before: str, after: str
) -> None:
    Session(directory, algorithm=before, max_trials=6, until=4).run(FunctionExecutor(directory))
    lines = directory.journal_file.read_bytes().splitlines(keepends=True)
    third = next(index for index, line in enumerate(lines) if b'"event":"started","trial":3' in line)
    directory.journal_file.write_bytes(b"".join(lines[: third + 1]))
    executor = FunctionExecutor(directory, workers=3)
    assert Session(directory, algorithm=after, max_trials=11).run(executor) == "all trials are done"
    history = read_progress(directory).history
    assert list(history) == [*range(11)]
    assert not history.running
    assert executor.submitted[0].number == 3
    for trial in history.values():
        assert [epoch for epoch, _ in trial.curve] == [*range(1, trial.epochs + 1)]
    ended = [record["trial"] for record in events_of(directory, "ended") if record["outcome"] == "completed"]
    assert len(ended) == len(set(ended))


@given(
    turns=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    lost=st.dictionaries(st.integers(0, 7), st.lists(st.integers(0, MAX_EPOCHS - 1), min_size=1, max_size=2)),
    algorithm=st.sampled_from(["random", "hyperband+random", "asha+random"]),
)
@settings(max_examples=12, deadline=None)
def test_a_replayed_journal_is_the_live_state_whatever_the_order_of_four_workers(
    turns: list[int], lost: dict[int, list[int]], algorithm: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(folder)
        order = itertools.cycle(turns)
        executor = FunctionExecutor(
            directory, workers=4, whose_turn=lambda busy: next(order) % busy, lost={n: [*at] for n, at in lost.items()}
        )
        session = Session(directory, algorithm=algorithm, max_trials=8)
        session.run(executor)
        replayed = read_progress(directory)
        assert dict(replayed.history) == dict(session.live)
        assert list(replayed.history) == [*range(8)]
        assert not replayed.leases
        assert not replayed.history.running
        for trial in replayed.history.failed:
            assert trial.number in replayed.retried


def test_a_pack_is_no_larger_than_the_time_for_it() -> None:
    suggestion = Suggestion(0, {"batch_size": 64, "width": 64}, 0, 10)
    endless = Packing(space="mlp", num_rows=30_000)
    assert endless.limit(suggestion) == MAX_PACK
    limits = [replace(endless, seconds=seconds).limit(suggestion) for seconds in (1.0, 5.0, 8.0, 1000.0)]
    assert limits == sorted(limits)
    assert (limits[0], limits[-1]) == (1, MAX_PACK)
    assert 1 < limits[2] < MAX_PACK
    # A thousand columns take many times as long as a few.
    assert replace(endless, seconds=8.0, num_columns=1_000).limit(suggestion) == 1
    # Folds that train up to ten epochs each take ten times as long as epochs.
    assert replace(endless, seconds=20.0, unit_epochs=10).limit(suggestion) == 1
    # A promotion goes on from where it was: less is left of it.
    promoted = replace(suggestion, start_epoch=8)
    assert replace(endless, seconds=10.0).limit(promoted) > replace(endless, seconds=10.0).limit(suggestion)


def test_a_search_that_ends_before_it_may_break_its_limits_says_so(directory: RunDirectory) -> None:
    told = (
        r"no trial keeps the limit latency <= 1 ms \(all trials are done\); the nearest is trial \d with \d+ ms: allow "
        r"more in a new search, or give this one more time or trials with `tamiz resume`, and it comes as near as it ca"
    )
    session = Session(directory, max_trials=3, limits=(Limit("latency_ms", 1.0),))
    with pytest.raises(SearchError, match=told):
        session.run(FunctionExecutor(directory, latency=5.0))


def test_where_nothing_keeps_the_limits_the_search_goes_on_past_them(directory: RunDirectory) -> None:
    executor = FunctionExecutor(directory, latency=5.0)
    Session(directory, max_trials=8, limits=(Limit("latency_ms", 1.0),)).run(executor)
    assert [request.past_limits for request in executor.submitted] == [False] * 5 + [True] * 3
    history = read_progress(directory).history
    assert len(history.completed) == 3
    assert len(history.pruned) == 5
