"""Trains a pack: epochs of all members in one call, the Trainer's own rules for each of them (TensorFlow)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf

from app.epoch_choice import objective_error
from app.evaluation.predictions import Predictions
from app.search.space import Parameter
from app.training.checkpoint import CheckpointError, load_state, save_state
from app.training.declaration import hyperparameters, revealed
from app.training.epochs import EpochResult, NonFiniteError
from app.training.kept_predictions import keep_predictions
from app.training.packing.graph import PackGraph, TableTensors
from app.training.packing.live import LivePack, Member, PackMember
from app.training.packing.plan import (
    MemberPlan,
    initial_weights,
    num_parameters,
    optimizer_arrays,
    optimizer_slots,
    variables_of,
)
from app.training.seeding import derive_seed
from app.training.trainer import End, Trainer
from app.training.trial_data import tensors
from pipelines.balance import balanced_rows
from search_spaces.context import TableContext

SAVE_SECONDS = 0.5
"""Epochs shorter than this are saved, and told, several at a time: a file for every member and epoch would cost more
than the training. What was told is on disk all the same."""

SECONDS_PER_CALL = 0.5
"""Training time between two looks at the clock and at the coordinator's messages."""

ORDER_SEED, NOISE_SEED = "pack order", "pack noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEnded:
    """How a member has left its pack.

    Attributes:
        number: The trial.
        end: Why it ended; None if it failed.
        error: What was raised if it failed.
        epoch: Epochs trained.
        num_parameters: Weights of its network, trainable or not.
        seconds: Its share of the wall time of the pack.
        alone_seconds: Wall time that the same training would take alone, at a guess, tracing included.
        new_parameters: Parameters that the space revealed only now.
    """

    number: int
    end: End | None
    error: Exception | None
    epoch: int
    num_parameters: int
    seconds: float
    alone_seconds: float
    new_parameters: tuple[Parameter, ...] = ()


Report = Callable[[int, EpochResult], None]
Ended = Callable[[MemberEnded], None]
Ask = Callable[[], Collection[int] | None]
"""Returns the trials that are to stop now; None for all of them."""


@final
class PackTrainer:
    """Trains packs of one experiment, one after the other; the graph is traced once for all of them.

    Args:
        trainer: Has the rows and the rules; its space is one that `search_spaces.pack_shapes` packs.
        seed: The experiment's seed. The order of the rows and the noise of dropout are drawn from it and the epoch,
            and are the same for every pack: members see different data order only by accident anyway, what is shared
            is gathered once, and a pack that is interrupted and formed anew goes on with the same batches.
    """

    def __init__(self, trainer: Trainer, *, seed: int) -> None:
        data = trainer.data
        self._trainer, self._seed = trainer, seed
        context = trainer.context(rows=data.balance.epoch_rows(data.training.num_rows, data.balance.kind))
        if not isinstance(context, TableContext):
            raise TypeError("expected a table: networks for images do not train in packs")
        self.context = context
        self._space = trainer.space()
        hp = hyperparameters({})
        self._space.declare_hyperparameters(hp)
        depth = next(parameter for parameter in hp.space if parameter.name == "depth")
        self._answers = data.answer_form(logits=True)
        self._labels = data.balance.labels(data.training, data.balance.kind)
        weights = data.row_weights(data.training)
        training = TableTensors(
            features=tensors(data.training.features),
            target=tf.constant(data.training_target(data.training)),
            weights=None if weights is None else tf.constant(weights),
        )
        self.graph = PackGraph(
            self.context, answers=self._answers, max_depth=int(depth.max_value), training=training
        )
        given = data.given_weights(data.validation)
        self._validation = TableTensors(
            features=tensors(data.validation.features),
            target=tf.constant(data.training_target(data.validation)),
            weights=None if given is None else tf.constant(given),
        )
        self._trace_seconds = math.nan

    def train(self, trials: Sequence[PackMember], *, report: Report, ended: Ended, ask: Ask) -> None:
        """Trains every member up to its budget, from its saved state if it has one.

        Args:
            trials: The members; they have one `pack_shape`.
            report: Receives every epoch of every member, those of the saved states included; what it is told is on
                disk.
            ended: Receives every member once, when it leaves.
            ask: Asked between calls.

        Raises:
            DiskFullError: A state could not be written.
        """
        start = time.perf_counter()
        if math.isnan(self._trace_seconds):
            self.graph.trace()
            self._trace_seconds = time.perf_counter() - start
        run = _PackRun(report=report, ended=ended, start=start, trace_seconds=self._trace_seconds)
        members = []
        for trial in trials:
            member = self.enter(trial)
            for result in member.curve:
                report(trial.number, result)
            members.append(member)
        members = self._left(members, run, context=self.context)
        while members:
            # Every epoch has an order of the rows of its own, so those that are behind catch up by themselves first.
            epochs = sorted({len(member.curve) for member in members})
            behind = [member for member in members if len(member.curve) == epochs[0]]
            self._train_stack(behind, run, ask, until=epochs[1] if len(epochs) > 1 else None)
            for member in members:
                if not member.is_done and run.is_stopped(member.trial.number):
                    member.end = End.STOPPED
            members = self._left(members, run, context=self.context)

    def enter(self, trial: PackMember) -> Member:
        """Returns a member with its first weights, or those of its saved state."""
        hp = hyperparameters(trial.values)
        self._space.declare_hyperparameters(hp)
        plan = MemberPlan.of(hp, self.context)
        weights = initial_weights(plan, self.context, seed=trial.seed)
        trainable = [variable for variable in variables_of(plan, self.context) if variable.trainable]
        zeros = {variable.name: np.zeros(variable.shape, np.float32) for variable in trainable}
        member = Member(trial=trial, plan=plan, hp=hp, weights=weights, slots={"first": zeros, "second": dict(zeros)})
        path = trial.state / "current"
        if path.is_file():
            try:
                self._restore(member, path)
            except CheckpointError as error:
                member.error = error
        self._end_if_done(member)
        return member

    def _restore(self, member: Member, path: Path) -> None:
        groups, header = load_state(path)
        variables = variables_of(member.plan, self.context)
        arrays = groups.get("model", [])
        if [variable.shape for variable in variables] != [array.shape for array in arrays]:
            raise CheckpointError(f"{path} belongs to another network")
        member.weights = {variable.name: array for variable, array in zip(variables, arrays, strict=True)}
        member.steps, member.slots = optimizer_slots(member.plan, self.context, groups["optimizer"])
        member.curve = [EpochResult(epoch=number, **epoch) for number, epoch in enumerate(header["curve"], start=1)]
        member.best = self._trainer.best_of(member.curve)

    def _end_if_done(self, member: Member) -> None:
        """The Trainer's rules: patience first, then the budget."""
        if member.is_done:
            return
        if member.best is not None and len(member.curve) - member.best.epoch >= self._trainer.patience:
            member.end = End.EARLY
        elif len(member.curve) >= member.trial.budget:
            member.end = End.BUDGET

    def _train_stack(self, members: list[Member], run: _PackRun, ask: Ask, *, until: int | None) -> None:
        """Trains members of one epoch until one of them is done, or all have `until` epochs."""
        live = LivePack(self.graph, members, self.context)
        while not any(member.is_done for member in members) and len(members[0].curve) != until:
            losses = self._train_epoch(live, run, ask)
            if losses is None:
                break
            self._judge(live, losses)
            share = run.lap() / len(members)
            for member in members:
                member.seconds += share
                self._end_if_done(member)
            if run.is_due and not any(member.is_done for member in members):
                live.fetch()
                self._tell(members, run)
        live.fetch()

    def _train_epoch(self, live: LivePack, run: _PackRun, ask: Ask) -> Any:
        """Trains an epoch of all members; returns their mean losses, or None if all were told to stop before its end.

        One member that is told to stop leaves at the end of the epoch: the others have to finish it anyway.
        """
        members = live.members
        epoch = len(members[0].curve)
        order = self._order(epoch, members[0].plan.batch_size)
        total, done = 0.0, 0
        while done < len(order):
            run.stop(ask())
            if run.is_over:
                return None
            steps = order[done : done + run.steps_per_call]
            seed = [derive_seed(self._seed, NOISE_SEED, epoch), done]
            start = time.perf_counter()
            total = total + live.train(steps, seed)
            run.adapt(len(steps), time.perf_counter() - start)
            done += len(steps)
        live.commit()
        for member in members:
            if run.is_stopped(member.trial.number):
                member.end = End.STOPPED
        return np.asarray(total) / len(order)

    def _order(self, epoch: int, batch_size: int) -> Any:
        """Returns the rows of every step, (num_steps, batch_size); the last partial batch is dropped."""
        num_rows = self.context.num_training_rows
        rng = np.random.default_rng([derive_seed(self._seed, ORDER_SEED), epoch])
        steps = num_rows // batch_size
        if self._labels is None:
            rows = rng.permutation(num_rows)[: steps * batch_size]
        else:
            rows = balanced_rows(self._labels, num_rows=steps * batch_size, rng=rng)
        return rows.astype(np.int32).reshape(steps, batch_size)

    def _judge(self, live: LivePack, losses: Any) -> None:
        """Notes for every member what the epoch brought, or that it failed."""
        rows, task = self._trainer.data.validation, self._answers.task
        predicted, validation_losses = live.evaluate(self._validation)
        rates = live.learning_rates()
        objective = self._trainer.objective
        for index, member in enumerate(live.members):
            epoch = len(member.curve) + 1
            own = {name: array[index] for name, array in predicted.items()}
            if not math.isfinite(losses[index]):
                member.error = NonFiniteError(f"the training loss became {losses[index]} in epoch {epoch}")
                continue
            if not all(np.isfinite(array).all() for array in own.values()):
                member.error = NonFiniteError(f"a prediction became NaN or infinite in epoch {epoch}")
                continue
            predictions = Predictions(
                task=task,
                y=rows.y,
                probabilities=own.get("probabilities"),
                labels=own.get("label_ids"),
                values=own.get("values"),
                weights=rows.weights,
                quantiles=own.get("quantiles"),
                levels=self._answers.quantiles,
                outputs=self._answers.outputs,
            )
            value = objective.value(predictions)
            scalars = {
                "train/loss": float(losses[index]),
                "val/loss": float(validation_losses[index]),
                f"val/{objective.name}": value,
                **objective_error(objective, predictions),
                "learning_rate": float(rates[index]),
            }
            result = EpochResult(epoch=epoch, objective=value, scalars=scalars)
            member.curve.append(result)
            member.untold.append(result)
            if self._trainer.best_of(member.curve) is result:
                member.best, member.best_weights = result, live.snapshot(index)
                member.best_predictions = predictions

    def _tell(self, members: Sequence[Member], run: _PackRun) -> None:
        """Saves the members that have news, and reports it."""
        for member in members:
            if not member.untold:
                continue
            # The weights that a failed member has are of no use; its state is that of its last sound epoch or none.
            if member.best_weights is not None:
                save_state(
                    member.trial.state / "best",
                    arrays={"model": member.variables(self.context, member.best_weights())},
                    header={"curve": []},
                )
                member.best_weights = None
            if member.best_predictions is not None:
                keep_predictions(
                    member.trial.state, member.best_predictions, class_weights=self._answers.class_weights
                )
                member.best_predictions = None
            if member.error is None:
                slots = optimizer_arrays(member.plan, self.context, steps=member.steps, slots=member.slots)
                curve = [{"objective": r.objective, "scalars": dict(r.scalars)} for r in member.curve]
                groups = {"model": member.variables(self.context), "optimizer": slots}
                save_state(member.trial.state / "current", arrays=groups, header={"curve": curve})
            for result in member.untold:
                run.report(member.trial.number, result)
            member.untold = []
        run.told()

    def _left(self, members: list[Member], run: _PackRun, *, context: Any) -> list[Member]:
        """Says good-bye to the members that are done, and returns the others."""
        self._tell([member for member in members if member.is_done], run)
        for member in members:
            if member.is_done:
                run.ended(
                    MemberEnded(
                        number=member.trial.number,
                        end=member.end if member.error is None else None,
                        error=member.error,
                        epoch=len(member.curve),
                        num_parameters=num_parameters(member.plan, context),
                        seconds=member.seconds,
                        alone_seconds=run.elapsed + run.trace_seconds,
                        new_parameters=revealed(member.hp, member.trial.known),
                    )
                )
        return [member for member in members if not member.is_done]


class _PackRun:
    """The clock of a pack, and whom to tell."""

    def __init__(self, *, report: Report, ended: Ended, start: float, trace_seconds: float) -> None:
        self.report, self.ended = report, ended
        self.trace_seconds = trace_seconds
        self.steps_per_call = 8
        self.is_over = False
        self._stopped: set[int] = set()
        self._start = self._lap = self._last_told = start

    def stop(self, trials: Collection[int] | None) -> None:
        """Notes the trials that are to stop; None is all of them."""
        self.is_over |= trials is None
        self._stopped.update(trials or ())

    def is_stopped(self, trial: int) -> bool:
        """Whether a trial is to stop."""
        return self.is_over or trial in self._stopped

    @property
    def elapsed(self) -> float:
        """Seconds since the pack began."""
        return time.perf_counter() - self._start

    @property
    def is_due(self) -> bool:
        """Whether it is time to save and tell."""
        return time.perf_counter() - self._last_told >= SAVE_SECONDS

    def lap(self) -> float:
        """Returns the seconds since the last call."""
        now = time.perf_counter()
        lap, self._lap = now - self._lap, now
        return lap

    def told(self) -> None:
        """Notes that everything is saved and told."""
        self._last_told = time.perf_counter()

    def adapt(self, steps: int, seconds: float) -> None:
        """Lets a call grow towards `SECONDS_PER_CALL`."""
        if seconds < SECONDS_PER_CALL / 2 and steps >= self.steps_per_call:
            self.steps_per_call *= 4
        elif seconds > 2 * SECONDS_PER_CALL and self.steps_per_call > 8:
            self.steps_per_call //= 2
