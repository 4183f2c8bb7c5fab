"""Any KerasTuner build function or HyperModel as a space, and the check of what it returns.

A model of one's own takes the encoded table either as the dictionary that the spaces of tamiz take (a functional
model whose inputs are called ``numeric`` and ``categorical``) or, like any network written for a matrix, as
``x`` (batch, num_features) float32: the numeric columns followed by the categorical ones, one-hot up to
`MAX_ONE_HOT` ids each and as a single frequency rank in [0, 1] beyond. Where the data is images, the dictionary has
``image`` too, and a model with one input of another name takes the images alone, as float32 in [0, 255].
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
from search_spaces.catalogue import SPACES, SpaceError, check_space_suits, load_attribute
from search_spaces.context import TrainingContext
from search_spaces.image_context import ImageContext
from search_spaces.losses import MemberLoss, loss_for, loss_of
from search_spaces.quantiles import PinballLoss

MAX_ONE_HOT = 64

PROBABILITY_LOSSES = frozenset(
    {
        "binary_crossentropy",
        "binary_focal_crossentropy",
        "categorical_crossentropy",
        "categorical_focal_crossentropy",
        "kl_divergence",
        "sparse_categorical_crossentropy",
    }
)
"""Names of Keras losses that take probabilities unless told otherwise."""


_RAW_QUANTILES = (PinballLoss, MemberLoss, type(None))


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
        # KerasTuner keeps an attribute `_build` of its own.
        self._function = build

    def build(self, hp: keras_tuner.HyperParameters) -> Any:
        """Returns what the function returns."""
        return self._function(hp)


def load_space(name: str, context: TrainingContext) -> keras_tuner.HyperModel:
    """Returns the space called `name` for the data that `context` describes.

    Args:
        name: A key of `SPACES`, or ``module:attribute`` of a build function, a HyperModel or a HyperModel class.
        context: The encoded table, or the images.

    Raises:
        SpaceError: The space cannot be imported, is something else, or builds for another kind of data.
    """
    check_space_suits(name, has_images=isinstance(context, ImageContext))
    found: Any = load_attribute(SPACES.get(name, name))
    if name in SPACES:
        return found(context)
    if isinstance(found, keras_tuner.HyperModel):
        return found
    if isinstance(found, type) and issubclass(found, keras_tuner.HyperModel):
        parameters = inspect.signature(found).parameters
        try:
            return found(context=context) if "context" in parameters else found()
        except TypeError as error:
            raise SpaceError(f"cannot create {name}: {error}; expected a HyperModel that needs no arguments") from error
    if isinstance(found, type) or not callable(found):
        raise SpaceError(f"{name} is a {type(found).__name__}: expected a function build(hp) or a HyperModel")
    return UserSpace(found, reference=name)


def input_form(model: keras.Model) -> InputForm:
    """Returns how `model` takes the encoded table."""
    names = {tensor.name for tensor in getattr(model, "inputs", None) or []}
    return InputForm.COLUMNS if names and names <= {"image", "numeric", "categorical"} else InputForm.MATRIX


def arrange(encoded: dict[str, tf.Tensor], form: InputForm, context: TrainingContext) -> Any:
    """Returns the encoded table as a model takes it.

    Args:
        encoded: ``numeric`` (batch, num_numeric) float32 and ``categorical`` (batch, num_categorical) int32.
        form: How the model takes it.
        context: The encoded table.

    Returns:
        A dictionary of the kinds that the table has, or one matrix (batch, num_features) float32.
    """
    has_images = isinstance(context, ImageContext)
    if has_images and form is InputForm.MATRIX:
        return tf.cast(encoded["image"], tf.float32)
    if form is InputForm.COLUMNS:
        present = {
            "image": int(has_images),
            "numeric": context.num_numeric,
            "categorical": len(context.cardinalities),
        }
        return {name: encoded[name] for name, width in present.items() if width}
    parts = [encoded["numeric"]] if context.num_numeric else []
    for column, cardinality in enumerate(context.cardinalities):
        ids = encoded["categorical"][:, column]
        if cardinality <= MAX_ONE_HOT:
            parts.append(tf.one_hot(ids, cardinality))
        else:
            parts.append(tf.cast(ids, tf.float32)[:, tf.newaxis] / float(cardinality))
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)


def checked_model(
    built: Any, *, example: dict[str, tf.Tensor], context: TrainingContext
) -> tuple[keras.Model, int]:
    """Returns what a space built, built on its inputs and compiled, and the width of its output.

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
    if getattr(built, "loss", None) is None:
        optimizer = getattr(built, "optimizer", None) or keras.optimizers.AdamW(1e-3)
        built.compile(optimizer=optimizer, loss=_default_loss(built, output.shape[-1], context), jit_compile=False)
    return built, int(output.shape[-1])


def _default_loss(model: keras.Model, width: int, context: TrainingContext) -> Any:
    if answers_logits(model, context.task):
        return loss_of(context) if width == context.num_outputs else loss_for(width, classification=True)
    independent = width == 1 or context.task is Task.MULTILABEL
    return "binary_crossentropy" if independent else "sparse_categorical_crossentropy"


def answers_logits(model: keras.Model, task: Task) -> bool:
    """Returns whether a classifier answers logits rather than probabilities.

    The loss knows what it was told to take the answer for, and a softmax or sigmoid at the end of a functional model
    speaks for itself. The layers of a subclassed model need not be in the order of its ``call``, so one that has no
    loss of its own is taken to answer logits.
    """
    if not task.is_classification:
        # Quantiles are raw outputs for tamiz's own loss, and what they are for any other.
        return not _has_several_outputs(model) or isinstance(getattr(model, "loss", None), _RAW_QUANTILES)
    if _takes_logits(getattr(model, "loss", None)) is False:
        return False
    if not getattr(model, "outputs", None):
        return True
    last = _last_layer(model)
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    return not isinstance(last, keras.layers.Softmax) and activation not in ("softmax", "sigmoid")


def _has_several_outputs(model: keras.Model) -> bool:
    outputs = getattr(model, "outputs", None) or []
    return len(outputs) == 1 and (outputs[0].shape[-1] or 1) > 1


def _takes_logits(loss: Any) -> bool | None:
    """Returns whether a loss takes logits; None when it does not say."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if hasattr(loss, "from_logits"):
        return bool(loss.from_logits)
    name = getattr(loss, "__name__", None) or getattr(loss, "name", None)
    return False if name in PROBABILITY_LOSSES else None


def _last_layer(model: keras.Model) -> Any:
    """Returns the layer that answers, inside nested models too."""
    layers = [layer for layer in getattr(model, "layers", []) if not isinstance(layer, keras.layers.InputLayer)]
    last = layers[-1] if layers else None
    return _last_layer(last) if isinstance(last, keras.Model) else last


def wants_one_hot(model: keras.Model, num_outputs: int) -> bool:
    """Returns whether the loss of a classifier takes one-hot targets ``(batch, num_classes)``.

    Of Keras' own losses all do that compare several outputs and are not sparse; a loss of one's own gets class ids.

    Args:
        model: A compiled model.
        num_outputs: Width of its output.
    """
    loss = keras.losses.get(model.loss) if isinstance(model.loss, str) else model.loss
    name = getattr(loss, "__name__", type(loss).__name__)
    module = str(getattr(loss, "__module__", ""))
    return num_outputs > 1 and module.startswith("keras.") and not name.lower().startswith("sparse")
