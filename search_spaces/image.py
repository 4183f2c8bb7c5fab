"""What every space of networks for images has in common: inputs, pixels, augmentation, head and training.

Networks take ``image`` (batch, height, width, channels) uint8 and bring the pixels to the scale of their layers
themselves, so that nothing stands between a decoder and the exported graph. Columns of a table that belong to the
images come as ``numeric`` and ``categorical``, encoded as for the spaces of tables, and are joined to what was seen in
the image before the last layer.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
import keras_tuner
from keras import layers

from search_spaces.augmentation import declare_augmentation
from search_spaces.catalogue import SpaceError
from search_spaces.context import TrainingContext
from search_spaces.image_context import ImageContext
from search_spaces.recipe import (
    compile_model,
    declare_balance,
    declare_batch_size,
    declare_epoch_share,
    declare_focus,
    declare_recipe,
)
from search_spaces.tabular import HyperParameters, declare_embedding, dense_head, joined_features

RESOLUTIONS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the decoded height and width that are worth searching."""

MIN_PIXELS = 24
"""Height and width below which an image is not made smaller."""

MIN_BATCH_NORM_ROWS = 8
"""Rows of a replica's batch below which statistics of a batch are noise."""


class ImageSpace(keras_tuner.HyperModel, abc.ABC):
    """A space of networks for one set of images; usable as any KerasTuner ``HyperModel``.

    Args:
        context: The images and the task.

    Raises:
        SpaceError: `context` is that of a table.
    """

    usual_batch_size = 64
    """What is tried first, or the nearest that the number of images allows."""

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(name=type(self).__name__)
        if not isinstance(context, ImageContext):
            raise SpaceError(
                f"{type(self).__name__} builds networks for images and the data is a table: expected a column of "
                f"images, or a space for tables, such as --space tabular"
            )
        self.context = context

    @abc.abstractmethod
    def declare(self, hp: HyperParameters) -> None:
        """Declares the architecture, without building a network."""

    @abc.abstractmethod
    def features(self, pixels: Any, hp: HyperParameters) -> Any:
        """Returns what is seen in images, (batch, num_features), of standardised ``pixels`` (batch, h, w, channels)."""

    def pixels(self, image: Any, hp: HyperParameters) -> Any:
        """Returns what `features` takes, of images (batch, height, width, channels) in [0, 255]."""
        del hp
        return standardised(image, self.context)

    def declare_training(self, hp: HyperParameters) -> None:
        """Declares how networks are trained."""
        declare_epoch_share(hp)
        declare_recipe(hp, self.context)
        declare_focus(hp, self.context)

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles a network with the recipe of `search_spaces.recipe`."""
        compile_model(model, hp, self.context)

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        """Declares every parameter, without building a network."""
        declare_batch_size(hp, self.context, default=self.usual_batch_size)
        declare_balance(hp, self.context)
        self.declare(hp)
        declare_embedding(hp, self.context)
        declare_augmentation(hp, self.context)
        self.declare_training(hp)

    def build(self, hp: HyperParameters) -> keras.Model:
        """Returns the compiled network that `hp` describes."""
        self.declare_hyperparameters(hp)
        context = self.context
        inputs: dict[str, Any] = {"image": keras.Input(context.image_shape, name="image", dtype="uint8")}
        if context.num_numeric:
            inputs["numeric"] = keras.Input((context.num_numeric,), name="numeric")
        if context.cardinalities:
            inputs["categorical"] = keras.Input((len(context.cardinalities),), name="categorical", dtype="int32")
        seen = self.features(self.pixels(inputs["image"], hp), hp)
        if len(inputs) > 1:
            seen = layers.Concatenate(name="joined")([seen, _columns(inputs, hp, context)])
        model = keras.Model(inputs, dense_head(seen, context))
        self.compile(model, hp)
        return model


def standardised(image: Any, context: ImageContext) -> Any:
    """Returns pixels (batch, height, width, channels) of mean 0 and deviation 1; of the range [-1, 1] if not measured.

    Args:
        image: (batch, height, width, channels) uint8.
        context: Knows mean and deviation.
    """
    mean = context.pixel_mean or (127.5,) * context.channels
    # An image of one colour has no deviation; one level of 255 is the least there can be.
    deviation = [max(value, 1.0) for value in context.pixel_deviation or (127.5,) * context.channels]
    offset = [-middle / spread for middle, spread in zip(mean, deviation, strict=True)]
    return layers.Rescaling([1.0 / spread for spread in deviation], offset, name="pixels")(image)


def declare_resolution(hp: HyperParameters, context: ImageContext) -> None:
    """Declares the share of height and width that networks look at, where images are large enough to be made smaller.

    Args:
        hp: Receives the parameter.
        context: The images.
    """
    shares = [share for share in RESOLUTIONS if share * min(context.height, context.width) >= MIN_PIXELS]
    if len(shares) > 1:
        hp.Choice("resolution", shares, default=1.0, ordered=True)


def resized(pixels: Any, hp: HyperParameters, context: ImageContext) -> Any:
    """Returns pixels at the declared resolution."""
    share = hp.values.get("resolution", 1.0)
    if share == 1.0:
        return pixels
    height, width = round(share * context.height), round(share * context.width)
    return layers.Resizing(height, width, antialias=True, name="resized")(pixels)


def normalisations(context: ImageContext) -> list[str]:
    """Returns the normalisations that suit the batches there are; the first one is tried first.

    Args:
        context: The images; the smallest batch of a replica decides.
    """
    rows = context.global_batch(min(context.batch_sizes())) // context.num_replicas
    return ["batch", "group", "layer"] if rows >= MIN_BATCH_NORM_ROWS else ["group", "layer"]


def _columns(inputs: dict[str, Any], hp: HyperParameters, context: ImageContext) -> Any:
    """Returns a hidden layer on the other columns, (batch, 64)."""
    columns = {name: tensor for name, tensor in inputs.items() if name != "image"}
    hidden = layers.Dense(64, kernel_initializer="he_normal", name="columns")(joined_features(columns, hp, context))
    return layers.ReLU()(layers.LayerNormalization(epsilon=1e-5)(hidden))
