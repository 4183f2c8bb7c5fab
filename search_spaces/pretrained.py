"""Trained networks with a new head (``pretrained``), and the networks of Keras Applications at random (``backbone``).

What ``pretrained`` begins with are networks of Keras Applications with ImageNet weights or, where an earlier search on
images is named, the network that it ended with. How they are trained stands in `search_spaces.fine_tuning`.
"""

from __future__ import annotations

from typing import Any, final

import keras
from keras import layers

from search_spaces.backbones import BACKBONES, MIN_SIDE, backbones_with_weights, build_backbone, prepared
from search_spaces.context import TrainingContext
from search_spaces.fine_tuning import compile_fine_tuning, declare_fine_tuning, hold
from search_spaces.image import ImageSpace
from search_spaces.image_context import ImageContext
from search_spaces.tabular import HyperParameters
from search_spaces.trained_backbone import is_network, load_backbone, sized

SIDES = (32, 48, 64, 96, 128, 160, 192, 224)


class BackboneSpace(ImageSpace):
    """A backbone, pooling, dropout and a new last layer.

    Args:
        context: The images and the task.

    Raises:
        SpaceError: `context` is that of a table, or weights are wanted and there are none.
    """

    is_pretrained = False

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        self._names = backbones_with_weights(self.context.backbone) if self.is_pretrained else list(BACKBONES)

    def declare(self, hp: HyperParameters) -> None:
        """Declares the backbone, what it looks at, and dropout."""
        hp.Choice("backbone", self._names, default=self._names[0])
        side = max(min(self.context.height, self.context.width), MIN_SIDE)
        # Small images are worth enlarging for weights that know large ones; to enlarge for none is waste.
        most = max(side, 96) if self.is_pretrained else side
        sides = [each for each in SIDES if MIN_SIDE <= each <= most]
        hp.Choice("side", sides, default=sides[-1], ordered=True)
        hp.Choice("pooling", ["average", "max"], default="average")
        hp.Float("dropout", 0.0, 0.5, default=0.2)

    def pixels(self, image: Any, hp: HyperParameters) -> Any:
        """Returns what the backbone's own preprocessing makes of images."""
        side, context = hp.get("side"), self.context
        if (context.height, context.width) != (side, side):
            image = layers.Resizing(side, side, antialias=True, name="resized")(image)
        return prepared(image, hp.get("backbone"))

    def features(self, pixels: Any, hp: HyperParameters) -> Any:
        """Returns the pooled map of the backbone."""
        name, shape = hp.get("backbone"), pixels.shape[1:]
        if self.is_pretrained:
            x = hold(build_backbone(name, image_shape=shape, weights=self.context.backbone), hp)(pixels)
        else:
            x = build_backbone(name, image_shape=shape, weights=None)(pixels)
        x = layers.GlobalMaxPooling2D()(x) if hp.get("pooling") == "max" else layers.GlobalAveragePooling2D()(x)
        return layers.Dropout(hp.get("dropout"))(x) if hp.get("dropout") > 0 else x


@final
class RandomBackboneSpace(BackboneSpace):
    """The backbones from a random start."""


@final
class PretrainedSpace(BackboneSpace):
    """The backbones from ImageNet weights."""

    is_pretrained = True

    def declare_training(self, hp: HyperParameters) -> None:
        """Declares the head's rate and how the backbone follows."""
        declare_fine_tuning(hp, self.context)

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with AdamW, whose rate and start differ from the head down to the first layers."""
        compile_fine_tuning(model, hp, self.context)


@final
class TrainedBackboneSpace(ImageSpace):
    """The network that an earlier search on images ended with, without its head.

    Its preprocessing is part of it, so it takes images as they are, at the size that it has learned from.

    Args:
        context: The images and the task; knows the file of the network.

    Raises:
        SpaceError: The file cannot be read, or holds no network that takes such images.
    """

    def declare(self, hp: HyperParameters) -> None:
        """Declares dropout; the architecture is there."""
        hp.Float("dropout", 0.0, 0.5, default=0.1)

    def declare_training(self, hp: HyperParameters) -> None:
        """Declares the head's rate and how the backbone follows."""
        declare_fine_tuning(hp, self.context)

    def pixels(self, image: Any, hp: HyperParameters) -> Any:
        """Returns images as they are."""
        del hp
        return image

    def features(self, pixels: Any, hp: HyperParameters) -> Any:
        """Returns what the earlier network sees in images."""
        backbone = load_backbone(self.context.backbone)
        x = hold(backbone, hp)(sized(pixels, backbone))
        return layers.Dropout(hp.get("dropout"))(x) if hp.get("dropout") > 0 else x

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with AdamW, whose rate and start differ from the head down to the first layers."""
        compile_fine_tuning(model, hp, self.context)


def pretrained_space(context: TrainingContext) -> ImageSpace:
    """Returns the space that suits what is there to begin with.

    Args:
        context: The images and the task; names a file to begin with where one was asked for.

    Raises:
        SpaceError: `context` is that of a table, or there is nothing to begin with.
    """
    begins_with_network = isinstance(context, ImageContext) and is_network(context.backbone)
    return TrainedBackboneSpace(context) if begins_with_network else PretrainedSpace(context)
