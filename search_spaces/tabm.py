"""TabM: many networks in one that share their matrices (Gorishniy, Kotelnikov, Babenko, ICLR 2025).

Its members are trained each by its own loss and answer with the average of their probabilities. Defaults are the
authors'; the number of members and the width, which on two cores would cost minutes an epoch, are scaled to the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, final

import keras
from keras import layers, ops

from pipelines.schema import Task
from search_spaces.context import TableContext
from search_spaces.layers.batch_ensemble import (
    Averaged,
    BatchEnsembleDense,
    MemberAverage,
    MemberDense,
    MemberScaling,
    ScalingStart,
)
from search_spaces.layers.categorical_embedding import CategoricalEmbedding
from search_spaces.layers.one_hot import OneHotColumns
from search_spaces.layers.piecewise_linear_embedding import PiecewiseLinearEmbedding
from search_spaces.layers.quantile_normal import QuantileNormal
from search_spaces.layers.selected_columns import SelectedColumns
from search_spaces.losses import MemberLoss, loss_of
from search_spaces.network_size import tabm_sizes, usual_tabm_size
from search_spaces.optimizers import FusedAdamW
from search_spaces.recipe import (
    CLIP_NORM,
    declare_epoch_share,
    learning_rate_factor,
    learning_rate_schedule,
    schedule_steps,
)
from search_spaces.tabular import HyperParameters, TabularSpace

MAX_ONE_HOT = 32
"""Ids of a categorical column up to which it becomes zeros and ones, as all of the authors' do; more are embedded."""

EMBEDDING_SIZE = 8
"""Length of the vector of a category with more ids."""

BIN_VECTORS = [4, 8, 16]
"""Lengths of the vector of a number."""

_DECAYED = (BatchEnsembleDense, MemberDense, layers.Dense)
"""Layers whose matrices decay; everything else only suffers from it."""


class Sharing(StrEnum):
    """What members share: the matrix of every layer (``tabm``), or whole layers behind input scales (``tabm-mini``)."""

    MATRICES = "matrices"
    LAYERS = "layers"


@final
class TabMSpace(TabularSpace):
    """Networks of members that share most of what they are.

    Args:
        context: The table and the task.
        sharing: What members share.
    """

    usual_batch_size = 256

    def __init__(self, context: TableContext, *, sharing: Sharing = Sharing.MATRICES) -> None:
        super().__init__(context)
        self.sharing = sharing

    def declare(self, hp: HyperParameters) -> None:
        """Declares members, blocks, numeric embeddings and the training."""
        members, width = usual_tabm_size(self.context.num_training_rows)
        most, widest = tabm_sizes(_most_inputs(self.context), shared_layers=self.sharing is Sharing.LAYERS)
        hp.Choice("members", most, default=min(members, most[-1]), ordered=True)
        hp.Int("num_blocks", 1, 4, default=2 if self.context.num_numeric else 3)
        hp.Choice("width", widest, default=min(width, widest[-1]), ordered=True)
        hp.Float("dropout", 0.0, 0.5, default=0.1)
        if self.context.num_numeric:
            hp.Choice("numeric_embedding", ["piecewise", "none"], default="piecewise")
            with hp.conditional_scope("numeric_embedding", ["piecewise"]):
                hp.Choice("num_bins", [8, 16, 32, 48, 96], default=48, ordered=True)
                hp.Choice("bin_vector", BIN_VECTORS, default=8, ordered=True)
        hp.Float("learning_rate", 1e-4, 5e-3, sampling="log", default=2e-3)
        hp.Float("weight_decay", 1e-5, 1e-1, sampling="log", default=3e-4)
        hp.Choice("schedule", ["cosine", "constant"], default="cosine")
        with hp.conditional_scope("schedule", ["cosine"]):
            declare_epoch_share(hp)
            hp.Float("warmup_share", 0.0, 0.2, default=0.0)

    def output(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the answer of all members."""
        features, chunks = self._features(inputs, hp)
        embedded = self.context.num_numeric > 0 and hp.get("numeric_embedding") == "piecewise"
        start = ScalingStart.NORMAL if embedded else ScalingStart.RANDOM_SIGNS
        build_hidden = _separate_layers if self.sharing is Sharing.MATRICES else _shared_layers
        hidden = build_hidden(features, hp, start=start, chunks=chunks)
        # float32 even under mixed precision: a float16 softmax overflows.
        outputs = MemberDense(self.context.num_outputs, dtype="float32", name="head")(hidden)
        return MemberAverage(_averaged(self.context), dtype="float32", name="average")(outputs)

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with AdamW and the mean of the members' losses."""
        context = self.context
        peak = learning_rate_factor(hp, context, adaptive=True) * hp.get("learning_rate")
        steps = schedule_steps(hp, context) if hp.get("schedule") == "cosine" else 1
        rate = learning_rate_schedule(hp, peak, steps)
        decay = hp.get("weight_decay")
        optimizer = FusedAdamW(rate, weight_decay=decay, epsilon=1e-8, global_clipnorm=CLIP_NORM)
        decayed = {v.path for layer in model.layers if isinstance(layer, _DECAYED) for v in [layer.kernel]}
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if v.path not in decayed])
        loss = MemberLoss(loss_of(context), num_outputs=context.num_outputs)
        model.compile(optimizer=optimizer, loss=loss, jit_compile=False)

    def _features(self, inputs: Mapping[str, Any], hp: HyperParameters) -> tuple[Any, tuple[int, ...]]:
        """Returns the features side by side (batch, num_features), and how many of them belong to each column."""
        context, parts, chunks = self.context, [], list[int]()
        if "numeric" in inputs:
            numbers = QuantileNormal()(inputs["numeric"])
            size = 1
            if hp.get("numeric_embedding") == "piecewise":
                size = hp.get("bin_vector")
                numbers = PiecewiseLinearEmbedding(size, num_bins=hp.get("num_bins"))(numbers)
                numbers = layers.Flatten()(numbers)
            parts.append(numbers)
            chunks += [size] * context.num_numeric
        if "categorical" in inputs:
            few = [c for c, number in enumerate(context.cardinalities) if number <= MAX_ONE_HOT]
            many = [c for c, number in enumerate(context.cardinalities) if number > MAX_ONE_HOT]
            if few:
                hot = OneHotColumns([context.cardinalities[column] for column in few])
                parts.append(hot(SelectedColumns(few)(inputs["categorical"])))
                chunks += hot.widths
            if many:
                embed = CategoricalEmbedding([context.cardinalities[column] for column in many], size=EMBEDDING_SIZE)
                parts.append(embed(SelectedColumns(many)(inputs["categorical"])))
                chunks += [EMBEDDING_SIZE] * len(many)
        return parts[0] if len(parts) == 1 else layers.Concatenate()(parts), tuple(chunks)


def tabm_mini(context: TableContext) -> TabMSpace:
    """Returns the space ``tabm-mini``: members differ in the scales of their input and in their heads."""
    return TabMSpace(context, sharing=Sharing.LAYERS)


def _most_inputs(context: TableContext) -> int:
    """Returns the most numbers that the first layer may see of a row."""
    categories = [number - 1 if number <= MAX_ONE_HOT else EMBEDDING_SIZE for number in context.cardinalities]
    return context.num_numeric * BIN_VECTORS[-1] + sum(categories)


def _separate_layers(features: Any, hp: HyperParameters, *, start: ScalingStart, chunks: tuple[int, ...]) -> Any:
    """Returns the last hidden layer of every member, (batch, num_members, width)."""
    x = features
    for block in range(hp.get("num_blocks")):
        dense = BatchEnsembleDense(
            hp.get("width"),
            num_members=hp.get("members"),
            start=ScalingStart.ONES if block else start,
            chunks=None if block else chunks,
        )
        x = _activated(dense(x), hp)
    return x


def _shared_layers(features: Any, hp: HyperParameters, *, start: ScalingStart, chunks: tuple[int, ...]) -> Any:
    """The same, of layers that all members share."""
    members, width = hp.get("members"), hp.get("width")
    x = MemberScaling(members, start=start, chunks=chunks)(features)
    # Members as further rows: one product for all, where Keras would multiply row by row.
    x = ops.reshape(x, (-1, x.shape[-1]))
    for _ in range(hp.get("num_blocks")):
        limit = x.shape[-1] ** -0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        x = _activated(layers.Dense(width, kernel_initializer=uniform, bias_initializer=uniform)(x), hp)
    return ops.reshape(x, (-1, members, width))


def _activated(x: Any, hp: HyperParameters) -> Any:
    x = layers.ReLU()(x)
    return layers.Dropout(hp.get("dropout"))(x) if hp.get("dropout") > 0 else x


def _averaged(context: TableContext) -> Averaged:
    """Returns what of the members' outputs is averaged."""
    if not context.task.is_classification:
        return Averaged.VALUES
    return Averaged.SOFTMAX if context.task is Task.MULTICLASS else Averaged.SIGMOID
