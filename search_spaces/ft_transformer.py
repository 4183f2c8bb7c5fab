"""FT-Transformer: features as tokens of a transformer (Gorishniy et al., NeurIPS 2021).

Defaults and ranges are the authors', but for what two cores cannot train: a block costs eight multiply-adds a token and
square of the width, so widths and depths are those whose epoch stays within `EPOCH_WORK` on the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import keras
from keras import layers

from search_spaces.catalogue import SpaceError
from search_spaces.context import TableContext
from search_spaces.layers.categorical_embedding import CategoricalEmbedding
from search_spaces.layers.piecewise_linear_embedding import BinRule, PiecewiseLinearEmbedding
from search_spaces.layers.quantile_normal import QuantileNormal
from search_spaces.layers.token_attention import GatedLinearUnit, Queries, TokenAttention
from search_spaces.layers.tokens import ClassToken, FeatureBias, LinearEmbedding
from search_spaces.losses import loss_of
from search_spaces.optimizers import FusedAdamW
from search_spaces.recipe import CLIP_NORM, learning_rate_factor, learning_rate_schedule
from search_spaces.tabular import HyperParameters, TabularSpace, dense_head

NUM_HEADS = 8
WIDTHS = (32, 64, 96, 128, 192, 256, 320, 384)
USUAL_WIDTH, USUAL_BLOCKS = 192, 3
"""The authors' default."""

MAX_FEATURES = 160
"""Columns beyond which the attention of a batch alone takes gigabytes."""

EPOCH_WORK = 5e10
"""Multiply-adds of an epoch of two blocks of the largest width: about two seconds on two cores."""


def block_work(num_tokens: int, width: int) -> int:
    """Returns the multiply-adds that training a block takes for one row, forwards and backwards.

    Args:
        num_tokens: Tokens of a row, [CLS] included.
        width: Size of a token.
    """
    return 3 * (8 * num_tokens * width**2 + 2 * num_tokens**2 * width)


def widest_and_deepest(num_tokens: int, num_rows: int) -> tuple[int, int]:
    """Returns the largest width, whose epoch at two blocks takes at most `EPOCH_WORK`, and the most blocks, 1 to 4.

    Width comes first: it is what the authors' tuned networks differ in most. Blocks are as many as fit at the usual
    width, so the largest network of all takes at most twice that work.

    Args:
        num_tokens: Tokens of a row, [CLS] included.
        num_rows: Rows of an epoch.
    """
    fitting = [width for width in WIDTHS if 2 * num_rows * block_work(num_tokens, width) <= EPOCH_WORK]
    width = max(fitting, default=WIDTHS[0])
    blocks = int(EPOCH_WORK // (num_rows * block_work(num_tokens, min(width, USUAL_WIDTH))))
    return width, min(max(blocks, 1), 4)


@final
class FTTransformerSpace(TabularSpace):
    """Pre-norm transformers over the tokens of a row's features.

    Args:
        context: The table and the task.

    Raises:
        SpaceError: The table has more columns than attention can be paid to.
    """

    usual_batch_size = 256

    def __init__(self, context: TableContext) -> None:
        super().__init__(context)
        num_features = context.num_numeric + len(context.cardinalities)
        if num_features > MAX_FEATURES:
            raise SpaceError(
                f"the table has {num_features} encoded columns: expected at most {MAX_FEATURES} for ft_transformer, in "
                f"which every column looks at every other; search another space, such as --space resnet"
            )
        self._widest, self._deepest = widest_and_deepest(num_features + 1, context.num_training_rows)

    def declare(self, hp: HyperParameters) -> None:
        """Declares tokens, blocks, dropouts and the training."""
        widths = [width for width in WIDTHS if width <= self._widest]
        hp.Choice("width", widths, default=min(self._widest, USUAL_WIDTH), ordered=True)
        hp.Int("num_blocks", 1, max(self._deepest, 2), default=min(self._deepest, USUAL_BLOCKS))
        hp.Float("hidden_factor", 2 / 3, 8 / 3, default=4 / 3)
        hp.Choice("gate", ["relu", "gelu"], default="relu")
        if self.context.num_numeric:
            hp.Choice("numeric_embedding", ["linear", "piecewise"], default="linear")
            with hp.conditional_scope("numeric_embedding", ["piecewise"]):
                hp.Choice("num_bins", [8, 16, 32, 48], default=32, ordered=True)
                hp.Choice("bin_rule", [rule.value for rule in BinRule], default=BinRule.QUANTILE.value)
        # Wider networks of the authors drop more: 0.1 at a width of 96, 0.2 at 192, and half of it between the layers.
        usual = min(self._widest, USUAL_WIDTH) / 960
        hp.Float("attention_dropout", 0.0, 0.5, default=usual)
        hp.Float("hidden_dropout", 0.0, 0.5, default=usual / 2)
        hp.Choice("residual_dropout", [0.0, 0.05, 0.1, 0.2], default=0.0, ordered=True)
        # The authors train narrow networks no faster than wide ones, but without an end; epochs are counted here.
        hp.Float("learning_rate", 1e-5, 3e-3, sampling="log", default=1e-4 if self._widest >= USUAL_WIDTH else 5e-4)
        hp.Float("weight_decay", 1e-6, 1e-3, sampling="log", default=1e-5)
        hp.Choice("schedule", ["cosine", "constant"], default="constant")
        with hp.conditional_scope("schedule", ["cosine"]):
            hp.Float("warmup_share", 0.0, 0.2, default=0.05)

    def output(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns the output, read off the [CLS] token after the last block."""
        x = ClassToken(name="class_token")(self._tokens(inputs, hp))
        num_blocks = hp.get("num_blocks")
        for block in range(num_blocks):
            # The first attention sees the tokens as they are: with a norm there it learns much worse (section 3.3).
            x = _attend(x, hp, norm=block > 0, only_first=block == num_blocks - 1)
            x = _transform(x, hp)
        x = layers.ReLU()(_norm(layers.Flatten()(x)))
        return dense_head(x, self.context)

    def compile(self, model: keras.Model, hp: HyperParameters) -> None:
        """Compiles with AdamW; tokens, norms and biases do not decay."""
        context = self.context
        peak = learning_rate_factor(hp, context, adaptive=True) * hp.get("learning_rate")
        rate = learning_rate_schedule(hp, peak, context.total_steps(hp.get("batch_size")))
        decay = hp.get("weight_decay")
        optimizer = FusedAdamW(rate, weight_decay=decay, epsilon=1e-8, global_clipnorm=CLIP_NORM)
        decaying = [layer for layer in model.layers if isinstance(layer, (TokenAttention, layers.Dense))]
        kept = {v.path for layer in decaying for v in layer.trainable_variables if len(v.shape) > 1}
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if v.path not in kept])
        loss = loss_of(context)
        model.compile(optimizer=optimizer, loss=loss, jit_compile=False)

    def _tokens(self, inputs: Mapping[str, Any], hp: HyperParameters) -> Any:
        """Returns a token for every feature, (batch, num_features, width)."""
        context, width, parts = self.context, hp.get("width"), []
        if "numeric" in inputs:
            numbers = QuantileNormal()(inputs["numeric"])
            if hp.get("numeric_embedding") == "piecewise":
                embed: Any = PiecewiseLinearEmbedding(width, num_bins=hp.get("num_bins"), rule=hp.get("bin_rule"))
            else:
                embed = LinearEmbedding(width)
            parts.append(embed(numbers))
        if "categorical" in inputs:
            vectors = CategoricalEmbedding(context.cardinalities, size=width)(inputs["categorical"])
            tokens = layers.Reshape((len(context.cardinalities), width))(vectors)
            parts.append(FeatureBias()(tokens))
        return parts[0] if len(parts) == 1 else layers.Concatenate(axis=1)(parts)


def _attend(x: Any, hp: HyperParameters, *, norm: bool, only_first: bool) -> Any:
    """Returns tokens to which is added what they gather from each other."""
    attention = TokenAttention(
        NUM_HEADS,
        dropout=hp.get("attention_dropout"),
        queries=Queries.FIRST if only_first else Queries.ALL,
    )
    gathered = _dropped(attention(_norm(x) if norm else x), hp.get("residual_dropout"))
    return layers.Add()([x[:, :1] if only_first else x, gathered])


def _transform(x: Any, hp: HyperParameters) -> Any:
    """Returns tokens to which is added what a gated layer makes of each."""
    width = hp.get("width")
    hidden = round(width * hp.get("hidden_factor"))
    y = _dense(2 * hidden, inputs=width)(_norm(x))
    y = _dropped(GatedLinearUnit(hp.get("gate"))(y), hp.get("hidden_dropout"))
    y = _dense(width, inputs=hidden)(y)
    return layers.Add()([x, _dropped(y, hp.get("residual_dropout"))])


def _norm(x: Any) -> Any:
    return layers.LayerNormalization(epsilon=1e-5)(x)


def _dense(units: int, *, inputs: int) -> Any:
    """Returns a dense layer that starts as PyTorch's, uniform within one over the root of its inputs."""
    uniform = keras.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5)
    return layers.Dense(units, kernel_initializer=uniform, bias_initializer=uniform)


def _dropped(x: Any, rate: float) -> Any:
    return layers.Dropout(rate)(x) if rate > 0 else x
