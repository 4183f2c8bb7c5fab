"""Losses on logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.schema import Task
from search_spaces.context import TrainingContext
from search_spaces.quantiles import PinballLoss


@keras.saving.register_keras_serializable(package="tamiz")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of class ids against logits, with label smoothing.

    Keras' sparse cross-entropy has no smoothing, and its categorical one needs a one-hot target in the pipeline.
    Smoothing replaces the one-hot target by ``(1 - smoothing) * y + smoothing / num_classes`` (Szegedy et al., 2016,
    section 7).

    Args:
        smoothing: Mass moved from the true class to all classes alike, in [0, 1).
        focus: Exponent of the focal loss (Lin et al., ICCV 2017, equation 4): each class's part counts by
            ``(1 - p)**focus`` of its probability p, so that what is known already hardly counts; 0 for none.

    Shapes:
        ``y_true`` (batch,) or (batch, 1) class ids, or (batch, num_classes) shares of every class where pictures are
        mixed; ``y_pred`` (batch, num_classes) logits; the loss is a scalar.
    """

    def __init__(
        self, smoothing: float = 0.0, focus: float = 0.0, name: str = "smoothed_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing is {smoothing}: expected a share in [0, 1)")
        if focus < 0.0:
            raise ValueError(f"focus is {focus}: expected at least 0")
        self.smoothing, self.focus = float(smoothing), float(focus)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of every row, ``(batch,)``."""
        if self.focus:
            return self._focal(y_true, y_pred)
        if len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]:
            loss = ops.categorical_crossentropy(ops.cast(y_true, y_pred.dtype), y_pred, from_logits=True)
        else:
            ids = ops.cast(ops.reshape(y_true, (-1,)), "int32")
            loss = ops.sparse_categorical_crossentropy(ids, y_pred, from_logits=True)
        if self.smoothing:
            uniform = -ops.mean(ops.log_softmax(y_pred, axis=-1), axis=-1)
            loss = (1.0 - self.smoothing) * loss + self.smoothing * uniform
        return loss

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same loss."""
        return {**super().get_config(), "smoothing": self.smoothing, "focus": self.focus}

    def _focal(self, y_true: Any, y_pred: Any) -> Any:
        num_classes = y_pred.shape[-1]
        if len(y_true.shape) == 2 and y_true.shape[-1] == num_classes:
            wanted = ops.cast(y_true, y_pred.dtype)
        else:
            wanted = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), num_classes, dtype=y_pred.dtype)
        wanted = (1.0 - self.smoothing) * wanted + self.smoothing / num_classes
        logs = ops.log_softmax(y_pred, axis=-1)
        return -ops.sum(wanted * ops.power(1.0 - ops.exp(logs), self.focus) * logs, axis=-1)


@keras.saving.register_keras_serializable(package="tamiz")
class MemberLoss(keras.losses.Loss):
    """The mean of the losses of all members of a network (Gorishniy et al., ICLR 2025, section 3).

    Never the loss of their mean, under which members would learn to rely on each other. What has one output, as every
    answer outside training, gets the loss itself.

    Args:
        loss: The loss of one member.
        num_outputs: Width of a member's output.

    Shapes:
        ``y_true`` as for `loss`, ``y_pred`` (batch, num_members * num_outputs), member by member; the loss is a scalar.
    """

    def __init__(
        self, loss: keras.losses.Loss, *, num_outputs: int, name: str = "member_loss", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        if num_outputs < 1:
            raise ValueError(f"num_outputs is {num_outputs}: expected at least 1")
        self.loss, self.num_outputs = loss, int(num_outputs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the mean loss of the members of every row, ``(batch,)``."""
        members = y_pred.shape[-1] // self.num_outputs
        outputs = ops.reshape(y_pred, (-1, self.num_outputs))
        losses = self.loss.call(ops.repeat(y_true, members, axis=0), outputs)
        return ops.mean(ops.reshape(losses, (-1, members)), axis=1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same loss."""
        own = {"loss": keras.losses.serialize(self.loss), "num_outputs": self.num_outputs}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MemberLoss:
        """Builds the loss that `get_config` described."""
        return cls(**{**config, "loss": keras.losses.deserialize(config["loss"])})


def loss_of(context: TrainingContext, *, smoothing: float = 0.0, focus: float = 0.0) -> keras.losses.Loss:
    """Returns the loss of a network whose last layer has ``context.num_outputs`` linear units.

    Args:
        context: The data and the task.
        smoothing: Label smoothing in [0, 1); ignored by regression.
        focus: Exponent of the focal loss; 0 for plain cross-entropy. Ignored by regression.
    """
    if context.quantiles:
        return PinballLoss(context.quantiles)
    if focus and context.task is Task.MULTICLASS:
        return SmoothedCrossentropy(smoothing, focus)
    if focus and context.task.is_classification:
        return keras.losses.BinaryFocalCrossentropy(gamma=focus, from_logits=True, label_smoothing=smoothing)
    if context.task is Task.MULTILABEL:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    return loss_for(context.num_outputs, classification=context.task.is_classification, smoothing=smoothing)


def loss_for(num_outputs: int, *, classification: bool, smoothing: float = 0.0) -> keras.losses.Loss:
    """Returns the loss of a network whose last layer has `num_outputs` linear units.

    Args:
        num_outputs: 1 for two classes or regression, else the number of classes.
        classification: Whether the target is a class.
        smoothing: Label smoothing in [0, 1); ignored by regression.
    """
    if not classification:
        return keras.losses.MeanSquaredError()
    if num_outputs == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    return SmoothedCrossentropy(smoothing)
