"""What every scheduler must keep with any number of workers. A new one inherits it by its line in `SCHEDULERS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.search import (
    Algorithm,
    Categorical,
    Completed,
    Ended,
    Fact,
    Failed,
    Float,
    Int,
    Journal,
    Outcome,
    Paused,
    Pruned,
    Reported,
    Space,
    Started,
    Suggestion,
    create,
    fact_from_json,
    fact_to_json,
)
from app.search.algorithm import SCHEDULERS
from app.search.journal import read

MAX_EPOCHS = 9
WIDE = Space([Float("x", 0.0, 1.0), Int("shape", 1, 3)])
NARROW = Space([Int("x", 1, 6), Categorical("kind", ("a", "b"))])
ALIKE = ("shape",)
# Successive halving over a sampler that learns also trains some to the end at once.
NAMES = (*(f"{name}+random" for name in SCHEDULERS), "asha+tpe")

Ending = Callable[[Suggestion, int], Outcome | None]


@pytest.fixture(params=NAMES)
def scheduler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(scheduler: str, *, space: Space = WIDE, max_trials: int | None = None, seed: int = 0) -> Algorithm:
    return create(scheduler, space=space, seed=seed, max_epochs=MAX_EPOCHS, max_trials=max_trials)


def loss_at(suggestion: Suggestion, epoch: int) -> float:
    return float(suggestion.hyperparameters["x"]) + 1.0 / epoch


def never(suggestion: Suggestion, epoch: int) -> Outcome | None:
    del suggestion, epoch
    return None


@dataclass
class Workers:
    """Workers that train trials epoch by epoch; the test says who does its next epoch."""

    algorithm: Algorithm
    num: int
    ends: Ending = never
    alike: tuple[str, ...] = ()
    facts: list[Fact] = field(default_factory=list)
    jobs: list[tuple[Suggestion, int]] = field(default_factory=list)
    suggestions: list[Suggestion] = field(default_factory=list)

    def hire(self) -> None:
        """Gives idle workers what is suggested; checks the laws of a suggestion."""
        while free := self.num - len(self.jobs):
            news = self.algorithm.suggest(free, alike=self.alike)
            assert len(news) <= free
            if not news:
                return
            for suggestion in news:
                self._check(suggestion)
                self.jobs.append((suggestion, suggestion.start_epoch))
                self.tell(Started(suggestion))
            self.suggestions += news

    def _check(self, suggestion: Suggestion) -> None:
        running = {job.trial for job, _ in self.jobs}
        assert suggestion.trial not in running
        known = self.algorithm.history.get(suggestion.trial)
        if known is None:
            assert (suggestion.start_epoch, suggestion.rung) == (0, 0)
            assert suggestion.trial == self.algorithm.history.next_number
        else:
            assert known.outcome == Paused(suggestion.start_epoch)
            assert suggestion.hyperparameters == known.hyperparameters
            assert (suggestion.rung, suggestion.bracket) == (known.rung + 1, known.bracket)
        assert suggestion.start_epoch < suggestion.budget <= MAX_EPOCHS

    def step(self, worker: int) -> None:
        """One of the busy workers does an epoch."""
        index = worker % len(self.jobs)
        suggestion, done = self.jobs.pop(index)
        epoch = done + 1
        outcome = self.ends(suggestion, epoch)
        if outcome is None:
            loss = loss_at(suggestion, epoch)
            self.tell(Reported(suggestion.trial, epoch, loss))
            if epoch < suggestion.budget:
                self.jobs.insert(index, (suggestion, epoch))
                return
            outcome = Completed(loss) if epoch == MAX_EPOCHS else Paused(epoch)
        elif isinstance(outcome, Completed) and math.isnan(outcome.value):
            self.tell(Reported(suggestion.trial, epoch, math.nan))
        self.tell(Ended(suggestion.trial, outcome))

    def tell(self, fact: Fact) -> None:
        self.algorithm.update([fact])
        self.facts.append(fact)

    def run(self, steps: int, *, seed: int = 0) -> None:
        """Some random worker goes on, until nobody has anything to do."""
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            self.hire()
            if not self.jobs:
                return
            self.step(int(rng.integers(len(self.jobs))))


def troubled(suggestion: Suggestion, epoch: int) -> Outcome | None:
    """Every third trial ends badly, each in its own way, some after a promotion."""
    if suggestion.trial % 3 != 1 or epoch < 1 + suggestion.trial % 4:
        return None
    kinds: list[Outcome] = [Failed("crash"), Pruned(epoch), Completed(math.nan), Completed(0.5)]
    return kinds[suggestion.trial % 4]


@pytest.mark.parametrize("num", [1, 4, 16])
@pytest.mark.parametrize("ends", [never, troubled])
def test_exhausted_space_ends_cleanly_with_any_number_of_workers(scheduler: str, num: int, ends: Ending) -> None:
    workers = Workers(make(scheduler, space=NARROW), num, ends)
    workers.run(2000)
    algorithm = workers.algorithm
    assert not workers.jobs
    assert algorithm.is_exhausted
    assert len(algorithm.history) == NARROW.num_configurations
    assert any(trial.epochs == MAX_EPOCHS for trial in algorithm.history.values())


@pytest.mark.parametrize("num", [1, 4, 16])
def test_trial_limit_holds_and_somebody_reaches_the_full_budget(scheduler: str, num: int) -> None:
    workers = Workers(make(scheduler, max_trials=5), num)
    workers.run(2000)
    assert workers.algorithm.is_exhausted
    assert len(workers.algorithm.history) == 5
    assert workers.algorithm.history.completed


@pytest.mark.parametrize("num", [1, 4, 16])
def test_long_search_trains_no_epoch_twice(scheduler: str, num: int) -> None:
    workers = Workers(make(scheduler), num, alike=ALIKE)
    workers.run(400)
    reports = [(fact.trial, fact.epoch) for fact in workers.facts if isinstance(fact, Reported)]
    assert len(reports) == len(set(reports)) == 400
    for trial in workers.algorithm.history.values():
        assert [epoch for epoch, _ in trial.curve] == list(range(1, len(trial.curve) + 1))


def test_new_trials_of_a_pack_are_alike(scheduler: str) -> None:
    workers = Workers(make(scheduler), 1)
    workers.run(60)
    batch = [suggestion for suggestion in workers.algorithm.suggest(16, alike=ALIKE) if not suggestion.start_epoch]
    assert len({suggestion.hyperparameters["shape"] for suggestion in batch}) <= 1


def test_search_of_failures_alone_goes_on_without_promotions(scheduler: str) -> None:
    workers = Workers(make(scheduler), 4, lambda _, epoch: Failed("crash") if epoch else None)
    workers.run(40)
    assert len(workers.suggestions) >= 40
    assert not any(suggestion.start_epoch for suggestion in workers.suggestions)


def test_suggestions_depend_on_facts_alone(scheduler: str) -> None:
    workers = Workers(make(scheduler), 4, troubled)
    workers.run(150)
    again = make(scheduler)
    again.update(workers.facts)
    assert again.suggest(4) == workers.algorithm.suggest(4)
    assert again.suggest(16, alike=ALIKE) == workers.algorithm.suggest(16, alike=ALIKE)


def test_worse_trials_on_their_way_to_the_full_budget_are_told_hopeless_and_better_ones_are_not(scheduler: str) -> None:
    workers = Workers(make(scheduler), 1)
    stopped = []
    for _ in range(600):
        workers.hire()
        workers.step(0)
        for job, epoch in list(workers.jobs):
            if epoch > job.start_epoch and workers.algorithm.hopeless(job.trial):
                assert workers.algorithm.hopeless(job.trial) == workers.algorithm.hopeless(job.trial)
                workers.jobs.remove((job, epoch))
                workers.tell(Ended(job.trial, Pruned(epoch)))
                stopped.append(float(job.hyperparameters["x"]))
    best = workers.algorithm.recommend()
    assert best is not None
    # Curves of this search never cross, so nothing better than the best may be stopped.
    assert all(x > float(workers.algorithm.history[best].hyperparameters["x"]) for x in stopped)
    assert stopped


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, 3), min_size=1, max_size=120), torn=st.integers(0, 40))
def test_journal_replay_equals_live_state_under_any_interleaving(
    name: str, order: list[int], torn: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workers = Workers(make(name), 4, troubled)
    for worker in order:
        workers.hire()
        workers.step(worker)
    path: Path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with Journal.open(path) as journal:
        for fact in workers.facts:
            journal.append(fact_to_json(fact))
    # A coordinator that is killed leaves half a line.
    with path.open("ab") as file:
        file.write(b'{"event":"reported","trial":0,"epoch":1,"loss":0.5}'[:torn])
    replayed = make(name)
    replayed.update(fact_from_json(record) for record in read(path)[1:])
    assert replayed.history == workers.algorithm.history
    assert replayed.suggest(4) == workers.algorithm.suggest(4)
    loaded = Algorithm.load(replayed.dump())
    assert loaded.history == workers.algorithm.history
