"""Any KerasTuner build function or HyperModel as a space, and the check of what it returns.

A model of one's own takes the encoded table either as the dictionary that the spaces of tamiz take (a functional
model whose inputs are called ``numeric`` and ``categorical``) or, like any network written for a matrix, as
``x`` (batch, num_features) float32: the numeric columns followed by the categorical ones, one-hot up to
`MAX_ONE_HOT` ids each and as a single frequency rank in [0, 1] beyond.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import keras
import keras_tuner
import tensorflow as tf

from pipelines.schema import Task
from search_spaces.catalogue import SPACES, SpaceError, load_attribute
from search_spaces.context import TableContext
from search_spaces.losses import loss_for

MAX_ONE_HOT = 64

ONE_HOT_LOSSES = (
    "categorical_crossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "kl_divergence",
)
"""Losses of Keras that take the target as one column a class."""


class InputForm(StrEnum):
    """How a model takes the encoded table."""

    COLUMNS = "columns"
    MATRIX = "matrix"


class UserSpace(keras_tuner.HyperModel):
    """A build function ``build(hp) -> keras.Model`` as a space.

    Args:
        build: The function.
        reference: Where it comes from, for messages.
    """

    def __init__(self, build: Callable[[keras_tuner.HyperParameters], Any], *, reference: str) -> None:
        super().__init__(name=reference)
        self._build = build

    def build(self, hp: keras_tuner.HyperParameters) -> Any:
        """Returns what the function returns."""
        return self._build(hp)


def load_space(name: str, context: TableContext) -> keras_tuner.HyperModel:
    """Returns the space called `name` for the table that `context` describes.

    Args:
        name: A key of `SPACES`, or ``module:attribute`` of a build function, a HyperModel or a HyperModel class.
        context: The encoded table.

    Raises:
        SpaceError: The space cannot be imported or is something else.
    """
    found: Any = load_attribute(SPACES.get(name, name))
    if name in SPACES:
        return found(context)
    if isinstance(found, keras_tuner.HyperModel):
        return found
    if isinstance(found, type) and issubclass(found, keras_tuner.HyperModel):
        parameters = inspect.signature(found).parameters
        return found(context) if "context" in parameters else found()
    if isinstance(found, type) or not callable(found):
        raise SpaceError(f"{name} is a {type(found).__name__}: expected a function build(hp) or a HyperModel")
    return UserSpace(found, reference=name)


def input_form(model: keras.Model) -> InputForm:
    """Returns how `model` takes the encoded table."""
    names = {tensor.name for tensor in getattr(model, "inputs", None) or []}
    return InputForm.COLUMNS if names and names <= {"numeric", "categorical"} else InputForm.MATRIX


def arrange(encoded: dict[str, tf.Tensor], form: InputForm, context: TableContext) -> Any:
    """Returns the encoded table as a model takes it.

    Args:
        encoded: ``numeric`` (batch, num_numeric) float32 and ``categorical`` (batch, num_categorical) int32.
        form: How the model takes it.
        context: The encoded table.

    Returns:
        A dictionary of the kinds that the table has, or one matrix (batch, num_features) float32.
    """
    if form is InputForm.COLUMNS:
        present = {"numeric": context.num_numeric, "categorical": len(context.cardinalities)}
        return {name: encoded[name] for name, width in present.items() if width}
    parts = [encoded["numeric"]] if context.num_numeric else []
    for column, cardinality in enumerate(context.cardinalities):
        ids = encoded["categorical"][:, column]
        if cardinality <= MAX_ONE_HOT:
            parts.append(tf.one_hot(ids, cardinality))
        else:
            parts.append(tf.cast(ids, tf.float32)[:, tf.newaxis] / float(cardinality))
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)


def checked_model(built: Any, *, example: dict[str, tf.Tensor], context: TableContext) -> keras.Model:
    """Returns what a space built, built on its inputs and compiled, or says what is wrong with it.

    Args:
        built: What ``build(hp)`` returned.
        example: A few encoded rows.
        context: The encoded table.

    Raises:
        SpaceError: It is no model, does not take the table, or answers in another shape than the task needs.
    """
    if not isinstance(built, keras.Model):
        raise SpaceError(f"the space returned {type(built).__name__}: expected build(hp) to return a keras.Model")
    inputs = arrange(example, input_form(built), context)
    try:
        output = built(inputs, training=False)
    except Exception as error:
        shape = inputs.shape if isinstance(inputs, tf.Tensor) else {name: t.shape for name, t in inputs.items()}
        raise SpaceError(f"the model does not take the encoded table of shape {shape}: {error}") from error
    widths = {1, 2} if context.task is Task.BINARY else {context.num_outputs}
    if not isinstance(output, tf.Tensor) or len(output.shape) != 2 or output.shape[-1] not in widths:
        shape = getattr(output, "shape", type(output).__name__)
        raise SpaceError(f"the model's output is {shape}: expected (batch, {context.num_outputs}) for {context.task}")
    if getattr(built, "loss", None) is None and not built.compiled:
        loss = loss_for(output.shape[-1], classification=context.task.is_classification)
        if not answers_logits(built, context.task):
            loss = "binary_crossentropy" if output.shape[-1] == 1 else "sparse_categorical_crossentropy"
        built.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss, jit_compile=False)
    return built


def answers_logits(model: keras.Model, task: Task) -> bool:
    """Returns whether the last layer of a classifier is linear rather than a softmax or sigmoid."""
    if not task.is_classification:
        return True
    layers = [layer for layer in getattr(model, "layers", []) if not isinstance(layer, keras.layers.InputLayer)]
    last = layers[-1] if layers else None
    if isinstance(last, keras.layers.Softmax):
        return False
    activation = getattr(last, "activation", None)
    return getattr(activation, "__name__", "linear") not in ("softmax", "sigmoid")


def wants_one_hot(model: keras.Model) -> bool:
    """Returns whether the loss of `model` takes one-hot targets ``(batch, num_classes)``."""
    loss = model.loss
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name in ONE_HOT_LOSSES
