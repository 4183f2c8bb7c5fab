"""One trial by cross-validation: the same network trained on every fold in turn, each judged on the rows it held out.

The folds share what is dear on small data: a trial builds its network and traces its graphs once, and every fold starts
from the same first weights. Each fold has its own schedule, data order, early stopping and saved state, so a trial that
was killed goes on inside the fold it was in.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from app.fold_choice import FOLD_BEST_EPOCH, FOLD_EPOCHS, FOLD_VALUE
from app.search.space import Parameter, Space
from app.search.space import Value as ParameterValue
from app.training.checkpoint import load_state, save_state
from app.training.declaration import revealed
from app.training.network import Ask, EpochResult, Network, NonFiniteError, Report, TrainingPart, forget_graphs
from app.training.seeding import derive_seed
from app.training.trainer import End, HeldOut, Trainer, TrainingResult
from app.training.trial_data import TrialData, tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One fold.

    Attributes:
        number: Which one, from 1.
        part: What it trains on.
        held_out: What it is judged on.
        epoch_rows: Rows that one epoch sees: folds of one number share a graph.
    """

    number: int
    part: TrainingPart
    held_out: HeldOut
    epoch_rows: int


@final
class FoldTrainer:
    """Trains trials fold by fold.

    Args:
        trainer: Trains one fold.
        parts: Training and held-out rows of every fold.
    """

    def __init__(self, trainer: Trainer, parts: Sequence[TrialData]) -> None:
        self._trainer = trainer
        sizes = [part.training.num_rows for part in parts]
        # Dealt folds differ by a few rows, which an epoch then leaves out; windows of time differ by as many again.
        alike = max(sizes) - min(sizes) <= max(2, min(sizes) // 20)
        self._folds = [
            Fold(
                number=number,
                part=TrainingPart(data=part, rows=part.training, features=tensors(part.training.features)),
                held_out=HeldOut(rows=part.validation, features=tensors(part.validation.features)),
                epoch_rows=min(sizes) if alike else part.training.num_rows,
            )
            for number, part in enumerate(parts, start=1)
        ]

    @property
    def num_folds(self) -> int:
        """Folds of a whole trial."""
        return len(self._folds)

    def train_trial(
        self,
        values: Mapping[str, ParameterValue],
        *,
        known: Space,
        budget: int,
        seed: int,
        state: Path,
        report: Report,
        ask: Ask,
        leave_above: Sequence[float] = (),
    ) -> TrainingResult:
        """Trains a trial on its first `budget` folds, from its saved state if it has one.

        Args:
            values: The active hyperparameters.
            known: The space as the coordinator knows it.
            budget: Folds to reach.
            seed: Seed of weights, dropout and data order.
            state: Folder of the trial's state; written after every epoch.
            report: Receives every epoch of every fold, and after each fold the mean of the folds so far; those of the
                saved state included.
            ask: Says between calls whether to go on.
            leave_above: Mean losses after the first, second ... fold above which the trial is beaten.

        Raises:
            NonFiniteError: The loss, a prediction or the objective of a fold became NaN or infinite.
            SpaceError: The space built no usable model.
            DiskFullError: The state could not be written.
        """
        start = time.perf_counter()
        session = _Session(self._trainer, values=values, seed=seed)
        try:
            end, done = self._train(session, budget=budget, state=state, report=report, ask=ask, limits=leave_above)
            return TrainingResult(
                end=end,
                epoch=done,
                num_parameters=session.num_parameters,
                seconds=time.perf_counter() - start,
                new_parameters=session.revealed(known),
            )
        finally:
            session.close()

    def _train(
        self, session: _Session, *, budget: int, state: Path, report: Report, ask: Ask, limits: Sequence[float]
    ) -> tuple[End, int]:
        """Trains fold after fold; returns why it ended and how many it has."""
        done: list[_Done] = []
        for fold in self._folds[:budget]:
            end, curve = self._train_fold(session, fold, folder=state / f"fold-{fold.number}", report=report, ask=ask)
            # A trial that is stopped in its first fold has that much to show, lest a short search end with nothing.
            if end is End.STOPPED and (done or not curve):
                return end, len(done)
            best = self._trainer.best_of(curve)
            if best is None or not math.isfinite(best.objective):
                raise NonFiniteError(f"the objective is not defined on the held-out rows of fold {fold.number}")
            done.append(_Done(best=best, epochs=len(curve)))
            so_far = self._mean(done)
            report(so_far)
            if end is End.STOPPED:
                return end, len(done)
            limit = limits[len(done) - 1] if len(done) <= len(limits) else math.inf
            if len(done) < budget and self._trainer.objective.to_loss(so_far.objective) > limit:
                return End.BEATEN, len(done)
        return End.BUDGET, len(done)

    def _train_fold(
        self, session: _Session, fold: Fold, *, folder: Path, report: Report, ask: Ask
    ) -> tuple[End, list[EpochResult]]:
        """Trains one fold, or tells again what is known of it; returns why it ended and all its epochs."""
        finished = folder / "finished"
        if finished.is_file():
            _, header = load_state(finished)
            session.num_parameters = header["parameters"]
            curve = [EpochResult(epoch=epoch, **told) for epoch, told in enumerate(header["curve"], start=1)]
            for result in curve:
                report(replace(result, fold=fold.number))
            return End.BUDGET, curve
        end, curve = self._trainer.train_part(
            session.network_for(fold),
            held_out=fold.held_out,
            budget=self._trainer.max_epochs,
            state=folder,
            report=lambda result: report(replace(result, fold=fold.number)),
            ask=ask,
            # What a fold learned is of no use once its loss is known: the winner is trained on all rows.
            keep_best=False,
        )
        if end is not End.STOPPED:
            told = [{"objective": result.objective, "scalars": dict(result.scalars)} for result in curve]
            save_state(finished, arrays={}, header={"curve": told, "parameters": session.num_parameters})
            (folder / "current").unlink(missing_ok=True)
        return end, curve

    def _mean(self, done: Sequence[_Done]) -> EpochResult:
        """Returns the report of the folds so far, the last one's own numbers beside the means."""
        mean = statistics.fmean(fold.best.objective for fold in done)
        tags = ["val/loss", *(f"val/{metric.name}" for metric in self._trainer.also)]
        scalars = {
            **{tag: statistics.fmean(fold.best.scalars[tag] for fold in done) for tag in tags},
            f"val/{self._trainer.objective.name}": mean,
            FOLD_VALUE: done[-1].best.objective,
            FOLD_BEST_EPOCH: float(done[-1].best.epoch),
            FOLD_EPOCHS: float(done[-1].epochs),
        }
        return EpochResult(epoch=len(done), objective=mean, scalars=scalars)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """A finished fold: its best epoch, and the epochs trained."""

    best: EpochResult
    epochs: int


class _Session:
    """The network of a trial, built when the first fold needs it and started again for each other one."""

    def __init__(self, trainer: Trainer, *, values: Mapping[str, ParameterValue], seed: int) -> None:
        self._trainer, self._values, self._seed = trainer, values, seed
        self._network: Network | None = None
        self._first: Mapping[str, list[NDArray[Any]]] = {}
        self._epoch_rows = 0
        self.num_parameters = 0

    def network_for(self, fold: Fold) -> Network:
        """Returns the network with its first weights, at the beginning of a fold."""
        if self._network is None or self._epoch_rows != fold.epoch_rows:
            self.close()
            self._epoch_rows = fold.epoch_rows
            self._network = self._trainer.network(
                self._values, fold.part, num_rows=fold.epoch_rows, seed=self._seed
            )
            self._first = self._network.state()
            self.num_parameters = self._network.model.count_params()
        self._network.start_again(fold.part, weights=self._first, seed=derive_seed(self._seed, "fold", fold.number))
        return self._network

    def revealed(self, known: Space) -> tuple[Parameter, ...]:
        """Returns the parameters that the build asked for and that `known` does not have."""
        return () if self._network is None else revealed(self._network.hp, known)

    def close(self) -> None:
        """Lets go of the network and its graphs."""
        self._network = None
        forget_graphs()
