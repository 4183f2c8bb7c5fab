"""Networks of Keras Applications with a new head: from ImageNet weights (``pretrained``) or at random (``backbone``).

A pretrained network keeps its statistics of batches as they are. Its weights stay as they are altogether (frozen), or
follow the head: first the head alone, then from the top to the bottom, a third of the network at a time, each at a rate
that is smaller than that of the part above it (Howard and Ruder, ACL 2018, sections 3.2 and 3.3). All of it happens in
the optimizer of one training, so that a paused trial goes on as any other does.
"""

from __future__ import annotations

from typing import Any, final

import keras
from keras import layers

from search_spaces.backbones import BACKBONES, MIN_SIDE, backbones_with_weights, build_backbone, prepared
from search_spaces.context import TrainingContext
from search_spaces.image import ImageSpace
from search_spaces.optimizers import GroupedAdamW
from search_spaces.recipe import (
    CLIP_NORM,
    compile_model,
    declare_epoch_share,
    declare_focus,
    learning_rate_factor,
    learning_rate_schedule,
    schedule_steps,
)
from search_spaces.tabular import HyperParameters

NUM_GROUPS = 3
"""Parts of a backbone that are set free one after the other."""

RATE_RATIO = 0.4
"""Learning rate of a part for that of the part above it: the 1 / 2.6 of Howard and Ruder."""

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
        self._names = backbones_with_weights() if self.is_pretrained else list(BACKBONES)

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
        backbone = build_backbone(hp.get("backbone"), image_shape=pixels.shape[1:], pretrained=self.is_pretrained)
        if self.is_pretrained:
            backbone.trainable = hp.get("fine_tuning") == "staged"
            # Statistics of the few images here would replace those of a million. Calling the backbone with
            # training=False would not keep them: a functional model hands its own mode on to all it is made of.
            for layer in backbone.layers:
                if isinstance(layer, layers.BatchNormalization):
                    layer.trainable = False
        x = backbone(pixels)
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
        declare_epoch_share(hp)
        hp.Choice("fine_tuning", ["frozen", "staged"], default="staged")
        with hp.conditional_scope("fine_tuning", ["staged"]):
            hp.Float("backbone_rate", 0.01, 0.3, sampling="log", default=0.1)
            hp.Choice("frozen_share", [0.05, 0.1, 0.2], default=0.1, ordered=True)
        hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
        hp.Float("weight_decay", 1e-6, 1e-1, sampling="log", default=1e-2)
        hp.Choice("schedule", ["cosine", "constant"], default="cosine")
        with hp.conditional_scope("schedule", ["cosine"]):
            hp.Float("warmup_share", 0.0, 0.2, default=0.05)
        if self.context.task.is_classification:
            hp.Choice("label_smoothing", [0.0, 0.05, 0.1], default=0.0, ordered=True)
        declare_focus(hp, self.context)

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with AdamW, whose rate and start differ from the head down to the first layers."""
        context, total_steps = self.context, schedule_steps(hp, self.context)
        factors: dict[str, float] = {}
        first_steps: dict[str, int] = {}
        if hp.get("fine_tuning") == "staged":
            paths = self._backbone_paths(model, hp.get("backbone"))
            for number, path in enumerate(paths):
                below = NUM_GROUPS - 1 - number * NUM_GROUPS // len(paths)
                factors[path] = hp.get("backbone_rate") * RATE_RATIO**below
                first_steps[path] = round(hp.get("frozen_share") * (below + 1) * total_steps)
        peak = learning_rate_factor(hp, context, adaptive=True) * hp.get("learning_rate")
        optimizer = GroupedAdamW(
            learning_rate_schedule(hp, peak, total_steps),
            factors=factors,
            first_steps=first_steps,
            weight_decay=hp.get("weight_decay"),
            epsilon=1e-8,
            global_clipnorm=CLIP_NORM,
        )
        compile_model(model, hp, context, optimizer=optimizer)

    def _backbone_paths(self, model: keras.Model, name: str) -> list[str]:
        """Returns the paths of the backbone's trained variables, from its first layer to its last."""
        (backbone,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
        if not backbone.trainable_variables:
            raise ValueError(f"the backbone {name} has no trained variables")
        return [variable.path for variable in backbone.trainable_variables]
