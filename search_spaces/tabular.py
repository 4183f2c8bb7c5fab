"""Networks for tables: a plain or residual MLP, and the ResNet of Gorishniy et al. (NeurIPS 2021).

Inputs are the encoded table as a dictionary: ``numeric`` (batch, num_numeric) float32 and ``categorical``
(batch, num_categorical) int32; a kind that the table does not have is absent. Outputs are float32 logits
(batch, num_outputs), or the standardised target (batch, 1) of a regression.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import keras_tuner
from keras import layers

from search_spaces.context import TableContext, TrainingContext
from search_spaces.embedding_rule import embedding_lengths
from search_spaces.layers.categorical_embedding import CategoricalEmbedding
from search_spaces.layers.learned import learn_layers
from search_spaces.layers.periodic_embedding import PeriodicEmbedding
from search_spaces.layers.piecewise_linear_embedding import BinRule, PiecewiseLinearEmbedding
from search_spaces.recipe import compile_model, declare_balance, declare_batch_size, declare_recipe

HyperParameters: TypeAlias = keras_tuner.HyperParameters


class TabularSpace(keras_tuner.HyperModel, abc.ABC):
    """A space of networks for one encoded table; usable as any KerasTuner ``HyperModel``.

    The batch size is a parameter of every space and has one name in all, since it decides the data that a network is
    given; everything else is the space's own.

    Args:
        context: The table and the task.
    """

    usual_batch_size = 64
    """What is tried first, or the nearest that the table allows."""

    def __init__(self, context: TableContext) -> None:
        super().__init__(name=type(self).__name__)
        self.context = context

    @abc.abstractmethod
    def declare(self, hp: HyperParameters) -> None:
        """Declares everything but the batch size, without building a network."""

    @abc.abstractmethod
    def output(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the output (batch, num_outputs), float32, on top of ``numeric`` and ``categorical`` inputs."""

    @abc.abstractmethod
    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles a network with optimizer and loss."""

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        """Declares every parameter, without building a network."""
        declare_batch_size(hp, self.context, default=self.usual_batch_size)
        declare_balance(hp, self.context)
        self.declare(hp)

    def build(self, hp: HyperParameters) -> keras.Model:
        """Returns the compiled network that `hp` describes."""
        self.declare_hyperparameters(hp)
        inputs: dict[str, Any] = {}
        if self.context.num_numeric:
            inputs["numeric"] = keras.Input((self.context.num_numeric,), name="numeric")
        if self.context.cardinalities:
            inputs["categorical"] = keras.Input((len(self.context.cardinalities),), name="categorical", dtype="int32")
        model = keras.Model(inputs, self.output(inputs, hp))
        if self.context.sample is not None:
            learn_layers(model, self.context.sample)
        self.compile(model, hp)
        return model


def declare_embedding(hp: HyperParameters, context: TrainingContext) -> None:
    """Declares the length of the longest of the categories' vectors; by rule, columns of few categories have less."""
    if context.cardinalities:
        sizes = context.embedding_sizes()
        hp.Choice("embedding_size", sizes, default=min(8, sizes[-1]), ordered=True)


def joined_features(inputs: Mapping[str, Any], hp: HyperParameters, context: TrainingContext) -> Any:
    """Returns the numbers and the vectors of the categories side by side, (batch, num_features)."""
    parts = [inputs["numeric"]] if "numeric" in inputs else []
    if "categorical" in inputs:
        size = hp.get("embedding_size")
        lengths = embedding_lengths(context.cardinalities, size=size)
        embed = CategoricalEmbedding(context.cardinalities, size=size, lengths=lengths)
        parts.append(embed(inputs["categorical"]))
    return parts[0] if len(parts) == 1 else layers.Concatenate()(parts)


def declare_numeric_embedding(hp: HyperParameters, context: TableContext) -> None:
    """Declares how numbers are embedded where the table has numbers (Gorishniy et al., NeurIPS 2022)."""
    if not context.num_numeric:
        return
    hp.Choice("numeric_embedding", ["none", "piecewise", "periodic"], default="piecewise")
    with hp.conditional_scope("numeric_embedding", ["piecewise"]):
        hp.Choice("num_bins", [8, 16, 32, 64], default=32, ordered=True)
        hp.Choice("bin_rule", [rule.value for rule in BinRule], default=BinRule.QUANTILE.value)
    with hp.conditional_scope("numeric_embedding", ["periodic"]):
        hp.Float("frequency_scale", 0.01, 1.0, sampling="log", default=0.05)
    with hp.conditional_scope("numeric_embedding", ["piecewise", "periodic"]):
        hp.Choice("number_size", [4, 8, 16], default=8, ordered=True)


def embedded_numbers(inputs: Mapping[str, Any], hp: HyperParameters) -> dict[str, Any]:
    """Returns the inputs with the vectors of the numbers, side by side, for the numbers."""
    if "numeric" not in inputs or hp.get("numeric_embedding") == "none":
        return dict(inputs)
    if hp.get("numeric_embedding") == "piecewise":
        embed: Any = PiecewiseLinearEmbedding(
            hp.get("number_size"), num_bins=hp.get("num_bins"), rule=hp.get("bin_rule")
        )
    else:
        embed = PeriodicEmbedding(hp.get("number_size"), frequency_scale=hp.get("frequency_scale"))
    return {**inputs, "numeric": layers.Flatten()(embed(inputs["numeric"]))}


def dense_head(hidden: Any, context: TrainingContext) -> Any:
    """Returns the output (batch, num_outputs) on top of the last hidden layer."""
    # float32 even under mixed precision: a float16 softmax overflows.
    return layers.Dense(context.num_outputs, dtype="float32", name="head")(hidden)


def _initializer(activation: str) -> str:
    """He for the ReLU family, Glorot otherwise (He et al., 2015)."""
    return "he_normal" if activation in ("relu", "leaky_relu", "gelu") else "glorot_uniform"


def _normalise(x: Any, kind: str) -> Any:
    if kind == "batch":
        # 0.99, Keras' default, needs hundreds of steps to forget its start: small tables do not have them.
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.LayerNormalization(epsilon=1e-5)(x) if kind == "layer" else x


class MLPSpace(TabularSpace):
    """Dense layers of one width, with optional normalisation, dropout and residual connections."""

    def declare(self, hp: HyperParameters) -> None:
        """Declares depth, width, activation, normalisation, dropout, the residual connection and the training."""
        declare_embedding(hp, self.context)
        hp.Int("depth", 1, 4, default=2)
        hp.Choice("width", [16, 32, 64, 128, 256, 512], default=128, ordered=True)
        hp.Choice("activation", ["relu", "gelu", "leaky_relu"], default="relu")
        hp.Choice("normalisation", ["none", "batch", "layer"], default="batch")
        hp.Float("dropout", 0.0, 0.5, default=0.1)
        with hp.conditional_scope("depth", [2, 3, 4]):
            hp.Boolean("residual", default=False)
        declare_recipe(hp, self.context)

    def output(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the output of hidden layers of dense, normalisation, dropout and activation."""
        x = joined_features(inputs, hp, self.context)
        activation, normalisation = hp.get("activation"), hp.get("normalisation")
        for depth in range(hp.get("depth")):
            y = layers.Dense(
                hp.get("width"),
                # Batch normalisation brings its own shift.
                use_bias=normalisation != "batch",
                kernel_initializer=_initializer(activation),
            )(x)
            y = _normalise(y, normalisation)
            if hp.get("dropout") > 0:
                y = layers.Dropout(hp.get("dropout"))(y)
            y = layers.Activation(activation)(y)
            x = layers.Add()([x, y]) if depth and hp.get("residual") else y
        return dense_head(x, self.context)

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with the recipe of `search_spaces.recipe`."""
        compile_model(model, hp, self.context)


class ResNetSpace(TabularSpace):
    """Residual blocks with a normalised input (Gorishniy et al., 2021, section 3.2) on embedded numbers."""

    def declare(self, hp: HyperParameters) -> None:
        """Declares embeddings, blocks, widths, activation, normalisation, both dropouts and the training."""
        declare_embedding(hp, self.context)
        declare_numeric_embedding(hp, self.context)
        hp.Int("num_blocks", 1, 6, default=2)
        hp.Choice("width", [32, 64, 128, 256, 512], default=128, ordered=True)
        hp.Choice("hidden_factor", [1.0, 2.0, 4.0], default=2.0, ordered=True)
        hp.Choice("activation", ["relu", "gelu", "leaky_relu"], default="relu")
        hp.Choice("normalisation", ["batch", "layer"], default="batch")
        hp.Float("dropout", 0.0, 0.5, default=0.1)
        with hp.conditional_scope("num_blocks", [2, 3, 4, 5, 6]):
            hp.Float("residual_dropout", 0.0, 0.3, default=0.0)
        declare_recipe(hp, self.context)

    def output(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the output on the normalised, activated end of the residual stream."""
        width, activation = hp.get("width"), hp.get("activation")
        dropout = hp.get("dropout")
        residual_dropout = hp.get("residual_dropout") if hp.get("num_blocks") > 1 else 0.0
        x = layers.Dense(width)(joined_features(embedded_numbers(inputs, hp), hp, self.context))
        for _ in range(hp.get("num_blocks")):
            y = _normalise(x, hp.get("normalisation"))
            y = layers.Dense(round(width * hp.get("hidden_factor")), kernel_initializer=_initializer(activation))(y)
            y = layers.Activation(activation)(y)
            if dropout > 0:
                y = layers.Dropout(dropout)(y)
            y = layers.Dense(width)(y)
            if residual_dropout > 0:
                y = layers.Dropout(residual_dropout)(y)
            x = layers.Add()([x, y])
        return dense_head(layers.Activation(activation)(_normalise(x, hp.get("normalisation"))), self.context)

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with the recipe of `search_spaces.recipe`."""
        compile_model(model, hp, self.context)
