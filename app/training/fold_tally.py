"""What the folds of one trial have come to so far, and what of them is kept on disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import final

from app.fold_choice import FOLD_BEST_EPOCH, FOLD_EPOCHS, FOLD_VALUE
from app.training.checkpoint import load_state, save_state
from app.training.epochs import EpochResult, NonFiniteError
from app.training.trainer import End, Trainer


@final
class FoldTally:
    """Adds up the folds of a trial and says when it is over.

    Args:
        trainer: Knows the objective.
        budget: Folds to reach.
        limits: Mean losses after the first, second ... fold above which the trial is beaten.
    """

    def __init__(self, trainer: Trainer, *, budget: int, limits: Sequence[float] = ()) -> None:
        self._trainer, self._budget, self._limits = trainer, budget, limits
        self._best: list[EpochResult] = []
        self._epochs = 0
        self.end: End | None = None

    @property
    def num_folds(self) -> int:
        """Folds that count."""
        return len(self._best)

    def add(self, end: End, curve: Sequence[EpochResult]) -> EpochResult | None:
        """Takes up the next fold; sets `end` when the trial is over.

        Args:
            end: Why the fold ended.
            curve: Its epochs.

        Returns:
            The report of the folds so far, the last one's own numbers beside the means; None if the fold was stopped
            and does not count. In its first fold a trial has that much to show, lest a short search end with nothing.

        Raises:
            NonFiniteError: The objective is not defined on the rows that the fold held out.
        """
        if end is End.STOPPED:
            self.end = End.STOPPED
            if self._best or not curve:
                return None
        best = self._trainer.best_of(list(curve))
        if best is None or not math.isfinite(best.objective):
            raise NonFiniteError(f"the objective is not defined on the held-out rows of fold {self.num_folds + 1}")
        self._best.append(best)
        self._epochs = len(curve)
        so_far = self._report()
        limit = self._limits[self.num_folds - 1] if self.num_folds <= len(self._limits) else math.inf
        if self.end is None and self.num_folds == self._budget:
            self.end = End.BUDGET
        elif self.end is None and self._trainer.objective.to_loss(so_far.objective) > limit:
            self.end = End.BEATEN
        return so_far

    def _report(self) -> EpochResult:
        mean, last = statistics.fmean(best.objective for best in self._best), self._best[-1]
        tags = ["val/loss", *(f"val/{metric.name}" for metric in self._trainer.also)]
        scalars = {
            **{tag: statistics.fmean(best.scalars[tag] for best in self._best) for tag in tags},
            f"val/{self._trainer.objective.name}": mean,
            FOLD_VALUE: last.objective,
            FOLD_BEST_EPOCH: float(last.epoch),
            FOLD_EPOCHS: float(self._epochs),
        }
        return EpochResult(epoch=self.num_folds, objective=mean, scalars=scalars)


def fold_folder(state: Path, fold: int) -> Path:
    """Returns the folder of a fold's own state inside that of its trial."""
    return state / f"fold-{fold}"


def finished_fold(folder: Path) -> tuple[list[EpochResult], int] | None:
    """Returns the epochs of a finished fold and the weights of its network; None while it is not finished.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder / "finished"
    if not path.is_file():
        return None
    _, header = load_state(path)
    curve = [EpochResult(epoch=epoch, **told) for epoch, told in enumerate(header["curve"], start=1)]
    return curve, int(header["parameters"])


def finish_fold(folder: Path, curve: Sequence[EpochResult], *, num_parameters: int) -> None:
    """Keeps what a fold came to; of its network the best epoch's weights, since an ensemble averages its folds.

    Raises:
        DiskFullError: It could not be written.
    """
    told = [{"objective": result.objective, "scalars": dict(result.scalars)} for result in curve]
    save_state(folder / "finished", arrays={}, header={"curve": told, "parameters": num_parameters})
    (folder / "current").unlink(missing_ok=True)
