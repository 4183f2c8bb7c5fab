"""Packs by cross-validation: all members train together on one fold, the survivors on the next one (TensorFlow).

Every fold has a graph of its own, traced when the first pack comes to it, as its rows are constants of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from app.search.parameters import Parameter
from app.training.checkpoint import CheckpointError
from app.training.epochs import EpochResult, NonFiniteError
from app.training.fold_tally import FoldTally, finish_fold, finished_fold, fold_folder
from app.training.packing.live import PackMember
from app.training.packing.pack import Ask, Ended, MemberEnded, PackTrainer, Report
from app.training.seeding import derive_seed
from app.training.trainer import End, Trainer


@dataclass(slots=True, kw_only=True)
class _Runner:
    """A member, its folds so far, and what they cost."""

    trial: PackMember
    tally: FoldTally
    error: Exception | None = None
    num_parameters: int = 0
    seconds: float = 0.0
    alone_seconds: float = 0.0
    new_parameters: tuple[Parameter, ...] = ()


@final
class FoldPackTrainer:
    """Trains packs fold by fold.

    Args:
        trainers: One for every fold, with its training and held-out rows.
        seed: The experiment's seed.
    """

    def __init__(self, trainers: Sequence[Trainer], *, seed: int) -> None:
        self._trainers, self._seed = trainers, seed
        self._packs: dict[int, PackTrainer] = {}

    def train(
        self,
        trials: Sequence[PackMember],
        *,
        limits: Mapping[int, Sequence[float]],
        report: Report,
        ended: Ended,
        ask: Ask,
    ) -> None:
        """Trains every member on its first `budget` folds, from its saved state if it has one.

        Args:
            trials: The members; their budgets count folds.
            limits: Trial -> mean losses after the first, second ... fold above which it is beaten.
            report: Receives every epoch of every fold of every member, and after each fold the mean so far.
            ended: Receives every member once, when it leaves; `MemberEnded.epoch` counts folds.
            ask: Asked between calls.

        Raises:
            DiskFullError: A state could not be written.
        """
        going = [
            _Runner(
                trial=trial,
                tally=FoldTally(self._trainers[0], budget=trial.budget, limits=limits.get(trial.number, ())),
            )
            for trial in trials
        ]
        for fold in range(1, len(self._trainers) + 1):
            self._train_fold(fold, going, report=report, ask=ask)
            for runner in [runner for runner in going if runner.tally.end is not None or runner.error is not None]:
                going.remove(runner)
                ended(_farewell(runner))
            if not going:
                return

    def _train_fold(self, fold: int, going: Sequence[_Runner], *, report: Report, ask: Ask) -> None:
        """Trains one fold of all members, or tells again what is known of it."""
        by_number = {runner.trial.number: runner for runner in going}
        curves: dict[int, list[EpochResult]] = {number: [] for number in by_number}

        def told(number: int, result: EpochResult) -> None:
            curves[number].append(result)
            report(number, replace(result, fold=fold))

        def add(runner: _Runner, end: End) -> None:
            try:
                so_far = runner.tally.add(end, curves[runner.trial.number])
            except NonFiniteError as error:
                runner.error = error
                return
            if so_far is not None:
                report(runner.trial.number, so_far)

        def left(member: MemberEnded) -> None:
            runner = by_number[member.number]
            runner.seconds += member.seconds
            runner.alone_seconds += member.alone_seconds
            runner.num_parameters, runner.new_parameters = member.num_parameters, member.new_parameters
            if member.end is None:
                runner.error = member.error
                return
            if member.end is not End.STOPPED:
                folder = fold_folder(runner.trial.state, fold)
                finish_fold(folder, curves[member.number], num_parameters=member.num_parameters)
            add(runner, member.end)

        members = []
        for runner in going:
            folder = fold_folder(runner.trial.state, fold)
            try:
                known = finished_fold(folder)
            except CheckpointError as error:
                runner.error = error
                continue
            if known is None:
                members.append(replace(runner.trial, budget=self._trainers[fold - 1].max_epochs, state=folder))
                continue
            curve, runner.num_parameters = known
            for result in curve:
                told(runner.trial.number, result)
            add(runner, End.BUDGET)
        if members:
            self._pack(fold).train(members, report=told, ended=left, ask=ask)

    def _pack(self, fold: int) -> PackTrainer:
        if fold not in self._packs:
            seed = derive_seed(self._seed, "fold", fold)
            self._packs[fold] = PackTrainer(self._trainers[fold - 1], seed=seed)
        return self._packs[fold]


def _farewell(runner: _Runner) -> MemberEnded:
    return MemberEnded(
        number=runner.trial.number,
        end=None if runner.error is not None else runner.tally.end,
        error=runner.error,
        epoch=runner.tally.num_folds,
        num_parameters=runner.num_parameters,
        seconds=runner.seconds,
        alone_seconds=runner.alone_seconds,
        new_parameters=runner.new_parameters,
    )
