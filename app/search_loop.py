"""The search itself: ask the algorithm, hand trials to workers, tell the algorithm what came of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from app.errors import SearchError
from app.execution.executor import Event, Training
from app.execution.messages import EpochEnded, PackFailed, RunPack, RunTrial, TrialEnded, WorkerReplaced
from app.goals import none_keeps
from app.interrupts import Interrupts
from app.longer_schedule import longer_schedule
from app.overview import OverviewBoard
from app.packing import Packing
from app.run_directory import RunDirectory
from app.search.algorithm import Algorithm
from app.search.limits import unmet_limits
from app.search.trial import Failed, History, Pruned, Resource, Started, Suggestion, Trial
from app.search_record import SearchRecord
from app.time_budget import LEAST_FOLD_REFIT, TimeBudget
from app.trial_states import TrialStates
from search_spaces.catalogue import FAMILY
from search_spaces.network_size import schedule_share
from search_spaces.pack_shapes import MAX_PACK, PACK_PARAMETERS

FIRST_TRIALS = 5
"""When all of the first trials fail, something is wrong with the data or the space, and the search ends."""

MIN_ROUNDS = 8
"""A pack is suggested as a whole, so a search of few trials takes smaller packs and decides at least so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchView:
    """What a person watching a search sees.

    Attributes:
        history: All trials.
        best: Best value of the objective so far; None before there is one.
        seconds_left: Seconds until the end of the budget; infinity without one.
        max_trials: Most trials to start; None for no limit.
    """

    history: History
    best: float | None
    seconds_left: float
    max_trials: int | None


@final
class SearchLoop:
    """Runs trials until the budget is spent, the space exhausted, or someone interrupts.

    Args:
        algorithm: Suggests trials; knows the facts of earlier sessions.
        executor: Runs them.
        record: Writes the journal.
        directory: The experiment.
        budget: Time for everything.
        keep: Number of best trials whose state stays on disk.
        pool: Number of best trials of which an ensemble is chosen.
        packing: Which trials train together; None trains each alone.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        executor: Training,
        record: SearchRecord,
        directory: RunDirectory,
        budget: TimeBudget,
        keep: int,
        pool: int = 0,
        packing: Packing | None = None,
    ) -> None:
        self._algorithm = algorithm
        self._executor = executor
        self._record = record
        self._budget = budget
        self._packing = packing
        self._whole = budget.left() - budget.finishing
        # Trials that were running when an earlier session was killed go first, from their saved state.
        self._waiting = self._packs_of([trial.suggestion for trial in algorithm.history.running])
        self._running: set[int] = set()
        self._states = TrialStates(directory, known=algorithm.history, keep=keep, pool=pool)
        self._closing = False
        self._overview = OverviewBoard(directory.search_board)

    def run(self, *, interrupts: Interrupts, show: Callable[[SearchView], None]) -> str:
        """Searches; returns in a few words why it ended.

        Args:
            interrupts: Says when someone wants it to end.
            show: Receives the state after every event.

        Raises:
            SearchError: The first trials all failed, the disk is full, or no trial has a result.
        """
        try:
            reason = self._search(interrupts, show)
        finally:
            self._overview.close(self._record.progress)
        if self._record.progress.best is None:
            raise SearchError(self._why_nothing(reason))
        # Nothing is promoted any more: the states of paused trials go too.
        self._states.delete(self._record.history.paused, ranking=self._record.progress.ranking)
        return reason

    def winner(self) -> int | None:
        """Returns the trial to train the final model from; None when there is none.

        The algorithm tells luck from merit; where it knows no better, the best value wins, and among many of one value
        the lowest validation loss. With several objectives it is one that no other trial dominates.
        """
        ranked = [trial.number for trial in self._record.progress.ranking]
        if self._algorithm.recipe.objectives:
            front = set(self._algorithm.front())
            ranked = [number for number in ranked if number in front] or ranked
        recommended = self._algorithm.recommend() if self._algorithm.tells_luck_from_merit else None
        # A result from elsewhere has no curve to tell how long to train.
        return recommended if recommended in ranked else ranked[0] if ranked else None

    def _search(self, interrupts: Interrupts, show: Callable[[SearchView], None]) -> str:
        """Runs trials until there is a reason to end; returns it."""
        while True:
            reason = self._reason_to_close(interrupts)
            if not reason:
                reason = self._submit()
            # Nothing runs and nothing ends it: all workers are being replaced.
            if not self._running and reason:
                self._end_waiting(reason)
                return reason
            for event in self._executor.events(timeout=0.2):
                self._handle(event)
            show(self._view())

    def _reason_to_close(self, interrupts: Interrupts) -> str:
        """Returns why no further trial starts, or nothing."""
        if interrupts.requested:
            if not self._closing:
                self._closing = True
                self._executor.stop_trials()
            return "interrupted"
        if self._time_is_up():
            return "the time is used up"
        return ""

    def _time_is_up(self) -> bool:
        if math.isinf(self._budget.end) or not self._record.progress.best:
            # The first trial starts whatever is left: without any, there is nothing to finish with.
            return not math.isinf(self._budget.end) and bool(self._record.history) and self._budget.left() <= 0
        usable = self._trial_deadline() - time.time()
        taken = list(self._record.progress.seconds.values())
        if not taken:
            return usable <= 0
        # Nobody can stop a network while it is built and traced, and one without an epoch is of no use.
        return usable < max(min(2.0, 0.5 * statistics.median(taken)), self._record.progress.first_epoch_seconds())

    def _submit(self) -> str:
        """Starts as many trials as fit; returns why there is none left, or nothing."""
        while self._executor.num_free:
            pack = self._waiting.pop(0) if self._waiting else self._next_pack()
            if not pack:
                return "" if self._running else "all trials are done"
            self._start(pack)
        return ""

    def _start(self, pack: Sequence[Suggestion]) -> None:
        """Hands trials to a worker."""
        deadline = self._trial_deadline()
        if self._record.progress.best is None:
            # Nothing to fall back on yet: the first trial gets what there is, and is cut rather than refused.
            deadline = max(deadline, time.time() + 0.5 * max(self._budget.left(), 0.0))
        requests = tuple(
            RunTrial(
                number=suggestion.trial,
                hyperparameters=suggestion.hyperparameters,
                budget=suggestion.budget,
                space=self._algorithm.space,
                deadline=deadline,
                leave_above=self._algorithm.leave_limits(),
                # Limits that nothing keeps would leave nothing to finish with: the nearest is better than that.
                past_limits=bool(unmet_limits(self._algorithm.history, self._algorithm.recipe.limits)),
                has_to_answer=self._record.progress.best is None,
            )
            for suggestion in pack
        )
        numbers = [request.number for request in requests]
        self._running.update(numbers)
        self._states.begun(numbers)
        worker = self._executor.submit(RunPack(trials=requests) if len(requests) > 1 else requests[0])
        self._record.leased(numbers, worker=worker)

    def _next_pack(self) -> tuple[Suggestion, ...]:
        """Takes up what the algorithm suggests next: one trial, or several that train together; () for none."""
        if self._packing is not None:
            suggestions = self._algorithm.suggest(self._pack_size(), alike=PACK_PARAMETERS)
        else:
            self._lengthen_schedule()
            suggestions = self._algorithm.suggest(1)
        if not suggestions:
            return ()
        # The others are suggested again, knowing what these came to.
        pack = self._packs_of(suggestions)[0]
        # New trials that are left out would leave gaps in the numbering.
        number = self._record.history.next_number
        taken = []
        for suggestion in pack:
            if suggestion.trial not in self._record.history:
                suggestion, number = replace(suggestion, trial=number), number + 1
            taken.append(suggestion)
        self._algorithm.update([Started(suggestion) for suggestion in taken])
        for suggestion in taken:
            self._record.started(suggestion)
        return tuple(taken)

    def _lengthen_schedule(self) -> None:
        """Has the best configuration suggested next by a longer schedule, if it is time for that.

        Where trials train in packs, other configurations cost next to nothing, and more of them are worth more.
        """
        if math.isinf(self._budget.end):
            return
        usable = self._trial_deadline() - time.time()
        longer = longer_schedule(self._record.progress, usable=usable, whole=self._whole)
        if longer is not None:
            self._record.enqueued(longer)
            self._algorithm.enqueue([longer], first=True)

    def _pack_size(self) -> int:
        """Returns how many suggestions to ask for: a pack, divided among the workers."""
        search = self._record.progress.search
        most = MAX_PACK if search is None or search.max_trials is None else search.max_trials // MIN_ROUNDS
        return max(1, min(most, MAX_PACK // self._executor.num_workers))

    def _packs_of(self, suggestions: Sequence[Suggestion]) -> list[tuple[Suggestion, ...]]:
        """Groups suggestions that can train together, in their order."""
        packs: list[tuple[Suggestion, ...]] = []
        places: dict[object, int] = {}
        for suggestion in suggestions:
            key = self._packing.key(suggestion) if self._packing else None
            # One that took its worker with it must not do so to others.
            if self._packing is None or key is None or suggestion.trial in self._record.progress.retried:
                packs.append((suggestion,))
            elif key in places and len(packs[places[key]]) < self._packing.limit(suggestion):
                packs[places[key]] += (suggestion,)
            else:
                places[key] = len(packs)
                packs.append((suggestion,))
        return packs

    def _handle(self, event: Event) -> None:
        if isinstance(event, WorkerReplaced):
            self._record.worker_replaced(event)
            return
        if isinstance(event, PackFailed):
            self._record.pack_failed(event)
            self._packing = self._packing and self._packing.after_failure(event.size)
            return
        known = len(self._record.progress.facts)
        if isinstance(event, EpochEnded):
            self._record.epoch_ended(event)
        else:
            self._running.discard(event.trial)
            if event.disk_full:
                # Not written down: the trial is not at fault, and goes on when there is room again.
                raise SearchError(event.outcome.reason if isinstance(event.outcome, Failed) else "the disk is full")
            if self._is_tried_again(event):
                return
            self._record.trial_ended(event)
        self._algorithm.update(self._record.progress.facts[known:])
        if isinstance(event, TrialEnded):
            self._after_trial(event)
        elif len(self._record.progress.facts) > known:
            self._stop_if_hopeless(event)

    def _is_tried_again(self, event: TrialEnded) -> bool:
        """Whether a trial whose worker was lost goes on from its saved state, which it may do once."""
        if not event.lost or self._closing or event.trial in self._record.progress.retried:
            return False
        reason = event.outcome.reason if isinstance(event.outcome, Failed) else ""
        self._record.retried(event.trial, reason=reason)
        # Alone, and before anything new: a pack may have been lost for one of its members.
        self._waiting.insert(0, (self._record.history[event.trial].suggestion,))
        return True

    def _stop_if_hopeless(self, event: EpochEnded) -> None:
        if event.trial is None or event.trial not in self._running:
            return
        reason = self._algorithm.hopeless(event.trial, is_rival=_rivals_of(self._record.history[event.trial]))
        if reason:
            self._record.stopped(event.trial, reason=reason)
            self._executor.stop_trial(event.trial)

    def _end_waiting(self, reason: str) -> None:
        """Ends trials that were to go on but came to be too late: what they have learned may still be the best."""
        waiting = [self._record.history[suggestion.trial] for pack in self._waiting for suggestion in pack]
        for trial in waiting:
            if trial.curve:
                self._handle(TrialEnded(trial=trial.number, outcome=Pruned(trial.epochs)))
        if self._record.progress.best is not None:
            for trial in waiting:
                if not trial.curve:
                    self._handle(TrialEnded(trial=trial.number, outcome=Failed(f"not trained: {reason}")))

    def _after_trial(self, event: TrialEnded) -> None:
        # What another trial has revealed meanwhile stays as that one has it, as it does for trials that start later.
        revealed = [parameter for parameter in event.new_parameters if parameter.name not in self._algorithm.space]
        if revealed:
            self._algorithm.grow(revealed)
            self._record.grow(self._algorithm.space)
        self._states.delete_losers(
            self._record.history, running=self._running, ranking=self._record.progress.ranking
        )
        self._overview.trial_ended(self._record.progress)
        history = self._record.history
        # A trial in flight that has trained an epoch is a success, however many others have failed before it.
        if len(history.failed) >= FIRST_TRIALS and not any(
            trial.curve if trial.outcome is None else not isinstance(trial.outcome, Failed)
            for trial in history.values()
        ):
            raise SearchError(f"the first {FIRST_TRIALS} trials all failed; the last one: {_failure(history.failed)}")

    def _trial_deadline(self) -> float:
        repeated = LEAST_FOLD_REFIT if self._algorithm.recipe.resource is Resource.FOLDS else 0.0
        progress = self._record.progress
        best = progress.best
        if best is None:
            return self._budget.trial_deadline(0.0, repeated=repeated)
        building = progress.building_seconds(best)
        return self._budget.trial_deadline(progress.refit_seconds(best), building=building, repeated=repeated)

    def _view(self) -> SearchView:
        progress = self._record.progress
        search, loss = progress.search, None if progress.best is None else progress.loss(progress.best)
        return SearchView(
            history=self._record.history,
            best=None if loss is None else self._record.objective.from_loss(loss),
            seconds_left=self._budget.left(),
            max_trials=search.max_trials if search else None,
        )

    def _why_nothing(self, reason: str) -> str:
        trials = list(self._record.history.values())
        if unmet := unmet_limits(self._algorithm.history, self._algorithm.recipe.limits, after=1):
            return none_keeps(unmet[0], reason=reason)
        if any(isinstance(trial.outcome, Failed) for trial in trials):
            return f"no trial succeeded ({reason}); the last failure: {_failure(trials)}"
        advice = "give the search more --time" if math.isfinite(self._budget.end) else "let a trial go on for longer"
        return f"no trial finished an epoch ({reason}): {advice}, then go on with `tamiz resume`"


def _rivals_of(trial: Trial) -> Callable[[Trial], bool]:
    """Returns which trials show how `trial` may go on: those of its family, by a schedule that is no shorter.

    A network whose schedule is over is as good as it gets, while one by a longer schedule still trains at a high rate.
    """
    family, share = trial.hyperparameters.get(FAMILY), _share(trial)
    return lambda other: other.hyperparameters.get(FAMILY) == family and _share(other) >= share


def _share(trial: Trial) -> float:
    schedule = schedule_share(trial.hyperparameters)
    return 1.0 if schedule is None else schedule[1]


def _failure(trials: Sequence[Trial]) -> str:
    failures = [trial.outcome.reason for trial in trials if isinstance(trial.outcome, Failed)]
    return failures[-1] if failures else "unknown"
