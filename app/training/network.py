"""A built network with its optimizer, its compiled epoch, and its place in the data (TensorFlow).

An epoch is one call of a compiled loop over Keras' own `train_step`, so that what Keras does in a step (loss
scaling, a user's override, metrics) holds, while Python is paid once an epoch instead of once a step.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework import ops as tf_ops

from app.evaluation.baselines import EncodedRows
from app.search.space import Value as ParameterValue
from app.training.checkpoint import CheckpointError, load_state, save_state
from app.training.declaration import hyperparameters
from app.training.epochs import Ask, EpochResult, NonFiniteError, Verdict
from app.training.prediction_batches import batches_of, feature_specs, prediction_batch
from app.training.seeding import seed_everything
from app.training.stored_encoding import shards_of
from app.training.trial_data import TrialData, tensors
from pipelines.input_pipeline import Change, training_batches
from pipelines.schema import Task
from pipelines.shards import ClassDraw, Shards, shard_batches
from search_spaces.augmentation import augment
from search_spaces.context import TableContext, TableSample
from search_spaces.image_context import ImageContext
from search_spaces.layers.learned import learn_layers
from search_spaces.schedules import last_step, rest_at
from search_spaces.user_space import answers_logits, arrange, checked_model, input_form, wants_one_hot

DEFAULT_BATCH_SIZE = 64
SECONDS_PER_CALL = 0.5
"""Training time between two looks at the clock and at the coordinator's messages."""


@dataclass(frozen=True, kw_only=True)
class TrainingPart:
    """The rows that a network trains on.

    Attributes:
        data: The experiment's rows.
        rows: Those to train on.
        features: Their features as tensors; of rows that stay on disk the first few.
        shards: The features of rows that stay on disk; None in memory.
    """

    data: TrialData
    rows: EncodedRows
    features: dict[str, tf.Tensor]
    shards: Shards | None = None

    @classmethod
    def of(cls, data: TrialData, rows: EncodedRows) -> TrainingPart:
        """Returns rows in memory, or on disk where they lie there and are many."""
        shards = shards_of(rows)
        shown = rows.features if shards is None else {name: array[:2] for name, array in rows.features.items()}
        return cls(data=data, rows=rows, features=tensors(shown), shards=shards)

    @cached_property
    def sample(self) -> TableSample:
        """What a network may learn of the rows before it trains; the same for every network."""
        target = self.data.training_target(self.rows)
        return TableSample.drawn(numeric=self.rows.numeric, categorical=self.rows.categorical, target=target)


@final
class Network:
    """A built network with its optimizer, its compiled epoch and its place in the data.

    Args:
        space: Builds the network.
        values: The active hyperparameters.
        part: What to train on.
        context: What the space was told of it.
        strategy: TensorFlow's distribution strategy.
        seed: Seed of weights, dropout and data order.

    Raises:
        SpaceError: The space built no usable model.
    """

    def __init__(
        self,
        space: keras_tuner.HyperModel,
        *,
        values: Mapping[str, ParameterValue],
        part: TrainingPart,
        context: TableContext | ImageContext,
        strategy: Any,
        seed: int,
    ) -> None:
        data, rows, features = part.data, part.rows, part.features
        self._context, self._strategy = context, strategy
        seed_everything(seed)
        self._seed, self.hp = seed, hyperparameters(values)
        example = data.decoded({name: tensor[:2] for name, tensor in features.items()})
        with self._strategy.scope():
            built = space.build(self.hp)
            self.model, width = checked_model(built, example=example, context=context)
            self.model.optimizer.build(self.model.trainable_variables)
        self._balance = data.balance.of(self.hp.values)
        self.answers = data.answer_form(logits=answers_logits(self.model, context.task), balance=self._balance)
        self._decoded = data.decoded
        self._shards = part.shards
        self._inputs = self._arranged(features)
        one_hot = context.task in (Task.BINARY, Task.MULTICLASS) and wants_one_hot(self.model, width)
        self._one_hot = context.num_classes if one_hot else 0
        # Of rows on disk, a batch is brought to this form when it is drawn.
        target = data.training_target(rows)
        self._target = self._as_target(target) if part.shards is None else tf.constant(target)
        self._labels = data.balance.labels(rows, self._balance)
        self._epoch_share = data.balance.epoch_share(self._balance)
        weights = data.row_weights(rows, balance=self._balance)
        self._weights = None if weights is None else tf.constant(weights)
        self._is_weighted = rows.weights is not None
        self._features = features
        self._graph_answers = self.answers
        self._evaluate = self._evaluation_function()
        self._to_target, self._given_weights = data.training_target, data.given_weights
        # What the build asked for, not what it was given: a space may reveal the batch size only now.
        size = int(self.hp.values.get("batch_size", DEFAULT_BATCH_SIZE))
        self._batch_size = context.global_batch(size)
        self._steps = context.steps_per_epoch(size)
        self._run = self._training_function()
        self._iterator: Any = None
        self._steps_per_call = 1
        self._learning_rate: Any = 0.0

    def start_again(self, part: TrainingPart, *, weights: Mapping[str, list[NDArray[Any]]], seed: int) -> None:
        """Forgets what was learned, by gradients and before, and goes to other rows of the same shape; the graphs stay.

        Args:
            part: The rows; at least as many as an epoch of the network has.
            weights: What `state` returned at the start.
            seed: Seed of the data order.
        """
        self._assign(weights)
        with self._strategy.scope():
            learn_layers(self.model, part.sample)
        self.answers = part.data.answer_form(logits=self.answers.logits, balance=self._balance)
        self._inputs = self._arranged(part.features)
        self._target = self._as_target(part.data.training_target(part.rows))
        self._labels = part.data.balance.labels(part.rows, self._balance)
        row_weights = part.data.row_weights(part.rows, balance=self._balance)
        self._weights = None if row_weights is None else tf.constant(row_weights)
        self._to_target, self._given_weights = part.data.training_target, part.data.given_weights
        self._seed, self._iterator = seed, None

    def train_epoch(self, epoch: int, ask: Ask) -> float | None:
        """Trains epoch `epoch` (from 0); returns its mean loss, or None if told to stop before its end.

        The first epoch ends early, after some steps, where an answer is wanted.
        """
        if self._iterator is None:
            self._iterator = self._batches_from(epoch)
        self.model.reset_metrics()
        left = self._steps
        while left:
            verdict = ask()
            if verdict is Verdict.ANSWER and epoch == 0:
                if left < self._steps:
                    self._iterator = None
                    break
            elif verdict is not Verdict.GO_ON:
                self._iterator = None
                return None
            steps = min(left, self._steps_per_call)
            start = time.perf_counter()
            self._learning_rate = self._run(self._iterator, tf.constant(steps))
            self._adapt(steps, time.perf_counter() - start)
            left -= steps
        loss = float(next(metric.result() for metric in self.model.metrics if metric.name == "loss"))
        if not math.isfinite(loss):
            raise NonFiniteError(f"the training loss became {loss} in epoch {epoch + 1}")
        return loss

    def first_batch(self) -> Any:
        """Returns the first training batch as the network gets it: inputs, targets, perhaps weights."""
        return self._strategy.experimental_local_results(next(self._batches_from(0)))[0]

    def evaluate(
        self, features: dict[str, tf.Tensor], rows: EncodedRows, *, ask: Ask | None = None
    ) -> tuple[list[dict[str, Any]], float]:
        """Returns the predictions on `rows`, batch by batch, and the mean loss, weighted where rows have weights.

        Args:
            features: Of the rows.
            rows: Their targets and weights.
            ask: Asked before every batch, for a sign of life alone: an evaluation is not stopped.
        """
        target, weights = self._as_target(self._to_target(rows)), self._given_weights(rows)
        parts, total = [], 0.0
        size = prediction_batch(self._context)
        for number, batch in enumerate(batches_of(features, rows.num_rows, size=size)):
            if ask is not None:
                ask()
            place = slice(number * size, (number + 1) * size)
            y = target[place]
            predicted, loss = self._evaluate(batch, y, *([] if weights is None else [weights[place]]))
            parts.append(self._rescaled({name: tensor.numpy() for name, tensor in predicted.items()}))
            total += float(loss) * int(y.shape[0])
        return parts, total / (rows.num_rows if weights is None else float(weights.sum()))

    def _rescaled(self, predicted: dict[str, Any]) -> dict[str, Any]:
        """Brings predictions from the units of the rows that the graph was made for to those of the present rows."""
        made, now = self._graph_answers, self.answers
        for name in {"values", "quantiles"} & set(predicted) if made != now else ():
            standardised = (predicted[name].astype(np.float64) - made.target_mean) / np.asarray(made.target_scale)
            predicted[name] = (standardised * np.asarray(now.target_scale) + now.target_mean).astype(np.float32)
        return predicted

    @property
    def schedule_epochs(self) -> float:
        """Epochs after which the learning rate is zero for good; infinity when it never is."""
        epochs = last_step(self.model.optimizer) / self._steps
        return epochs if math.isinf(epochs) else math.ceil(epochs)

    def ends_after(self, epochs: int) -> None:
        """Lets a cyclic learning rate come to rest after so many epochs; call it before the first one."""
        rest_at(self.model.optimizer, epochs * self._steps)

    @property
    def learning_rate(self) -> float:
        """The optimizer's learning rate after the last step."""
        return float(self._learning_rate)

    def weights(self) -> list[NDArray[Any]]:
        """Returns every variable of the network, those of its seed generators included."""
        return [np.asarray(variable) for variable in self.model.variables]

    def state(self) -> dict[str, list[NDArray[Any]]]:
        """Returns copies of every variable of the network and of its optimizer."""
        held = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        return {name: [np.asarray(variable).copy() for variable in variables] for name, variables in held.items()}

    def _assign(self, groups: Mapping[str, Sequence[NDArray[Any]]]) -> None:
        held = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        for name, variables in held.items():
            for variable, array in zip(variables, groups[name], strict=True):
                variable.assign(array)

    def save(
        self, path: Path, *, weights: list[NDArray[Any]], curve: Sequence[EpochResult] | None = None
    ) -> None:
        """Writes the state.

        Args:
            path: The file.
            weights: What `weights` returned.
            curve: The epochs so far, with which the optimizer's state is kept too; None keeps the network alone.
        """
        groups = {"model": weights}
        if curve is not None:
            groups["optimizer"] = [np.asarray(variable) for variable in self.model.optimizer.variables]
        header = {"curve": [{"objective": r.objective, "scalars": dict(r.scalars)} for r in curve or ()]}
        save_state(path, arrays=groups, header=header)

    def restore(self, path: Path) -> list[EpochResult]:
        """Assigns what `save` wrote and returns the epochs so far."""
        groups, header = load_state(path)
        held = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        for name, variables in held.items():
            shapes = [tuple(variable.shape) for variable in variables]
            if shapes != [array.shape for array in groups.get(name, [])]:
                raise CheckpointError(f"{path} belongs to another network")
        self._assign(groups)
        return [EpochResult(epoch=number, **epoch) for number, epoch in enumerate(header["curve"], start=1)]

    def _batches_from(self, epoch: int) -> Any:
        beside = (self._target,) if self._weights is None else (self._target, self._weights)
        if self._shards is not None:
            batches = shard_batches(
                self._shards,
                beside,
                batch_size=self._batch_size,
                seed=self._seed,
                first_epoch=epoch,
                steps=self._steps,
                change=self._brought_to_form(),
                draw=None if self._labels is None else ClassDraw(labels=self._labels, share=self._epoch_share),
            )
            return iter(self._strategy.experimental_distribute_dataset(batches))
        batches = training_batches(
            (self._inputs, *beside),
            num_rows=int(self._target.shape[0]),
            batch_size=self._batch_size,
            seed=self._seed,
            first_epoch=epoch,
            steps=self._steps,
            change=self._change(),
            labels=self._labels,
        )
        return iter(self._strategy.experimental_distribute_dataset(batches))

    def _arranged(self, features: dict[str, tf.Tensor]) -> Any:
        """Returns rows in memory as the model takes them; images stay as they are until they are in a batch."""
        if isinstance(self._context, ImageContext):
            return dict(features)
        return arrange(features, input_form(self.model), self._context)

    def _brought_to_form(self) -> Change:
        """Returns what is done to a batch of rows from disk before it is trained on."""
        form, context = input_form(self.model), self._context

        def brought(batch: Any, _: tf.Tensor) -> Any:
            features, target, *weights = batch
            return arrange(features, form, context), self._as_target(target), *weights

        return brought

    def _change(self) -> Change | None:
        """Returns what is done to a batch of images before it is trained on: decoded, augmented, arranged."""
        context = self._context
        if not isinstance(context, ImageContext):
            return None
        augmented, form, decoded = augment(self.hp.values, context), input_form(self.model), self._decoded

        def change(batch: Any, key: tf.Tensor) -> Any:
            features, labels, *weights = batch
            features = decoded(features)
            if augmented is not None:
                images, labels = augmented(features["image"], labels, key)
                features = {**features, "image": images}
            return (arrange(features, form, context), labels, *weights)

        return change

    def _training_function(self) -> Any:
        model, strategy = self.model, self._strategy

        @tf.function(autograph=False, reduce_retracing=True)
        def run(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
            def step(done: tf.Tensor) -> tuple[tf.Tensor]:
                strategy.run(model.train_step, args=(next(iterator),))
                return (done + 1,)

            tf.while_loop(lambda done: done < steps, step, (tf.constant(0),), parallel_iterations=1)
            # A schedule evaluated here costs nothing; evaluated operation by operation it takes milliseconds.
            return tf.identity(model.optimizer.learning_rate)

        return run

    def _evaluation_function(self) -> Any:
        model, answers, context, decoded = self.model, self.answers, self._context, self._decoded
        form = input_form(model)
        y = self._target if self._shards is None else self._as_target(self._target[:1])
        y_spec = tf.TensorSpec((None, *y.shape[1:]), y.dtype)

        signature = [feature_specs(self._features), y_spec]
        if self._is_weighted:
            signature.append(tf.TensorSpec((None,), tf.float32))

        # Any number of rows in one trace: the last batch is a short one.
        @tf.function(autograph=False, input_signature=signature)
        def evaluate(
            features: dict[str, tf.Tensor], y: tf.Tensor, weights: tf.Tensor | None = None
        ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            output = model(arrange(decoded(features), form, context), training=False)
            loss = model.compute_loss(y=y, y_pred=output, sample_weight=weights, training=False)
            return answers.predictions(output), loss

        return evaluate

    def _as_target(self, target: Any) -> tf.Tensor:
        return tf.one_hot(target[:, 0], self._one_hot) if self._one_hot else tf.convert_to_tensor(target)

    def _adapt(self, steps: int, seconds: float) -> None:
        """Lets a call grow towards `SECONDS_PER_CALL`; the first calls also pay for tracing."""
        if seconds < SECONDS_PER_CALL / 2:
            self._steps_per_call = min(self._steps, self._steps_per_call * 4)
        elif seconds > 2 * SECONDS_PER_CALL and steps > 1:
            self._steps_per_call = max(1, self._steps_per_call // 2)


def forget_graphs() -> None:
    """Lets go of the graphs of a finished trial, which Keras and TensorFlow keep in global registries."""
    # The policy is in what is cleared; without it, the next trial would not train in the precision of this one.
    policy = keras.config.dtype_policy()
    keras.backend.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    # Every trace of an operation with a gradient of its own registers it for ever, and its graph with it: some 20 MB
    # a trial. Nobody looks one up after its function was traced.
    registered = tf_ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    gc.collect()
