"""Runs trials in an open experiment, one by one, fold by fold or in packs (TensorFlow)."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import final

import keras

from app.errors import StateStoreError
from app.evaluation.metrics import METRICS
from app.execution.conversation import Conversation
from app.execution.machine import resident_memory
from app.execution.messages import OpenRun, PackFailed, RunPack, RunTrial, TrialEnded, one_line
from app.run_directory import RunDirectory
from app.search.limits import PARAMETERS
from app.search.space import Space
from app.search.trial import Completed, Failed, Outcome, Paused, Pruned
from app.state_store import state_store
from app.training.checkpoint import CheckpointError, DiskFullError
from app.training.epochs import EpochResult, NonFiniteError
from app.training.fold_data import load_folds
from app.training.fold_packs import FoldPackTrainer
from app.training.fold_trainer import FoldTrainer
from app.training.measuring import ModelMeasurer, metric_measures
from app.training.network import TrainingPart
from app.training.packing.live import PackMember
from app.training.packing.pack import MemberEnded, PackTrainer
from app.training.seeding import derive_seed
from app.training.strategy import Placement
from app.training.trainer import End, Trainer, TrainingResult
from app.training.trial_data import TrialData
from pipelines.balance import Balance
from search_spaces.catalogue import SpaceError
from search_spaces.pack_shapes import why_alone


@final
class TrialRunner:
    """Trains what a search suggests.

    Args:
        request: How the experiment was opened.
        directory: The experiment.
        data: Its encoded rows.
        placement: The devices of this worker.
        conversation: Hears of every epoch, and is asked whether a trial goes on.

    Attributes:
        trainer: Trains one network on the training rows.
        states: Where the states of trials are kept.
        measurer: Measures networks that are not trained yet.
        alone: Why every trial trains alone; empty when packs can be trained.
    """

    def __init__(
        self,
        request: OpenRun,
        directory: RunDirectory,
        data: TrialData,
        *,
        placement: Placement,
        conversation: Conversation,
    ) -> None:
        config = directory.read_config()
        self._request, self._conversation, self.states = request, conversation, state_store(directory)
        trainer_on = partial(
            Trainer,
            space_name=config.search.space,
            objective=METRICS[request.objective],
            placement=placement,
            max_epochs=request.max_epochs,
            patience=config.training.patience,
            also=[METRICS[name] for name in _measures_of(request) if name in METRICS],
        )
        self.trainer = trainer_on(data)
        self.measurer = ModelMeasurer(self.trainer, directory, measures=_measures_of(request))
        on_disk = "" if self.trainer.part.shards is None else "the rows stay on disk"
        self.alone = on_disk or _why_alone(request, config.search.space, placement, balance=data.balance.kind)
        parts = load_folds(directory, data) if request.folds > 1 else ()
        self._folds = FoldTrainer(self.trainer, parts) if parts else None
        self._packs: PackTrainer | None = None
        self._fold_packs: FoldPackTrainer | None = None
        if not self.alone and parts:
            self._fold_packs = FoldPackTrainer([trainer_on(part) for part in parts], seed=request.seed)
        elif not self.alone:
            self._packs = PackTrainer(self.trainer, seed=request.seed)

    @property
    def parts(self) -> tuple[TrainingPart, ...]:
        """What the networks of a trial are trained on: the training rows, or those of each fold."""
        return (self.trainer.part,) if self._folds is None else self._folds.parts

    def default_weights(self, space: Space) -> int:
        """Returns the weights of the default network; 0 when it cannot be built, of which its trial will tell."""
        try:
            return self.measurer.num_parameters(space.default())
        except Exception:
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            return 0

    def run_trial(self, request: RunTrial) -> TrialEnded:
        """Trains one trial, whatever it raises.

        Raises:
            EOFError: The coordinator is gone; a ConnectionError too.
        """
        start = time.perf_counter()
        epochs: list[EpochResult] = []
        measures: dict[str, float] = {}
        outcome: Outcome
        try:
            with self.states.held(request.number) as state:
                measures = self.measurer.measure(request.hyperparameters, state=state)
                if self._is_beyond_limits(measures) and not request.past_limits:
                    return TrialEnded(
                        trial=request.number,
                        outcome=Pruned(0),
                        num_parameters=int(measures.get(PARAMETERS, 0)),
                        seconds=time.perf_counter() - start,
                        measures=measures,
                    )
                result = self._train(request, state=state, epochs=epochs)
                self.states.keep(request.number, ended=True)
        except (EOFError, ConnectionError):
            raise
        except (DiskFullError, StateStoreError) as error:
            return TrialEnded(trial=request.number, outcome=Failed(str(error)), disk_full=True)
        except (NonFiniteError, SpaceError, CheckpointError) as error:
            outcome = Failed(one_line(str(error)))
        except Exception as error:  # whatever a trial raises is a failed trial, and the search goes on
            outcome = Failed(_told_failure(error))
        else:
            return TrialEnded(
                trial=request.number,
                outcome=self._outcome(result.end, result.epoch, epochs),
                num_parameters=result.num_parameters,
                seconds=result.seconds,
                new_parameters=result.new_parameters,
                memory=resident_memory(),
                measures=measures | self._metrics_at_best(epochs),
            )
        seconds = time.perf_counter() - start
        return TrialEnded(
            trial=request.number, outcome=outcome, seconds=seconds, memory=resident_memory(), measures=measures
        )

    def _train(self, request: RunTrial, *, state: Path, epochs: list[EpochResult]) -> TrainingResult:
        train = self.trainer.train_trial
        if self._folds is not None:
            train = partial(self._folds.train_trial, leave_above=request.leave_above)
        return train(
            request.hyperparameters,
            known=request.space,
            budget=request.budget,
            seed=derive_seed(self._request.seed, "trial", request.number),
            state=state,
            report=self._reporter(request.number, epochs),
            ask=self._conversation.asker(request.number, request.deadline, has_to_answer=request.has_to_answer),
        )

    def _is_beyond_limits(self, measures: Mapping[str, float]) -> bool:
        return any(not limit.holds(measures.get(limit.measure, limit.bound)) for limit in self._request.limits)

    def run_pack(self, request: RunPack) -> TrialEnded:
        """Trains a pack, and what cannot train in one trial by trial; returns how the last member ended."""
        waiting = {trial.number: trial for trial in request.trials}
        ended: list[TrialEnded] = []

        def tell(member: TrialEnded) -> None:
            del waiting[member.trial]
            ended.append(member)
            if waiting:
                self._conversation.say(member)

        train = None if self._packs is None else self._packs.train
        if self._fold_packs is not None:
            train = partial(
                self._fold_packs.train, limits={trial.number: trial.leave_above for trial in request.trials}
            )
        if train is not None:
            try:
                self._train_pack(train, request, tell)
            except (EOFError, ConnectionError):
                raise
            except (DiskFullError, StateStoreError) as error:
                for number in list(waiting):
                    tell(TrialEnded(trial=number, outcome=Failed(str(error)), disk_full=True))
            except Exception as error:  # whatever stops a pack as a whole need not stop its members
                reason = _told_failure(error)
                failed = PackFailed(trials=tuple(waiting), size=len(request.trials), reason=reason)
                self._conversation.say(failed)
        for trial in list(waiting.values()):
            tell(self.run_trial(trial))
        return ended[-1]

    def _train_pack(
        self, train: Callable[..., None], request: RunPack, tell: Callable[[TrialEnded], None]
    ) -> None:
        epochs: dict[int, list[EpochResult]] = {trial.number: [] for trial in request.trials}
        deadline = min(trial.deadline for trial in request.trials)

        def report(number: int, result: EpochResult) -> None:
            self._reporter(number, epochs[number])(result)

        def left(member: MemberEnded) -> None:
            outcome: Outcome
            if member.end is None:
                outcome = Failed(one_line(str(member.error)))
            else:
                self.states.keep(member.number, ended=True)
                outcome = self._outcome(member.end, member.epoch, epochs[member.number])
            tell(
                TrialEnded(
                    trial=member.number,
                    outcome=outcome,
                    num_parameters=member.num_parameters,
                    seconds=member.seconds,
                    new_parameters=member.new_parameters,
                    memory=resident_memory(),
                    alone_seconds=member.alone_seconds,
                )
            )

        def ask() -> set[int] | None:
            stopped = self._conversation.stopped_trials()
            if None in stopped or time.time() >= deadline:
                return None
            return {number for number in stopped if number is not None}

        with contextlib.ExitStack() as stack:
            members = [
                PackMember(
                    number=trial.number,
                    values=trial.hyperparameters,
                    known=trial.space,
                    budget=trial.budget,
                    seed=derive_seed(self._request.seed, "trial", trial.number),
                    state=stack.enter_context(self.states.held(trial.number)),
                )
                for trial in request.trials
            ]
            train(members, report=report, ended=left, ask=ask)

    def _metrics_at_best(self, epochs: list[EpochResult]) -> dict[str, float]:
        """The further metrics of a trained trial, at its best epoch or after its last fold."""
        if not epochs:
            return {}
        best = self.trainer.best_of(epochs) if self._folds is None else epochs[-1]
        return metric_measures(_measures_of(self._request), best)

    def _reporter(self, trial: int, epochs: list[EpochResult]) -> Callable[[EpochResult], None]:
        """Returns what tells of every epoch of a trial; `epochs` grows by those of the whole trial."""

        def report(result: EpochResult) -> None:
            self.states.keep(trial)
            if not result.fold:
                epochs.append(result)
            self._conversation.tell_epoch(trial, result, loss=self._loss(result))

        return report

    def _loss(self, result: EpochResult) -> float:
        return self.trainer.objective.to_loss(result.objective)

    def _outcome(self, end: End, epoch: int, epochs: list[EpochResult]) -> Outcome:
        """Returns how a trial that raised nothing has ended (R7)."""
        losses = [self._loss(result) for result in epochs]
        if self._folds is not None:
            return _outcome_of_folds(end, epoch, self._folds.num_folds, losses)
        return _outcome(end, epoch, self.trainer.max_epochs, losses)


def _told_failure(error: Exception) -> str:
    """Returns in a line what was raised; the worker's log gets the traceback."""
    if isinstance(error, MemoryError):
        return "out of memory"
    print(traceback.format_exc(), file=sys.stderr, flush=True)
    kind = "out of memory" if type(error).__name__ == "ResourceExhaustedError" else type(error).__name__
    return one_line(f"{kind}: {error}")


def _measures_of(request: OpenRun) -> tuple[str, ...]:
    """Everything that has to be measured beside the objective."""
    return tuple(dict.fromkeys([*request.measure, *(limit.measure for limit in request.limits)]))


def _why_alone(request: OpenRun, space_name: str, placement: Placement, *, balance: Balance) -> str:
    """Returns why every trial trains alone, or nothing."""
    if balance is Balance.SEARCH:
        return "how classes are balanced is searched, and a pack draws the same rows for all"
    if request.measure or request.limits:
        return "every network is measured by itself"
    mixed = keras.config.dtype_policy().name != "float32"
    return why_alone(space_name, num_replicas=placement.num_replicas, mixed_precision=mixed)


def _outcome(end: End, epoch: int, max_epochs: int, losses: list[float]) -> Outcome:
    finite = [loss for loss in losses if math.isfinite(loss)]
    if end is End.STOPPED:
        return Pruned(epoch)
    if not finite:
        return Failed("the objective is not defined on the validation rows")
    if end is End.BUDGET and epoch < max_epochs:
        return Paused(epoch)
    return Completed(min(finite))


def _outcome_of_folds(end: End, folds: int, num_folds: int, means: list[float]) -> Outcome:
    """Returns how a trial of a cross-validation has ended: its value is the mean of all folds."""
    if end is not End.BUDGET:
        return Pruned(folds)
    return Paused(folds) if folds < num_folds else Completed(means[-1])
