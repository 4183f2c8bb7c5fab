"""One trial: a network built from hyperparameters, trained epoch by epoch, judged on the validation rows.

An epoch is one call of a compiled loop over Keras' own `train_step`, so that what Keras does in a step (loss
scaling, a user's override, metrics) holds, while Python is paid once an epoch instead of once a step. The objective
is computed exactly from the predictions on all validation rows, not averaged over batches.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, final

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from app.evaluation.baselines import EncodedRows
from app.evaluation.metrics import Metric
from app.evaluation.predictions import Predictions
from app.search.space import Parameter, Space
from app.search.space import Value as ParameterValue
from app.training.checkpoint import CheckpointError, load_state, save_state
from app.training.declaration import hyperparameters, revealed
from app.training.seeding import seed_everything
from app.training.strategy import Placement
from app.training.trial_data import TrialData, tensors
from pipelines.input_pipeline import training_batches
from search_spaces.answers import AnswerForm
from search_spaces.context import TableContext
from search_spaces.user_space import answers_logits, arrange, checked_model, input_form, load_space, wants_one_hot

DEFAULT_BATCH_SIZE = 64
PREDICTION_BATCH = 4096
SECONDS_PER_CALL = 0.5
"""Training time between two looks at the clock and at the coordinator's messages."""


class Verdict(StrEnum):
    """What the coordinator wants of a trial after an epoch, or in the middle of one."""

    GO_ON = "go on"
    STOP = "stop"


class End(StrEnum):
    """Why a training ended."""

    BUDGET = "budget"
    EARLY = "early"
    STOPPED = "stopped"


class NonFiniteError(Exception):
    """The loss or the predictions became NaN or infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What one epoch brought.

    Attributes:
        epoch: Number of epochs trained so far, from 1.
        objective: Value of the objective on the validation rows; NaN when there are none to select on.
        scalars: Tag -> value for TensorBoard.
    """

    epoch: int
    objective: float
    scalars: Mapping[str, float]


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


Report = Callable[[EpochResult], None]
Ask = Callable[[], Verdict]


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
    ) -> None:
        self.data = data
        self.objective = objective
        self.placement = placement
        self.max_epochs = max_epochs
        self.patience = patience
        self._space_name = space_name
        self._features = tensors(data.training.features)
        self._validation = tensors(data.validation.features)

    def context(self, *, rows: int) -> TableContext:
        """Returns what a space has to know when `rows` rows are trained on."""
        return self.data.context(
            max_epochs=self.max_epochs, num_training_rows=rows, num_replicas=self.placement.num_replicas
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
        network = _Network(self, self.data.training, self._features, values, seed)
        curve: list[EpochResult] = _restored(network, state / "current")
        for result in curve:
            report(result)
        end = End.EARLY if self._is_exhausted(curve) else End.BUDGET
        best = self._best(curve)
        while len(curve) < budget and end is End.BUDGET:
            loss = network.train_epoch(len(curve), ask)
            if loss is None:
                end = End.STOPPED
                break
            result = self._judge(network, epoch=len(curve) + 1, loss=loss)
            curve.append(result)
            if best is None or self._score(result) < self._score(best):
                best = result
                network.save(state / "best", curve=[], optimizer=False)
            # The state is on disk before the coordinator hears of the epoch: what the journal has is never lost.
            network.save(state / "current", curve=curve, optimizer=True)
            report(result)
            if self._is_exhausted(curve):
                end = End.EARLY
        outcome = TrainingResult(
            end=end,
            epoch=len(curve),
            num_parameters=network.model.count_params(),
            seconds=time.perf_counter() - start,
            new_parameters=revealed(network.hp, known),
        )
        del network
        _forget()
        return outcome

    def train_final(
        self,
        values: Mapping[str, ParameterValue],
        *,
        epochs: int,
        seed: int,
        report: Report,
        ask: Ask,
    ) -> tuple[keras.Model, AnswerForm, int]:
        """Trains the winner from scratch on the training and validation rows together.

        Nothing is left to stop early on, so the number of epochs is the best epoch of the search; the learning-rate
        schedule is the one the trial had.

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
        rows = self.data.development
        network = _Network(self, rows, tensors(rows.features), values, seed)
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
        predict = _prediction_function(model, answers, context)
        parts = [predict(batch) for batch in _batches(tensors(rows.features), rows.num_rows)]
        return _as_predictions(parts, rows, answers, mape_epsilon)

    def _judge(self, network: _Network, *, epoch: int, loss: float) -> EpochResult:
        """Computes the objective and the loss on the validation rows."""
        rows = self.data.validation
        parts, losses = network.evaluate(self._validation, rows)
        if not all(np.isfinite(array).all() for part in parts for array in part.values()):
            raise NonFiniteError(f"a prediction became NaN or infinite in epoch {epoch}")
        value = self.objective.value(_as_predictions(parts, rows, network.answers))
        scalars = {
            "train/loss": loss,
            "val/loss": losses,
            f"val/{self.objective.name}": value,
            "learning_rate": network.learning_rate,
        }
        return EpochResult(epoch=epoch, objective=value, scalars=scalars)

    def _score(self, result: EpochResult) -> tuple[float, float]:
        """Lower is better; the loss tells epochs apart that share the best accuracy, as many do on few rows."""
        loss = self.objective.to_loss(result.objective)
        return (loss if math.isfinite(loss) else math.inf), result.scalars.get("val/loss", math.inf)

    def _best(self, curve: list[EpochResult]) -> EpochResult | None:
        return min(curve, key=self._score, default=None)

    def _is_exhausted(self, curve: list[EpochResult]) -> bool:
        best = self._best(curve)
        return best is not None and len(curve) - best.epoch >= self.patience


class _Network:
    """A built network with its optimizer, its compiled epoch and its place in the data."""

    def __init__(
        self,
        trainer: Trainer,
        rows: EncodedRows,
        features: dict[str, tf.Tensor],
        values: Mapping[str, ParameterValue],
        seed: int,
    ) -> None:
        context = trainer.context(rows=rows.num_rows)
        self._context, self._strategy = context, trainer.placement.strategy
        seed_everything(seed)
        self._seed, self.hp = seed, hyperparameters(values)
        example = {name: tensor[:2] for name, tensor in features.items()}
        with self._strategy.scope():
            built = trainer.space(rows=rows.num_rows).build(self.hp)
            self.model = checked_model(built, example=example, context=context)
            self.model.optimizer.build(self.model.trainable_variables)
        self.answers = trainer.data.answer_form(logits=answers_logits(self.model, context.task))
        self._inputs = arrange(features, input_form(self.model), context)
        self._one_hot = context.num_classes if wants_one_hot(self.model) else 0
        self._target = self._as_target(trainer.data.training_target(rows))
        weights = trainer.data.row_weights(rows)
        self._weights = None if weights is None else tf.constant(weights)
        self._evaluate = self._evaluation_function()
        self._to_target = trainer.data.training_target
        size = int(values.get("batch_size", DEFAULT_BATCH_SIZE))
        self._batch_size = context.global_batch(size)
        self._steps = context.steps_per_epoch(size)
        self._run = self._training_function()
        self._iterator: Any = None
        self._steps_per_call = 1

    def train_epoch(self, epoch: int, ask: Ask) -> float | None:
        """Trains epoch `epoch` (from 0); returns its mean loss, or None if told to stop before its end."""
        if self._iterator is None:
            self._iterator = self._batches_from(epoch)
        self.model.reset_metrics()
        left = self._steps
        while left:
            if ask() is Verdict.STOP:
                self._iterator = None
                return None
            steps = min(left, self._steps_per_call)
            start = time.perf_counter()
            self._run(self._iterator, tf.constant(steps))
            self._adapt(steps, time.perf_counter() - start)
            left -= steps
        loss = float(next(metric.result() for metric in self.model.metrics if metric.name == "loss"))
        if not math.isfinite(loss):
            raise NonFiniteError(f"the training loss became {loss} in epoch {epoch + 1}")
        return loss

    def evaluate(self, features: dict[str, tf.Tensor], rows: EncodedRows) -> tuple[list[dict[str, Any]], float]:
        """Returns the predictions on `rows`, batch by batch, and the mean loss."""
        target = self._as_target(self._to_target(rows))
        parts, total = [], 0.0
        for start, batch in enumerate(_batches(features, rows.num_rows)):
            y = target[start * PREDICTION_BATCH : (start + 1) * PREDICTION_BATCH]
            predicted, loss = self._evaluate(batch, y)
            parts.append({name: tensor.numpy() for name, tensor in predicted.items()})
            total += float(loss) * int(y.shape[0])
        return parts, total / rows.num_rows

    @property
    def learning_rate(self) -> float:
        """The optimizer's learning rate now."""
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def save(self, path: Path, *, curve: list[EpochResult], optimizer: bool) -> None:
        """Writes the state; `optimizer` False keeps the network alone."""
        groups = {"model": [np.asarray(v) for v in self.model.variables]}
        if optimizer:
            groups["optimizer"] = [np.asarray(v) for v in self.model.optimizer.variables]
        header = {"curve": [{"objective": r.objective, "scalars": dict(r.scalars)} for r in curve]}
        save_state(path, arrays=groups, header=header)

    def restore(self, path: Path) -> list[EpochResult]:
        """Assigns what `save` wrote and returns the epochs so far."""
        groups, header = load_state(path)
        held = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        for name, variables in held.items():
            shapes = [tuple(variable.shape) for variable in variables]
            if shapes != [array.shape for array in groups[name]]:
                raise CheckpointError(f"{path} belongs to another network")
            for variable, array in zip(variables, groups[name], strict=True):
                variable.assign(array)
        return [EpochResult(epoch=number, **epoch) for number, epoch in enumerate(header["curve"], start=1)]

    def _batches_from(self, epoch: int) -> Any:
        columns = (self._inputs, self._target) if self._weights is None else (self._inputs, self._target, self._weights)
        batches = training_batches(
            columns,
            num_rows=int(self._target.shape[0]),
            batch_size=self._batch_size,
            seed=self._seed,
            first_epoch=epoch,
        )
        return iter(self._strategy.experimental_distribute_dataset(batches))

    def _training_function(self) -> Any:
        model, strategy = self.model, self._strategy

        @tf.function(autograph=False, reduce_retracing=True)
        def run(iterator: Any, steps: tf.Tensor) -> None:
            def step(done: tf.Tensor) -> tuple[tf.Tensor]:
                strategy.run(model.train_step, args=(next(iterator),))
                return (done + 1,)

            tf.while_loop(lambda done: done < steps, step, (tf.constant(0),), parallel_iterations=1)

        return run

    def _evaluation_function(self) -> Any:
        model, answers, context = self.model, self.answers, self._context
        form = input_form(model)

        @tf.function(autograph=False, reduce_retracing=True)
        def evaluate(features: dict[str, tf.Tensor], y: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            output = model(arrange(features, form, context), training=False)
            loss = model.compute_loss(y=y, y_pred=output, training=False)
            return answers.predictions(output), loss

        return evaluate

    def _as_target(self, target: Any) -> tf.Tensor:
        return tf.one_hot(target[:, 0], self._one_hot) if self._one_hot else tf.constant(target)

    def _adapt(self, steps: int, seconds: float) -> None:
        """Lets a call grow towards `SECONDS_PER_CALL`; the first calls also pay for tracing."""
        if seconds < SECONDS_PER_CALL / 2:
            self._steps_per_call = min(self._steps, self._steps_per_call * 4)
        elif seconds > 2 * SECONDS_PER_CALL and steps > 1:
            self._steps_per_call = max(1, self._steps_per_call // 2)


def _restored(network: _Network, path: Path) -> list[EpochResult]:
    return network.restore(path) if path.is_file() else []


def _prediction_function(model: keras.Model, answers: AnswerForm, context: TableContext) -> Any:
    form = input_form(model)

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answers.predictions(model(arrange(features, form, context), training=False))

    return lambda features: {name: tensor.numpy() for name, tensor in predict(features).items()}


def _batches(features: dict[str, tf.Tensor], num_rows: int) -> Any:
    for start in range(0, num_rows, PREDICTION_BATCH):
        yield {name: tensor[start : start + PREDICTION_BATCH] for name, tensor in features.items()}


def _as_predictions(
    parts: list[dict[str, Any]], rows: EncodedRows, answers: AnswerForm, mape_epsilon: float = 0.0
) -> Predictions:
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Predictions(
        task=answers.task,
        y=rows.y,
        probabilities=joined.get("probabilities"),
        labels=joined.get("label_ids"),
        values=joined.get("values"),
        mape_epsilon=mape_epsilon,
    )


def _forget() -> None:
    """Lets go of the graph of a finished trial; Keras keeps a global registry of layer names and graphs."""
    keras.backend.clear_session(free_memory=False)
    gc.collect()
