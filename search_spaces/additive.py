"""An additive model: every column says something by itself, and what they say adds up.

A generalised additive model (Hastie and Tibshirani, Statistical Science 1986): a piecewise-linear curve for every
number and a value for every category, fitted together under a squared penalty. It knows no interactions, which is what
it is for: on a few hundred rows it is often better than any network that has to learn that there are none, and where
networks are better it errs on other rows than they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import keras
from keras import layers, ops

from search_spaces.layers.categorical_embedding import CategoricalEmbedding
from search_spaces.layers.piecewise_linear_embedding import BinRule, PiecewiseLinearEmbedding
from search_spaces.layers.target_range import TargetRange
from search_spaces.layers.term_sum import TermSum
from search_spaces.losses import loss_of
from search_spaces.optimizers import FusedAdamW
from search_spaces.recipe import CLIP_NORM, declare_epoch_share, learning_rate_factor, schedule_steps
from search_spaces.schedules import WarmupCosine
from search_spaces.tabular import HyperParameters, TabularSpace

PRIOR_ROWS = 5.0
"""The penalty at default weighs as much as so many rows: scikit-learn's logistic regression with C = 0.1."""

LEAST_PENALTY, MOST_PENALTY = 1e-6, 0.1


@final
class AdditiveSpace(TabularSpace):
    """Curves of single numbers and values of single categories (``additive``)."""

    def declare(self, hp: HyperParameters) -> None:
        """Declares the curves, the penalty and the learning rate."""
        if self.context.num_numeric:
            hp.Choice("num_bins", [1, 4, 8, 16, 32], default=8, ordered=True)
            hp.Choice("bin_rule", [rule.value for rule in BinRule], default=BinRule.QUANTILE.value)
        usual = min(MOST_PENALTY, max(LEAST_PENALTY, PRIOR_ROWS / self.context.num_training_rows))
        hp.Float("penalty", LEAST_PENALTY, MOST_PENALTY, sampling="log", default=usual)
        declare_epoch_share(hp)
        hp.Float("learning_rate", 3e-3, 1e-1, sampling="log", default=2e-2)

    def output(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the sum of all terms."""
        outputs, terms = self.context.num_outputs, []
        if "numeric" in inputs:
            curves = PiecewiseLinearEmbedding(
                outputs, num_bins=hp.get("num_bins"), rule=hp.get("bin_rule"), dtype="float32", name="curves"
            )
            terms.append(layers.Flatten()(curves(inputs["numeric"])))
            _start_at_zero(curves.weight, curves.bias)
        if "categorical" in inputs:
            values = CategoricalEmbedding(self.context.cardinalities, size=outputs, dtype="float32", name="values")
            terms.append(values(inputs["categorical"]))
            _start_at_zero(values.matrix)
        joined = terms[0] if len(terms) == 1 else layers.Concatenate(dtype="float32")(terms)
        output = TermSum(outputs, dtype="float32", name="head")(joined)
        return TargetRange(dtype="float32", name="range")(output) if self.context.answers_values else output

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with Adam, the penalty in the loss: its optimum is that of penalised regression, not of decay."""
        rate = learning_rate_factor(hp, self.context, adaptive=True) * hp.get("learning_rate")
        schedule = WarmupCosine(rate, total_steps=schedule_steps(hp, self.context))
        for variable in model.trainable_variables:
            if variable.name != "bias":
                variable.regularizer = keras.regularizers.L2(hp.get("penalty"))
        optimizer = FusedAdamW(schedule, weight_decay=0.0, epsilon=1e-8, global_clipnorm=CLIP_NORM)
        model.compile(optimizer=optimizer, loss=loss_of(self.context), jit_compile=False)


def _start_at_zero(*variables: Any) -> None:
    """Lets terms begin with nothing to say: a random curve of every column would first have to be unlearned."""
    for variable in variables:
        variable.assign(ops.zeros_like(variable))
