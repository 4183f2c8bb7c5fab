"""One trial by cross-validation: the same network trained on every fold in turn, each judged on the rows it held out.

The folds share what is dear on small data: a trial builds its network and traces its graphs once, and every fold starts
from the same first weights. Each fold has its own schedule, data order, early stopping and saved state, so a trial that
was killed goes on inside the fold it was in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from app.search.space import Parameter, Space
from app.search.space import Value as ParameterValue
from app.training.declaration import revealed
from app.training.epochs import Ask, EpochResult, Report
from app.training.fold_tally import FoldTally, finish_fold, finished_fold, fold_folder
from app.training.network import Network, TrainingPart, forget_graphs
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
    def parts(self) -> tuple[TrainingPart, ...]:
        """What each fold trains on."""
        return tuple(fold.part for fold in self._folds)

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
        tally = FoldTally(self._trainer, budget=budget, limits=limits)
        for fold in self._folds[:budget]:
            end, curve = self._train_fold(session, fold, folder=fold_folder(state, fold.number), report=report, ask=ask)
            so_far = tally.add(end, curve)
            if so_far is not None:
                report(so_far)
            if tally.end is not None:
                return tally.end, tally.num_folds
        return End.BUDGET, tally.num_folds

    def _train_fold(
        self, session: _Session, fold: Fold, *, folder: Path, report: Report, ask: Ask
    ) -> tuple[End, list[EpochResult]]:
        """Trains one fold, or tells again what is known of it; returns why it ended and all its epochs."""
        known = finished_fold(folder)
        if known is not None:
            curve, session.num_parameters = known
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
        )
        if end is not End.STOPPED:
            finish_fold(folder, curve, num_parameters=session.num_parameters)
        return end, curve


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
