"""What the trials of a history say to a model: their losses, made comparable across budgets and outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from app.search.parameters import Array
from app.search.trial import Completed, Failed, Paused, Pruned, Trial


@dataclass(frozen=True, slots=True)
class Observations:
    """Ended trials and one loss of each.

    Attributes:
        trials: in the order of their numbers.
        losses: (n,); NaN for a trial that failed. One stopped before it had a loss says nothing and is left out.
        budgets: (n,) epochs after which the loss was taken.
    """

    trials: tuple[Trial, ...]
    losses: Array
    budgets: Array

    @property
    def num_known(self) -> int:
        """Number of trials with a loss."""
        return int(np.isfinite(self.losses).sum())

    @property
    def known(self) -> Observations:
        """Those with a loss only."""
        known = np.isfinite(self.losses)
        trials = tuple(trial for trial, fits in zip(self.trials, known, strict=True) if fits)
        return Observations(trials=trials, losses=self.losses[known], budgets=self.budgets[known])

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Those that failed."""
        return tuple(trial for trial, loss in zip(self.trials, self.losses, strict=True) if not math.isfinite(loss))


def observe(trials: Iterable[Trial]) -> Observations:
    """Every ended trial with the loss it ended with."""
    ended = tuple(
        trial
        for trial in trials
        if isinstance(trial.outcome, Failed) or (trial.outcome is not None and trial.loss is not None)
    )
    return Observations(
        trials=ended,
        losses=np.array([_last_loss(trial) for trial in ended], dtype=np.float64),
        budgets=np.array([_epochs_spent(trial) for trial in ended], dtype=np.float64),
    )


def observe_rungs(trials: Iterable[Trial]) -> Observations:
    """The losses of every ended trial at each budget it reached where some trial ended.

    With their last losses only, a small budget would know none of the trials that went on from it, which are its best.
    """
    ended = observe(trials)
    levels = np.unique(ended.budgets[np.isfinite(ended.losses)])
    found: list[tuple[Trial, float, float]] = []
    for trial, loss, budget in zip(ended.trials, ended.losses, ended.budgets, strict=True):
        # A trial without its first epochs has lost early losses to a restart.
        whole = math.isfinite(loss) and trial.curve and trial.curve[0][0] == 1
        for level in levels[levels < min(budget, trial.epochs)] if whole else ():
            earlier = trial.loss_until(int(level))
            if earlier is not None:
                found.append((trial, earlier, float(level)))
        found.append((trial, float(loss), float(budget)))
    return Observations(
        trials=tuple(trial for trial, _, _ in found),
        losses=np.array([loss for _, loss, _ in found], dtype=np.float64),
        budgets=np.array([budget for _, _, budget in found], dtype=np.float64),
    )


def observe_rung(trials: Iterable[Trial], *, least: int) -> Observations:
    """The losses at the largest budget that at least `least` trials reached; failed trials are part of every budget.

    Falkner, Klein, Hutter: "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018, section 3.2:
    losses after different numbers of epochs cannot be ranked together. Too few everywhere: the smallest budget.
    """
    everything = observe(trials)
    known = np.isfinite(everything.losses)
    levels = np.unique(everything.budgets[known])[::-1]
    if len(levels) < 2:
        return everything
    enough = [level for level in levels if (everything.budgets[known] >= level).sum() >= least]
    level = enough[0] if enough else levels[-1]
    chosen = ~known | (everything.budgets >= level)
    reached = tuple(trial for trial, fits in zip(everything.trials, chosen, strict=True) if fits)
    losses = [_loss_at(trial, int(level)) for trial in reached]
    return Observations(trials=reached, losses=np.array(losses), budgets=np.full(len(reached), level))


def _last_loss(trial: Trial) -> float:
    if isinstance(trial.outcome, Failed) or trial.loss is None:
        return math.nan
    return trial.loss


def _loss_at(trial: Trial, epoch: int) -> float:
    if isinstance(trial.outcome, Failed):
        return math.nan
    # A trial that stopped by itself has its final loss at every later budget.
    loss = trial.loss if isinstance(trial.outcome, Completed) and trial.epochs <= epoch else trial.loss_until(epoch)
    return math.nan if loss is None else loss


def _epochs_spent(trial: Trial) -> int:
    # A completed trial is done for its whole budget, even when it stopped early.
    return trial.outcome.step if isinstance(trial.outcome, Paused | Pruned) else trial.budget
