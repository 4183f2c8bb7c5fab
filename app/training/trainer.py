"""One trial: a network trained epoch by epoch, judged on the validation rows, stopped early, saved after each epoch.

The objective is computed exactly from the predictions on all validation rows, not averaged over batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import final

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from app.epoch_choice import OBJECTIVE_ERROR, chosen_epoch, objective_error
from app.evaluation.baselines import EncodedRows
from app.evaluation.metrics import Metric, Needs
from app.evaluation.predictions import Predictions
from app.search.space import Parameter, Space
from app.search.space import Value as ParameterValue
from app.training.declaration import hyperparameters, revealed
from app.training.epochs import Ask, EpochResult, NonFiniteError, Report
from app.training.kept_predictions import keep_predictions
from app.training.network import Network, TrainingPart, forget_graphs
from app.training.prediction_batches import as_predictions, batches_of, prediction_batch, prediction_function
from app.training.stored_encoding import EPOCH_ROWS
from app.training.strategy import Placement
from app.training.trial_data import TrialData, tensors
from search_spaces.answers import AnswerForm
from search_spaces.catalogue import SPACES, SpaceError
from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext
from search_spaces.schedules import runs_in_cycles
from search_spaces.user_space import checked_model, load_space


class End(StrEnum):
    """Why a training ended."""

    BUDGET = "budget"
    EARLY = "early"
    BEATEN = "beaten"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        end: Why it ended.
        epoch: Epochs trained.
        num_parameters: Weights of the network, trainable or not.
        seconds: Wall time of this call.
        new_parameters: Parameters that the space revealed only now.
    """

    end: End
    epoch: int
    num_parameters: int
    seconds: float
    new_parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The rows that a network is judged on.

    Attributes:
        rows: The rows.
        features: Their features as tensors.
    """

    rows: EncodedRows
    features: dict[str, tf.Tensor]


@final
class Trainer:
    """Trains the trials of one experiment, one after the other.

    Args:
        data: Encoded rows.
        space_name: The space that networks come from.
        objective: Metric on the validation rows that decides early stopping and the best weights.
        placement: Devices.
        max_epochs: Epochs that learning-rate schedules are laid out for.
        patience: Epochs without a better objective after which a trial ends.
        also: Further metrics to compute after every epoch.

    Raises:
        SpaceError: The space cannot be imported, or builds no model that takes the table and answers the task.
    """

    def __init__(
        self,
        data: TrialData,
        *,
        space_name: str,
        objective: Metric,
        placement: Placement,
        max_epochs: int,
        patience: int,
        also: Sequence[Metric] = (),
    ) -> None:
        self.data = data
        self.objective = objective
        self.placement = placement
        self.max_epochs = max_epochs
        self.patience = patience
        self.also = tuple(also)
        self._space_name = space_name
        self.part = TrainingPart.of(data, data.training)
        self._validation = HeldOut(rows=data.validation, features=tensors(data.validation.features))
        if space_name not in SPACES:
            self._check_space()

    def _check_space(self) -> None:
        """Builds a network of the user's own with default values, so that a mistake is told before any trial."""
        hp = hyperparameters({})
        example = self.data.decoded({name: tensor[:2] for name, tensor in self.part.features.items()})
        try:
            built = self.space().build(hp)
        except Exception as error:  # a user's function may raise anything
            kind = type(error).__name__
            raise SpaceError(f"{self._space_name} could not build a network: {kind}: {error}") from error
        checked_model(built, example=example, context=self.context(rows=self.data.training.num_rows))
        forget_graphs()

    def context(self, *, rows: int) -> TableContext | ImageContext:
        """Returns what a space has to know when `rows` rows are trained on."""
        return self.data.context(
            max_epochs=self.max_epochs,
            num_training_rows=rows if self.part.shards is None else min(rows, EPOCH_ROWS),
            num_replicas=self.placement.num_replicas,
            judged_by_labels=self.objective.needs is Needs.LABELS,
        )

    def space(self, *, rows: int | None = None) -> keras_tuner.HyperModel:
        """Returns the space for the training rows (or for `rows` of them)."""
        return load_space(self._space_name, self.context(rows=rows or self.data.training.num_rows))

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
    ) -> TrainingResult:
        """Trains a trial up to `budget` epochs, from its saved state if it has one.

        Args:
            values: The active hyperparameters.
            known: The space as the coordinator knows it.
            budget: Epochs to reach.
            seed: Seed of weights, dropout and data order.
            state: Folder of the trial's state; written after every epoch.
            report: Receives every epoch, those of the saved state included.
            ask: Says between calls whether to go on.

        Raises:
            NonFiniteError: The loss or a prediction became NaN or infinite.
            SpaceError: The space built no usable model.
            DiskFullError: The state could not be written.
        """
        start = time.perf_counter()
        network: Network | None = None
        try:
            network = self.network(values, self.part, num_rows=self.data.training.num_rows, seed=seed)
            end, curve = self.train_part(
                network, held_out=self._validation, budget=budget, state=state, report=report, ask=ask
            )
            return TrainingResult(
                end=end,
                epoch=len(curve),
                num_parameters=network.model.count_params(),
                seconds=time.perf_counter() - start,
                new_parameters=revealed(network.hp, known),
            )
        finally:
            network = None
            forget_graphs()

    def network(
        self, values: Mapping[str, ParameterValue], part: TrainingPart, *, num_rows: int, seed: int
    ) -> Network:
        """Builds a network.

        Args:
            values: The active hyperparameters.
            part: What it trains on.
            num_rows: Rows that one epoch sees, at most those of `part`; fewer where classes are under-sampled.
            seed: Seed of weights, dropout and data order.

        Raises:
            SpaceError: The space built no usable model.
        """
        balance = self.data.balance
        context = self.context(rows=balance.epoch_rows(num_rows, balance.of(values)))
        if isinstance(context, TableContext):
            context = replace(context, sample=part.sample)
        return Network(
            load_space(self._space_name, context),
            values=values,
            part=part,
            context=context,
            strategy=self.placement.strategy,
            seed=seed,
        )

    def train_part(
        self,
        network: Network,
        *,
        held_out: HeldOut,
        budget: int,
        state: Path,
        report: Report,
        ask: Ask,
    ) -> tuple[End, list[EpochResult]]:
        """Trains a network up to `budget` epochs, from its saved state if it has one.

        Args:
            network: Just built, or started again.
            held_out: The rows that early stopping and the best weights are decided on.
            budget: Epochs to reach.
            state: Folder of the state; written after every epoch, the best one's weights and predictions too.
            report: Receives every epoch, those of the saved state included.
            ask: Says between calls whether to go on.

        Returns:
            Why it ended, and all epochs.
        """
        curve: list[EpochResult] = _restored(network, state / "current")
        for result in curve:
            report(result)
        end = End.EARLY if self._is_exhausted(curve, network) else End.BUDGET
        while len(curve) < budget and end is End.BUDGET:
            loss = network.train_epoch(len(curve), ask)
            if loss is None:
                end = End.STOPPED
                break
            result, predictions = self._judged(network, held_out, epoch=len(curve) + 1, loss=loss, ask=ask)
            curve.append(result)
            weights = network.weights()
            if self.best_of(curve) is result:
                network.save(state / "best", weights=weights)
                keep_predictions(state, predictions, class_weights=network.answers.class_weights)
            # The state is on disk before the coordinator hears of the epoch: what the journal has is never lost.
            network.save(state / "current", weights=weights, curve=curve)
            report(result)
            if self._is_exhausted(curve, network):
                end = End.EARLY
        return end, curve

    def train_final(
        self,
        values: Mapping[str, ParameterValue],
        *,
        epochs: int,
        seed: int,
        report: Report,
        ask: Ask,
    ) -> tuple[keras.Model, AnswerForm, int]:
        """Trains the winner from scratch, on the validation rows too unless these widen its intervals.

        Nothing is left to stop early on, so the number of epochs is the best epoch of the search; the learning-rate
        schedule is the one the trial had, and its last cycle ends with the training where there are cycles.

        Args:
            values: The winner's hyperparameters.
            epochs: Epochs to train.
            seed: Seed of weights, dropout and data order.
            report: Receives every epoch.
            ask: Says between calls whether to go on.

        Returns:
            The network, how its output becomes an answer, and the epochs trained.

        Raises:
            NonFiniteError: The loss became NaN or infinite.
        """
        # Intervals are widened by what the validation rows say, which must not have been learned from.
        rows = self.data.training if self.data.schema.target.quantiles else self.data.development
        part = TrainingPart.of(self.data, rows)
        network = self.network(values, part, num_rows=rows.num_rows, seed=seed)
        network.ends_after(epochs)
        trained = 0
        while trained < epochs:
            loss = network.train_epoch(trained, ask)
            if loss is None:
                break
            trained += 1
            scalars = {"train/loss": loss, "learning_rate": network.learning_rate}
            report(EpochResult(epoch=trained, objective=math.nan, scalars=scalars))
        return network.model, network.answers, trained

    def predict(
        self, model: keras.Model, answers: AnswerForm, rows: EncodedRows, *, mape_epsilon: float = 0.0
    ) -> Predictions:
        """Returns what `model` answers on encoded rows that have their target."""
        context = self.context(rows=self.data.training.num_rows)
        features = tensors(rows.features)
        predict = prediction_function(model, answers, context, features, decoded=self.data.decoded)
        parts = [predict(batch) for batch in batches_of(features, rows.num_rows, size=prediction_batch(context))]
        return as_predictions(parts, rows, answers, mape_epsilon)

    def judge(self, network: Network, held_out: HeldOut, *, epoch: int, loss: float) -> EpochResult:
        """Computes the objective and the loss on the held-out rows."""
        return self._judged(network, held_out, epoch=epoch, loss=loss)[0]

    def _judged(
        self, network: Network, held_out: HeldOut, *, epoch: int, loss: float, ask: Ask | None = None
    ) -> tuple[EpochResult, Predictions]:
        rows = held_out.rows
        parts, losses = network.evaluate(held_out.features, rows, ask=ask)
        if not all(np.isfinite(array).all() for part in parts for array in part.values()):
            raise NonFiniteError(f"a prediction became NaN or infinite in epoch {epoch}")
        predictions = as_predictions(parts, rows, network.answers)
        value = self.objective.value(predictions)
        scalars = {
            "train/loss": loss,
            "val/loss": losses,
            **{f"val/{metric.name}": metric.value(predictions) for metric in self.also},
            f"val/{self.objective.name}": value,
            **objective_error(self.objective, predictions),
            "learning_rate": network.learning_rate,
        }
        return EpochResult(epoch=epoch, objective=value, scalars=scalars), predictions

    def _score(self, result: EpochResult) -> tuple[float, float, float]:
        loss = self.objective.to_loss(result.objective)
        tie, error = result.scalars.get("val/loss", math.inf), result.scalars.get(OBJECTIVE_ERROR, 0.0)
        return (loss if math.isfinite(loss) else math.inf), tie, error

    def best_of(self, curve: Sequence[EpochResult]) -> EpochResult | None:
        """Returns the best epoch (`app.epoch_choice`); None when there is none."""
        place = chosen_epoch(map(self._score, curve))
        return None if place is None else curve[place]

    def _is_exhausted(self, curve: list[EpochResult], network: Network) -> bool:
        """Whether a training has nothing more to come, before all epochs are done."""
        best, done = self.best_of(curve), len(curve)
        if network.schedule_epochs <= done < self.max_epochs:
            return True
        # Inside a cycle of the rate a network is worse than it was and than it will be.
        patience = math.inf if runs_in_cycles(network.model.optimizer) else self.patience
        return best is not None and done - best.epoch >= patience


def _restored(network: Network, path: Path) -> list[EpochResult]:
    return network.restore(path) if path.is_file() else []
