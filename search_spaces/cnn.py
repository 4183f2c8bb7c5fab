"""Convolutional networks for images, from a handful of parameters: stages of blocks that halve the image (``cnn``).

Each stage halves height and width while at least `MIN_MAP` pixels a side are left, and doubles the width. All that
is declared builds, whatever the size of the images.
"""

from __future__ import annotations

import math
from typing import Any, final

from keras import layers

from search_spaces.cnn_blocks import BLOCKS, Block, BlockShape, activated, convolution, initializer_of, normalised
from search_spaces.image import ImageSpace, declare_resolution, normalisations, resized
from search_spaces.image_context import most_stages
from search_spaces.tabular import HyperParameters

MIN_MAP = 4
"""Pixels a side from which on a map is halved."""

_RESIDUAL = [Block.RESIDUAL.value, Block.BOTTLENECK.value, Block.INVERTED.value, Block.CONVNEXT.value]


def map_sizes(height: int, width: int, *, stem_stride: int, num_stages: int) -> list[tuple[int, int]]:
    """Returns height and width of the map of every stage, the stem's halvings included.

    The first stage keeps what the stem made; each later one halves it where both sides are at least `MIN_MAP`.

    Args:
        height: Rows of pixels of the image.
        width: Columns of pixels.
        stem_stride: What the stem divides both by.
        num_stages: Stages.
    """
    size = (math.ceil(height / stem_stride), math.ceil(width / stem_stride))
    sizes = [size]
    for _ in range(num_stages - 1):
        size = (math.ceil(size[0] / 2), math.ceil(size[1] / 2)) if min(size) >= MIN_MAP else size
        sizes.append(size)
    return sizes


@final
class CNNSpace(ImageSpace):
    """Stem, stages of blocks, pooling and head."""

    def declare(self, hp: HyperParameters) -> None:
        """Declares stem, stages, blocks, widths, normalisation, pooling, head and dropout."""
        context, most = self.context, most_stages(self.context)
        declare_resolution(hp, context)
        hp.Choice("block", [block.value for block in Block], default=Block.RESIDUAL.value)
        strides = [stride for stride in (1, 2, 4) if min(context.height, context.width) >= 16 * (stride - 1)]
        if len(strides) > 1:
            # Full resolution at the full width is what costs most of the time of large images.
            usual = 1 if context.height * context.width <= 48**2 else 2
            hp.Choice("stem_stride", strides, default=usual, ordered=True)
        hp.Int("num_stages", 1, most, default=min(3, most))
        hp.Int("blocks_per_stage", 1, 4, default=1)
        hp.Choice("width", [8, 16, 24, 32, 48, 64], default=32, ordered=True)
        hp.Choice("width_growth", [1.0, 1.5, 2.0], default=2.0, ordered=True)
        hp.Choice("kernel", [3, 5, 7], default=3, ordered=True)
        with hp.conditional_scope("block", [Block.INVERTED.value]):
            hp.Choice("expansion", [2, 4, 6], default=4, ordered=True)
        with hp.conditional_scope("block", [Block.DENSE.value]):
            hp.Choice("growth_rate", [8, 12, 24, 32], default=12, ordered=True)
        with hp.conditional_scope("block", _RESIDUAL):
            hp.Float("stochastic_depth", 0.0, 0.3, default=0.0)
        hp.Boolean("squeeze_excite", default=False)
        kinds = normalisations(context)
        hp.Choice("normalisation", kinds, default=kinds[0])
        hp.Choice("activation", ["relu", "gelu", "silu"], default="relu")
        hp.Choice("pooling", ["average", "max", "flatten"], default="average")
        hp.Choice("head_units", [0, 64, 128, 256], default=0, ordered=True)
        hp.Float("dropout", 0.0, 0.5, default=0.1)

    def features(self, pixels: Any, hp: HyperParameters) -> Any:
        """Returns the pooled map of the last stage, after the head's dense layer if there is one."""
        context = self.context
        x = resized(pixels, hp, context)
        shape = _shape(hp)
        sizes = map_sizes(
            x.shape[1], x.shape[2], stem_stride=hp.values.get("stem_stride", 1), num_stages=hp.get("num_stages")
        )
        x = activated(normalised(_stem(x, hp), shape), shape)
        blocks, drop = hp.get("blocks_per_stage"), hp.values.get("stochastic_depth", 0.0)
        num_blocks = blocks * len(sizes)
        block, build = Block(hp.get("block")), BLOCKS[Block(hp.get("block"))]
        for stage, size in enumerate(sizes):
            halves = stage > 0 and size != sizes[stage - 1]
            width = _multiple_of_8(hp.get("width") * hp.get("width_growth") ** stage)
            for number in range(blocks):
                done = stage * blocks + number
                # The last branches are the ones least needed: their rate rises with depth.
                rate = drop * done / max(num_blocks - 1, 1)
                stride = 2 if halves and number == 0 else 1
                x = build(x, shape.at(width=width, stride=stride, drop_rate=rate))
        if block in (Block.RESIDUAL, Block.BOTTLENECK, Block.DENSE):
            # Pre-activation blocks leave the stream as it is: it is normalised where it ends (He et al., 2016, v2).
            x = activated(normalised(x, shape), shape)
        return _head(_pooled(x, hp.get("pooling")), hp)


def _shape(hp: HyperParameters) -> BlockShape:
    return BlockShape(
        width=hp.get("width"),
        kernel=hp.get("kernel"),
        activation=hp.get("activation"),
        normalisation=hp.get("normalisation"),
        squeeze_excite=hp.get("squeeze_excite"),
        expansion=hp.values.get("expansion", 4),
        growth_rate=hp.values.get("growth_rate", 12),
    )


def _stem(x: Any, hp: HyperParameters) -> Any:
    """Returns the first map, of the width of the first stage."""
    stride = hp.values.get("stem_stride", 1)
    # A ConvNeXt and whatever strides by four looks at patches; a stride of two still overlaps.
    kernel = max(3, stride)
    return convolution(x, _multiple_of_8(hp.get("width")), kernel=kernel, stride=stride)


def _pooled(x: Any, pooling: str) -> Any:
    """Returns a vector of each map, (batch, num_features)."""
    if pooling == "flatten" and x.shape[1] * x.shape[2] <= MIN_MAP**2:
        return layers.Flatten()(x)
    return layers.GlobalMaxPooling2D()(x) if pooling == "max" else layers.GlobalAveragePooling2D()(x)


def _head(x: Any, hp: HyperParameters) -> Any:
    """Returns the vector after dropout, and a hidden layer where one is asked for."""
    if hp.get("head_units"):
        activation = hp.get("activation")
        x = layers.Dense(hp.get("head_units"), kernel_initializer=initializer_of(activation))(x)
        x = layers.Activation(activation)(x)
    return layers.Dropout(hp.get("dropout"))(x) if hp.get("dropout") > 0 else x


def _multiple_of_8(width: float) -> int:
    """Returns a width that vector units and groups of eight divide."""
    return max(8, round(width / 8) * 8)
