"""Stopping a trial whose learning curve leaves no hope, while it trains.

A rank rule in the manner of the median stopping rule (Golovin et al., "Google Vizier", KDD 2017, section 3.2.2), which
alone would stop late bloomers, and two extrapolations that each must agree: a power law through the trial's own curve
(Domhan, Springenberg, Hutter, "Speeding up Automatic Hyperparameter Optimization of Deep Neural Networks by
Extrapolation of Learning Curves", IJCAI 2015, its most useful family), and what finished trials have made up from the
same epoch on. The last one knows of learning-rate schedules: under a cosine much of the gain comes at the end, no curve
foretells it, but earlier trials have shown it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray

from app.search.trial import Completed, History, Resource, Trial

MIN_FINISHED = 10
"""Trials trained to the end before one may be stopped."""

MIN_SHARE = 0.3
"""Share of the epochs that every trial gets."""

MIN_EPOCHS = 4
"""Epochs that every trial gets: the power law has three numbers."""

MIN_ALIKE = 3
"""A trial is held against the finished ones that were no better at the same epoch, or against so many of the worst."""

GOOD_SHARE = 1 / 3
"""A trial goes on as long as one that was no better at the same epoch ended in this best share."""

_EXPONENTS = np.geomspace(0.05, 2.0, 12)

Array = NDArray[np.float64]


@final
class CurveStopping:
    """Judges running trials that train to the full budget by their curves; those of a lower rung are left alone.

    Args:
        max_epochs: epochs of a full training; >= 1.
    """

    def __init__(self, *, max_epochs: int) -> None:
        self.max_epochs = max_epochs
        # A finished trial is the same object in all later histories.
        self._known: dict[int, tuple[Trial, Array]] = {}

    def reason(self, history: History, number: int, *, is_rival: Callable[[Trial], bool] | None = None) -> str:
        """Why trial `number` should be stopped now; "" when it should not. Pure.

        Args:
            history: all trials.
            number: the trial.
            is_rival: which finished trials show how this one may go on; None for all.
        """
        trial = history[number]
        epoch = trial.epochs
        if (
            trial.outcome is not None
            or trial.resource is not Resource.EPOCHS
            or not max(MIN_EPOCHS, MIN_SHARE * self.max_epochs) <= epoch < self.max_epochs
            or trial.budget < self.max_epochs
            or len(trial.curve) < MIN_EPOCHS
        ):
            return ""
        finished = self._finished(history, is_rival)
        if len(finished) < MIN_FINISHED:
            return ""
        loss = min(loss for _, loss in trial.curve)
        then, last = finished[:, epoch - 1], finished[:, -1]
        if loss <= np.median(then):
            return ""
        num_better = int(np.sum(then < loss))
        alike = np.argsort(then, kind="stable")[min(num_better, len(then) - MIN_ALIKE) :]
        best = float(last.min())
        good = float(np.sort(last)[math.ceil(GOOD_SHARE * len(last)) - 1])
        caught_up = float(last[alike].min())
        made_up = float((then - last).max())
        if caught_up <= good or loss - made_up <= best or _extrapolated(trial, self.max_epochs) <= best:
            return ""
        return (
            f"epoch {epoch}: {num_better} of {len(then)} finished trials were better by then; those like it ended at "
            f"{caught_up:.4g} at best, and {best:.4g} is to be beaten"
        )

    def _finished(self, history: History, is_rival: Callable[[Trial], bool] | None) -> Array:
        """Best losses so far (n, max_epochs) of the rivals that ended by themselves; flat after an early stop."""
        rows = []
        for trial in history.completed if is_rival is None else filter(is_rival, history.completed):
            known = self._known.get(trial.number)
            if known is None or known[0] is not trial:
                known = (trial, _best_so_far(trial, self.max_epochs))
                self._known[trial.number] = known
            if len(known[1]):
                rows.append(known[1])
        return np.array(rows).reshape(len(rows), self.max_epochs)


def _best_so_far(trial: Trial, num_epochs: int) -> Array:
    """The lowest loss until every epoch (num_epochs,); empty without a curve from the first epoch on."""
    if [epoch for epoch, _ in trial.curve] != list(range(1, trial.epochs + 1)) or not trial.curve:
        return np.empty(0)
    losses = np.minimum.accumulate([loss for _, loss in trial.curve])[:num_epochs]
    if isinstance(trial.outcome, Completed):
        # Its value may be known better than its curve.
        losses[-1] = min(losses[-1], trial.outcome.value)
    return np.append(losses, np.full(num_epochs - len(losses), losses[-1]))


def _extrapolated(trial: Trial, num_epochs: int) -> float:
    """The loss after `num_epochs` by a power law a + b epoch^-c, b >= 0, through the later half of the curve."""
    points = trial.curve[min(len(trial.curve) // 2, len(trial.curve) - MIN_EPOCHS) :]
    epochs = np.array([epoch for epoch, _ in points], np.float64)
    losses = np.minimum.accumulate([loss for _, loss in points])
    terms = epochs[None, :] ** -_EXPONENTS[:, None]
    centred = terms - terms.mean(axis=1, keepdims=True)
    slopes = np.maximum(centred @ (losses - losses.mean()) / np.sum(centred**2, axis=1), 0.0)
    levels = losses.mean() - slopes * terms.mean(axis=1)
    errors = np.sum((levels[:, None] + slopes[:, None] * terms - losses) ** 2, axis=1)
    chosen = int(np.argmin(errors))
    return float(levels[chosen] + slopes[chosen] * num_epochs ** -_EXPONENTS[chosen])
