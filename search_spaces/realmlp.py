"""RealMLP: a multilayer perceptron of which every part was tuned for tables (Holzmueller et al., NeurIPS 2024).

Defaults are those of RealMLP-TD, the authors' tuned ones, for classification and for regression. Its learning rate goes
through four cycles that are laid out for all epochs, so a trial of it is not given up inside a cycle.

Departures: the encoded numbers are standardised or mapped to a normal variable before the robust scaling, missing ones
are imputed with a flag beside them, and rare and unseen categories have a column of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import keras
from keras import layers

from search_spaces.embedding_rule import NUM_BUCKETS
from search_spaces.layers.categorical_embedding import CategoricalEmbedding
from search_spaces.layers.fading_dropout import FadingDropout
from search_spaces.layers.feature_scale import FeatureScale
from search_spaces.layers.ntk_dense import NtkDense
from search_spaces.layers.one_hot import OneHotColumns
from search_spaces.layers.parametric_activation import ParametricActivation
from search_spaces.layers.periodic_embedding import PeriodicEmbedding, PeriodicForm
from search_spaces.layers.robust_scale_smooth_clip import RobustScaleSmoothClip
from search_spaces.layers.selected_columns import SelectedColumns
from search_spaces.layers.target_range import TargetRange
from search_spaces.losses import loss_of
from search_spaces.optimizers import GroupedAdamW
from search_spaces.recipe import declare_epoch_share, learning_rate_factor, schedule_steps
from search_spaces.schedules import FlatCosine, LogCycles
from search_spaces.tabular import HyperParameters, TabularSpace

MAX_ONE_HOT = 8
"""Values of a categorical column up to which it becomes zeros and ones; more are embedded."""

EMBEDDING_SIZE = 8
BETA_2 = 0.95
NUMBER_SIZE = 4
"""Length of a number's vector."""

NUM_FREQUENCIES = 16

FRONT_SCALE, WAVES = "front_scale", "number_waves"

RATE_FACTORS: Mapping[str, float] = {FRONT_SCALE: 6.0, WAVES: 0.1, "/bias": 0.1, "/alpha": 0.1}
"""Part of a variable's path -> factor on its learning rate."""


@final
class RealMLPSpace(TabularSpace):
    """Scaled and embedded inputs, layers in the neural tangent parametrisation, cyclic rates (``realmlp``)."""

    usual_batch_size = 256

    def declare(self, hp: HyperParameters) -> None:
        """Declares layers, numeric embeddings, regularisation and the learning rate: the authors' search space."""
        classification = self.context.task.is_classification
        hp.Int("depth", 1, 5, default=3)
        hp.Choice("width", [64, 128, 256, 512], default=256, ordered=True)
        hp.Choice("activation", ["selu", "mish", "relu"], default="selu" if classification else "mish")
        if self.context.num_numeric:
            hp.Choice("numeric_embedding", [*(form.value for form in PeriodicForm), "none"], default="pbld")
            with hp.conditional_scope("numeric_embedding", [form.value for form in PeriodicForm]):
                hp.Float("frequency_scale", 0.05, 0.5, sampling="log", default=0.1)
        hp.Boolean("front_scale", default=True)
        hp.Float("dropout", 0.0, 0.4, default=0.15)
        declare_epoch_share(hp)
        hp.Float("learning_rate", 2e-2, 3e-1, sampling="log", default=0.04 if classification else 0.2)
        hp.Float("weight_decay", 1e-3, 5e-2, sampling="log", default=2e-2)
        if classification:
            # Smoothed labels help to find the right class, and spoil its probability and the order of rows.
            smoothing = 0.1 if self.context.judged_by_labels else 0.0
            hp.Choice("label_smoothing", [0.0, 0.1], default=smoothing, ordered=True)

    def output(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the output of layers of product, bias, activation and dropout."""
        x = self._features(inputs, hp)
        if hp.get("front_scale"):
            x = FeatureScale(name=FRONT_SCALE)(x)
        total_steps = schedule_steps(hp, self.context)
        for _ in range(hp.get("depth")):
            x = ParametricActivation(hp.get("activation"))(NtkDense(hp.get("width"))(x))
            if hp.get("dropout") > 0:
                x = FadingDropout(hp.get("dropout"), total_steps=total_steps)(x)
        # float32 even under mixed precision: a float16 softmax overflows.
        output = NtkDense(self.context.num_outputs, dtype="float32", name="head")(x)
        return TargetRange(dtype="float32", name="range")(output) if self.context.answers_values else output

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with Adam at a rate of each group of variables."""
        context = self.context
        total_steps = schedule_steps(hp, context)
        peak = learning_rate_factor(hp, context, adaptive=True) * hp.get("learning_rate")
        optimizer = GroupedAdamW(
            LogCycles(peak, total_steps=total_steps),
            factors=RATE_FACTORS,
            weight_decay=hp.get("weight_decay"),
            decay_schedule=FlatCosine(1.0, total_steps=total_steps),
            beta_2=BETA_2,
            epsilon=1e-8,
        )
        dense = [layer for layer in model.layers if isinstance(layer, NtkDense)]
        optimizer.exclude_from_weight_decay(var_list=[layer.bias for layer in dense])
        loss = loss_of(context, smoothing=hp.get("label_smoothing") if context.task.is_classification else 0.0)
        model.compile(optimizer=optimizer, loss=loss, jit_compile=False)

    def _features(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the features side by side, (batch, num_features)."""
        cardinalities, parts = self.context.cardinalities, []
        if "numeric" in inputs:
            numbers = RobustScaleSmoothClip()(inputs["numeric"])
            if hp.get("numeric_embedding") != "none":
                embed = PeriodicEmbedding(
                    NUMBER_SIZE,
                    form=hp.get("numeric_embedding"),
                    num_frequencies=NUM_FREQUENCIES,
                    frequency_scale=hp.get("frequency_scale"),
                    name=WAVES,
                )
                numbers = layers.Flatten()(embed(numbers))
            parts.append(numbers)
        few = [c for c, number in enumerate(cardinalities) if number <= MAX_ONE_HOT + NUM_BUCKETS]
        many = [c for c, number in enumerate(cardinalities) if number > MAX_ONE_HOT + NUM_BUCKETS]
        if few:
            hot = OneHotColumns([cardinalities[column] for column in few], signed=True)
            parts.append(RobustScaleSmoothClip()(hot(SelectedColumns(few)(inputs["categorical"]))))
        if many:
            vectors = CategoricalEmbedding([cardinalities[column] for column in many], size=EMBEDDING_SIZE, stddev=1.0)
            parts.append(vectors(SelectedColumns(many)(inputs["categorical"])))
        return parts[0] if len(parts) == 1 else layers.Concatenate()(parts)
