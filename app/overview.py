"""What a search looks like at a moment, in numbers: the same for `tamiz watch`, TensorBoard and the leaderboard."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from app.evaluation.metrics import METRICS, Metric
from app.evaluation.number_text import number_text
from app.search.importance import importance
from app.search.limits import violation
from app.search.rank_agreement import RankAgreement
from app.search.trial import Failed, History, Paused, Resource, Trial
from app.search_progress import Lease, Progress
from app.shared_scores import agreement_of, scalars_of_agreement
from app.tensorboard import TrialEventWriter

SHOWN_PARAMETERS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RungCount:
    """Trials of one rung of one bracket.

    Attributes:
        bracket: Number of the bracket in the order they began.
        rung: Promotions that a trial has behind it here.
        budget: Epochs (or folds) after which the rung is judged.
        entered: Trials that came so far.
        running: Those that train there now.
        promoted: Those that went on.
    """

    bracket: int
    rung: int
    budget: int
    entered: int
    running: int
    promoted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A search at a moment.

    Attributes:
        metric: What selects.
        counts: Status -> number of trials.
        best: Value of the best trial after each trial that has ended, in their order; NaN before there is one. The best
            keeps all limits, or breaks them least, and has the most folds; one that goes on has what it had.
        rungs: By bracket and rung; empty when every trial trains to its end.
        importance: Parameter -> share of the differences between trials, largest first; empty with few trials.
        leases: Running trial -> who runs it.
        agreement: How far shared weights rank cells as training each does; None where cells were not ranked so, or too
            few of them have been trained.
    """

    metric: Metric
    counts: Mapping[str, int]
    best: tuple[float, ...]
    rungs: tuple[RungCount, ...]
    importance: Mapping[str, float]
    leases: Mapping[int, Lease]
    agreement: RankAgreement | None = None


def overview_of(progress: Progress, *, with_importance: bool = True) -> Overview:
    """Returns the numbers of a search.

    Args:
        progress: What its journal says.
        with_importance: Whether to fit the model that importance needs, a fraction of a second.

    Raises:
        ValueError: The search has not begun.
    """
    if progress.search is None or progress.space is None:
        raise ValueError("the search has not begun: expected a journal with a search")
    metric = METRICS[progress.search.objective]
    return Overview(
        metric=metric,
        counts=Counter(status_of(trial, progress) for trial in progress.history.values()),
        best=_best_so_far(progress, metric),
        rungs=_rungs(progress.history),
        importance=_told_apart(importance(progress.space, progress.history)) if with_importance else {},
        leases=progress.leases,
        agreement=agreement_of(progress),
    )


def status_of(trial: Trial, progress: Progress) -> str:
    """Returns a trial's status in a word; `added` for a result that was brought from elsewhere."""
    if trial.number in progress.added:
        return "added"
    return type(trial.outcome).__name__.lower() if trial.outcome else "running"


def importance_text(shares: Mapping[str, float]) -> str:
    """Returns the most important parameters in a line; nothing when none is known."""
    shown = list(shares.items())[:SHOWN_PARAMETERS]
    return ", ".join(f"{name} {share:.0%}" for name, share in shown)


def scalars_of(overview: Overview) -> dict[str, float]:
    """Returns the numbers as TensorBoard has them: tag -> value."""
    scalars = {f"trials/{status}": float(number) for status, number in overview.counts.items()}
    if overview.best and math.isfinite(overview.best[-1]):
        scalars[f"best/{overview.metric.name}"] = overview.best[-1]
    scalars |= scalars_of_agreement(overview.agreement)
    return scalars | {f"importance/{name}": share for name, share in overview.importance.items()}


def best_text(overview: Overview) -> str:
    """Returns the best value so far."""
    return number_text(overview.best[-1]) if overview.best else "none yet"


def _told_apart(shares: Mapping[str, float]) -> Mapping[str, float]:
    """The shares; nothing where all but those of constants are equal, which means that the trials do not tell."""
    told = [share for share in shares.values() if share]
    return {} if len(told) > 1 and len(set(told)) == 1 else shares


def _best_so_far(progress: Progress, metric: Metric) -> tuple[float, ...]:
    limits = progress.search.limits if progress.search else ()
    best, values = (math.inf, 0, math.inf), list[float]()
    for trial in progress.history.values():
        if trial.outcome is None and not trial.start_epoch:
            continue
        loss = trial.loss_until(trial.start_epoch) if trial.outcome is None else progress.loss(trial)
        if loss is not None and not isinstance(trial.outcome, Failed):
            broken = violation(trial, limits)
            # A mean over fewer folds is no better for being lower.
            num_folds = trial.epochs if trial.resource is Resource.FOLDS else 0
            best = min(best, (math.inf if broken is None else broken, -num_folds, loss))
        values.append(metric.from_loss(best[-1]) if math.isfinite(best[-1]) else math.nan)
    return tuple(values)


def _rungs(history: History) -> tuple[RungCount, ...]:
    trials = [trial for trial in history.values() if trial.bracket >= 0]
    if not any(trial.rung or isinstance(trial.outcome, Paused) for trial in trials):
        return ()
    budgets: dict[tuple[int, int], int] = {}
    for trial in trials:
        # Some trials leave rungs out: the least budget is the rung's.
        place = (trial.bracket, trial.rung)
        budgets[place] = min(trial.budget, budgets.get(place, trial.budget))
    found = []
    for bracket, rung in sorted({(t.bracket, level) for t in trials for level in range(t.rung + 1)}):
        there = [trial for trial in trials if trial.bracket == bracket and trial.rung >= rung]
        found.append(
            RungCount(
                bracket=bracket,
                rung=rung,
                budget=budgets.get((bracket, rung), 0),
                entered=len(there),
                running=sum(trial.rung == rung and trial.outcome is None for trial in there),
                promoted=sum(trial.rung > rung for trial in there),
            )
        )
    return tuple(found)


@final
class OverviewBoard:
    """Writes the numbers of a search to TensorBoard, a step for each trial that has ended.

    Args:
        directory: Where the event file goes; it is made with the first number.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: TrialEventWriter | None = None
        self._next_importance = 0

    def trial_ended(self, progress: Progress) -> None:
        """Writes the numbers after a trial; importance less and less often, as it changes less and costs a fit."""
        num_ended = len(progress.history) - len(progress.history.running)
        due = num_ended >= self._next_importance
        if due:
            self._next_importance = math.ceil(1.3 * num_ended) + 1
        self._write(progress, step=num_ended, with_importance=due)

    def close(self, progress: Progress) -> None:
        """Writes the last numbers, importance included, and closes the file."""
        num_ended = len(progress.history) - len(progress.history.running)
        if progress.search is not None and num_ended:
            self._write(progress, step=num_ended + 1, with_importance=True)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, progress: Progress, *, step: int, with_importance: bool) -> None:
        if self._writer is None:
            self._writer = TrialEventWriter(self._directory)
        scalars = scalars_of(overview_of(progress, with_importance=with_importance))
        self._writer.scalars(step, scalars)
