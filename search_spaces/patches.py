"""Networks that cut an image into patches: transformers (``vit``) and mixers (``mixer``).

ViT: Dosovitskiy et al., ICLR 2021, with the convolutional stem of Xiao et al. (NeurIPS 2021) as a choice. MLP-Mixer:
Tolstikhin et al., NeurIPS 2021. Both know nothing of images beforehand and have to learn it from many: see
`search_spaces.catalogue.space_warning`.
"""

from __future__ import annotations

import abc
import math
from typing import Any, final

from keras import layers

from search_spaces.image import ImageSpace, declare_resolution, resized
from search_spaces.image_context import ImageContext
from search_spaces.layers.stochastic_depth import StochasticDepth
from search_spaces.layers.token_attention import Queries, TokenAttention
from search_spaces.layers.tokens import ClassToken, FeatureBias
from search_spaces.tabular import HyperParameters

PATCH_SIZES = (2, 4, 8, 16, 32)
FEWEST_PATCHES, MOST_PATCHES = 4, 256
"""Patches of an image that are worth searching; attention costs their square."""


def patch_sizes(context: ImageContext) -> list[int]:
    """Returns the sizes of patches that give a network between `FEWEST_PATCHES` and `MOST_PATCHES` of them.

    Args:
        context: The images.
    """
    numbers = {size: math.ceil(context.height / size) * math.ceil(context.width / size) for size in PATCH_SIZES}
    fitting = [size for size, number in numbers.items() if FEWEST_PATCHES <= number <= MOST_PATCHES]
    return fitting or [min(numbers, key=lambda size: abs(math.log(numbers[size] / 64)))]


class PatchSpace(ImageSpace, abc.ABC):
    """Tokens of patches, blocks that mix them, a mean or a class token."""

    usual_width = 64

    @abc.abstractmethod
    def declare_blocks(self, hp: HyperParameters) -> None:
        """Declares what is special about the blocks."""

    @abc.abstractmethod
    def block(self, tokens: Any, hp: HyperParameters, *, drop_rate: float, is_last: bool) -> Any:
        """Returns the tokens after one block."""

    def declare(self, hp: HyperParameters) -> None:
        """Declares patches, stem, width, depth, dropouts and blocks."""
        declare_resolution(hp, self.context)
        sizes = patch_sizes(self.context)
        hp.Choice("patch_size", sizes, default=sizes[len(sizes) // 2], ordered=True)
        hp.Choice("stem", ["patches", "convolutions"], default="convolutions")
        hp.Choice("width", [32, 64, 96, 128, 192], default=self.usual_width, ordered=True)
        hp.Int("depth", 1, 8, default=4)
        hp.Choice("hidden_factor", [2, 4], default=2)
        hp.Float("dropout", 0.0, 0.3, default=0.1)
        hp.Float("stochastic_depth", 0.0, 0.3, default=0.0)
        self.declare_blocks(hp)

    def features(self, pixels: Any, hp: HyperParameters) -> Any:
        """Returns the class token or the mean of all tokens after the last block, normalised."""
        tokens = self.tokens(_patches(resized(pixels, hp, self.context), hp), hp)
        depth, drop = hp.get("depth"), hp.get("stochastic_depth")
        for number in range(depth):
            rate = drop * number / max(depth - 1, 1)
            tokens = self.block(tokens, hp, drop_rate=rate, is_last=number == depth - 1)
        return layers.LayerNormalization(epsilon=1e-6)(self.pooled(tokens, hp))

    def tokens(self, patches: Any, hp: HyperParameters) -> Any:
        """Returns what the first block sees."""
        del hp
        return patches

    def pooled(self, tokens: Any, hp: HyperParameters) -> Any:
        """Returns one vector for all tokens."""
        del hp
        return layers.GlobalAveragePooling1D()(tokens)

    def hidden(self, tokens: Any, hp: HyperParameters, *, hidden_width: int) -> Any:
        """Returns tokens after a hidden layer of each, of the width that they had."""
        width = tokens.shape[-1]
        y = layers.Dense(hidden_width, activation="gelu", kernel_initializer="glorot_uniform")(tokens)
        y = layers.Dropout(hp.get("dropout"))(y) if hp.get("dropout") > 0 else y
        return layers.Dense(width)(y)


@final
class ViTSpace(PatchSpace):
    """Pre-norm transformers over patches."""

    def declare_blocks(self, hp: HyperParameters) -> None:
        """Declares heads and pooling."""
        hp.Choice("num_heads", [2, 4, 8], default=4, ordered=True)
        hp.Choice("pooling", ["mean", "class_token"], default="mean")

    def tokens(self, patches: Any, hp: HyperParameters) -> Any:
        """Returns patches with their places, behind a class token where one is asked for."""
        if hp.get("pooling") == "class_token":
            patches = ClassToken(name="class_token")(patches)
        return FeatureBias(name="positions")(patches)

    def block(self, tokens: Any, hp: HyperParameters, *, drop_rate: float, is_last: bool) -> Any:
        """Returns tokens that have looked at each other, and a hidden layer of each."""
        only_first = is_last and hp.get("pooling") == "class_token"
        attention = TokenAttention(
            hp.get("num_heads"), dropout=hp.get("dropout"), queries=Queries.FIRST if only_first else Queries.ALL
        )
        gathered = attention(layers.LayerNormalization(epsilon=1e-6)(tokens))
        tokens = _added(tokens[:, :1] if only_first else tokens, gathered, drop_rate)
        hidden_width = hp.get("hidden_factor") * hp.get("width")
        y = self.hidden(layers.LayerNormalization(epsilon=1e-6)(tokens), hp, hidden_width=hidden_width)
        return _added(tokens, y, drop_rate)

    def pooled(self, tokens: Any, hp: HyperParameters) -> Any:
        """Returns the class token, or the mean."""
        return layers.Flatten()(tokens) if hp.get("pooling") == "class_token" else super().pooled(tokens, hp)


@final
class MixerSpace(PatchSpace):
    """Hidden layers along the patches and along the channels, in turn."""

    def declare_blocks(self, hp: HyperParameters) -> None:
        """Declares the width of the layers along the patches, for each of them."""
        hp.Choice("patch_factor", [0.5, 1.0, 2.0], default=1.0, ordered=True)

    def block(self, tokens: Any, hp: HyperParameters, *, drop_rate: float, is_last: bool) -> Any:
        """Returns tokens after both layers."""
        del is_last
        num_patches = tokens.shape[1]
        y = layers.Permute((2, 1))(layers.LayerNormalization(epsilon=1e-6)(tokens))
        y = self.hidden(y, hp, hidden_width=max(4, round(hp.get("patch_factor") * num_patches)))
        tokens = _added(tokens, layers.Permute((2, 1))(y), drop_rate)
        hidden_width = hp.get("hidden_factor") * hp.get("width")
        y = self.hidden(layers.LayerNormalization(epsilon=1e-6)(tokens), hp, hidden_width=hidden_width)
        return _added(tokens, y, drop_rate)


def _patches(pixels: Any, hp: HyperParameters) -> Any:
    """Returns a vector of each patch, (batch, num_patches, width)."""
    size, width, x = hp.get("patch_size"), hp.get("width"), pixels
    if hp.get("stem") == "convolutions":
        # Convolutions of stride two make up the patch; they need half the epochs, and no care with the rate.
        for halving in range(int(math.log2(size)) - 1):
            x = layers.Conv2D(max(16, width >> (int(math.log2(size)) - 1 - halving)), 3, 2, padding="same")(x)
            x = layers.ReLU()(layers.LayerNormalization(epsilon=1e-6)(x))
        size = 2
    x = layers.Conv2D(width, size, size, padding="same", name="patches")(x)
    return layers.Reshape((x.shape[1] * x.shape[2], width))(x)


def _added(tokens: Any, branch: Any, drop_rate: float) -> Any:
    if drop_rate > 0:
        branch = StochasticDepth(drop_rate)(branch)
    return layers.Add()([tokens, branch])
