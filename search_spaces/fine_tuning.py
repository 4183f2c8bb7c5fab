"""How a network that begins with a trained one is trained: the head first, then what is below it, from the top.

A trained network keeps its statistics of batches as they are. Its weights stay as they are altogether (frozen), or
follow the head: first the head alone, then from the top to the bottom, a third of the network at a time, each at a rate
that is smaller than that of the part above it (Howard and Ruder, ACL 2018, sections 3.2 and 3.3). All of it happens in
the optimizer of one training, so that a paused trial goes on as any other does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from search_spaces.context import TrainingContext
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


def declare_fine_tuning(hp: HyperParameters, context: TrainingContext) -> None:
    """Declares the head's rate and how the backbone follows.

    Args:
        hp: Receives the parameters.
        context: The data; decides whether labels can be smoothed.
    """
    declare_epoch_share(hp)
    hp.Choice("fine_tuning", ["frozen", "staged"], default="staged")
    with hp.conditional_scope("fine_tuning", ["staged"]):
        hp.Float("backbone_rate", 0.01, 1.0, sampling="log", default=0.1)
        hp.Choice("frozen_share", [0.05, 0.1, 0.2], default=0.1, ordered=True)
    hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    hp.Float("weight_decay", 1e-6, 1e-1, sampling="log", default=1e-2)
    hp.Choice("schedule", ["cosine", "constant"], default="cosine")
    with hp.conditional_scope("schedule", ["cosine"]):
        hp.Float("warmup_share", 0.0, 0.2, default=0.05)
    if context.task.is_classification:
        hp.Choice("label_smoothing", [0.0, 0.05, 0.1], default=0.0, ordered=True)
    declare_focus(hp, context)


def hold(backbone: keras.Model, hp: HyperParameters) -> keras.Model:
    """Returns a trained backbone with everything frozen, or only its statistics of batches.

    Args:
        backbone: The network without its head.
        hp: Has what `declare_fine_tuning` declared.
    """
    backbone.trainable = hp.get("fine_tuning") == "staged"
    # Statistics of the few images here would replace those of many. Calling the backbone with training=False would
    # not keep them: a functional model hands its own mode on to all it is made of.
    for layer in _layers_of(backbone):
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return backbone


def compile_fine_tuning(model: keras.Model, hp: HyperParameters, context: TrainingContext) -> None:
    """Compiles with AdamW, whose rate and start differ from the head down to the first layers.

    Args:
        model: A network with one backbone, which is a model among its layers.
        hp: Has what `declare_fine_tuning` declared.
        context: The data.

    Raises:
        ValueError: The backbone has nothing to train.
    """
    total_steps = schedule_steps(hp, context)
    factors: dict[str, float] = {}
    first_steps: dict[str, int] = {}
    if hp.get("fine_tuning") == "staged":
        paths = _backbone_paths(model)
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


def _backbone_paths(model: keras.Model) -> list[str]:
    """Returns the paths of the backbone's trained variables, from its first layer to its last."""
    (backbone,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if not backbone.trainable_variables:
        raise ValueError(f"the backbone {backbone.name} has no trained variables: expected a network that has learned")
    return [variable.path for variable in backbone.trainable_variables]


def _layers_of(model: keras.Model) -> Iterator[Any]:
    """Yields all layers, those of models within the model too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers_of(layer)
        else:
            yield layer
