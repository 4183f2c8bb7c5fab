"""The blocks that convolutional networks are stacked of, made of Keras' own layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from keras import layers

from search_spaces.layers.feature_scale import FeatureScale
from search_spaces.layers.stochastic_depth import StochasticDepth

SQUEEZE_RATIO = 8
"""Channels for each of a squeeze: half of the 16 of Hu et al. (2018), whose networks are ten times as wide."""


class Block(StrEnum):
    """Kinds of blocks."""

    PLAIN = "plain"
    RESIDUAL = "residual"
    BOTTLENECK = "bottleneck"
    INVERTED = "inverted"
    DENSE = "dense"
    CONVNEXT = "convnext"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """What a block looks like.

    Attributes:
        width: Channels of its output.
        kernel: Pixels a side of its spatial convolutions.
        activation: Name of Keras' activation.
        normalisation: ``batch``, ``group`` or ``layer``.
        squeeze_excite: Whether channels are weighed by what the whole map shows (Hu et al., 2018).
        expansion: Hidden channels of an inverted residual for each of its input.
        growth_rate: Channels that a dense block adds.
        stride: 1, or 2 to halve height and width.
        drop_rate: Share of the rows whose residual branch is left out in training, in [0, 1).
    """

    width: int
    kernel: int
    activation: str
    normalisation: str
    squeeze_excite: bool = False
    expansion: int = 4
    growth_rate: int = 12
    stride: int = 1
    drop_rate: float = 0.0

    def at(self, *, width: int, stride: int, drop_rate: float) -> BlockShape:
        """Returns the shape of one block of a stage."""
        return replace(self, width=width, stride=stride, drop_rate=drop_rate)


def initializer_of(activation: str) -> str:
    """He for activations of the ReLU family, Glorot for none (He et al., 2015)."""
    return "glorot_uniform" if activation == "linear" else "he_normal"


def convolution(x: Any, width: int, *, kernel: int, stride: int = 1, use_bias: bool = False) -> Any:
    """Returns a convolution that pads with zeros; without a bias, since a normalisation follows."""
    convolve = layers.Conv2D(
        width, kernel, strides=stride, padding="same", use_bias=use_bias, kernel_initializer="he_normal"
    )
    return convolve(x)


def depthwise(x: Any, *, kernel: int, stride: int = 1) -> Any:
    """Returns a convolution of every channel by itself."""
    convolve = layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, depthwise_initializer="he_normal"
    )
    return convolve(x)


def normalised(x: Any, shape: BlockShape) -> Any:
    """Returns `x` normalised over the batch, over groups of channels of a picture, or over the channels of a pixel."""
    if shape.normalisation == "batch":
        # 0.99, Keras' default, needs hundreds of steps to forget its start: few images do not have them.
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    if shape.normalisation == "group":
        groups = next(number for number in (32, 16, 8, 4, 2, 1) if x.shape[-1] % number == 0 and x.shape[-1] >= number)
        return layers.GroupNormalization(groups, epsilon=1e-5)(x)
    return layers.LayerNormalization(epsilon=1e-5)(x)


def activated(x: Any, shape: BlockShape) -> Any:
    """Returns the activated map."""
    return layers.Activation(shape.activation)(x)


def squeezed(x: Any, shape: BlockShape) -> Any:
    """Returns the map with its channels weighed, where the shape asks for it (Hu et al., 2018, section 3)."""
    if not shape.squeeze_excite:
        return x
    channels = x.shape[-1]
    weight = layers.GlobalAveragePooling2D(keepdims=True)(x)
    weight = layers.Dense(max(4, channels // SQUEEZE_RATIO), activation="relu", kernel_initializer="he_normal")(weight)
    weight = layers.Dense(channels, activation="sigmoid")(weight)
    return layers.Multiply()([x, weight])


def _before(x: Any, shape: BlockShape) -> Any:
    return activated(normalised(x, shape), shape)


def _joined(x: Any, branch: Any, shape: BlockShape) -> Any:
    """Returns the branch added to the stream, which is projected where its shape changes."""
    if shape.stride > 1:
        x = layers.AveragePooling2D(shape.stride, padding="same")(x)
    if x.shape[-1] != branch.shape[-1]:
        x = convolution(x, branch.shape[-1], kernel=1)
    if shape.drop_rate > 0:
        branch = StochasticDepth(shape.drop_rate)(branch)
    return layers.Add()([x, branch])


def plain_block(x: Any, shape: BlockShape) -> Any:
    """Returns convolution, normalisation and activation, with a maximum over each window that is halved."""
    x = _before(convolution(x, shape.width, kernel=shape.kernel), shape)
    x = squeezed(x, shape)
    return layers.MaxPooling2D(shape.stride, padding="same")(x) if shape.stride > 1 else x


def residual_block(x: Any, shape: BlockShape) -> Any:
    """Returns two convolutions with pre-activation, added to the stream (He et al., ECCV 2016)."""
    y = convolution(_before(x, shape), shape.width, kernel=shape.kernel, stride=shape.stride)
    y = convolution(_before(y, shape), shape.width, kernel=shape.kernel)
    return _joined(x, squeezed(y, shape), shape)


def bottleneck_block(x: Any, shape: BlockShape) -> Any:
    """Returns a convolution between two of one pixel on a quarter of the channels (He et al., 2016), pre-activated."""
    hidden = max(8, shape.width // 4)
    y = convolution(_before(x, shape), hidden, kernel=1)
    y = convolution(_before(y, shape), hidden, kernel=shape.kernel, stride=shape.stride)
    y = convolution(_before(y, shape), shape.width, kernel=1)
    return _joined(x, squeezed(y, shape), shape)


def inverted_block(x: Any, shape: BlockShape) -> Any:
    """Returns a depthwise convolution on more channels than the stream has (Sandler et al., CVPR 2018)."""
    hidden = shape.expansion * x.shape[-1]
    y = _before(convolution(x, hidden, kernel=1), shape)
    y = _before(depthwise(y, kernel=shape.kernel, stride=shape.stride), shape)
    # Without an activation: a narrow layer that cuts off what is negative loses it for good (section 3.2).
    y = normalised(convolution(squeezed(y, shape), shape.width, kernel=1), shape)
    return _joined(x, y, shape)


def dense_block(x: Any, shape: BlockShape) -> Any:
    """Returns the stream with new channels beside it (Huang et al., CVPR 2017); halving also halves the channels."""
    if shape.stride > 1:
        x = convolution(_before(x, shape), max(8, x.shape[-1] // 2), kernel=1)
        x = layers.AveragePooling2D(shape.stride, padding="same")(x)
    y = convolution(_before(x, shape), 4 * shape.growth_rate, kernel=1)
    y = convolution(_before(y, shape), shape.growth_rate, kernel=shape.kernel)
    return layers.Concatenate()([x, squeezed(y, shape)])


def convnext_block(x: Any, shape: BlockShape) -> Any:
    """Returns depthwise convolution, norm, and a hidden layer of every pixel (Liu et al., CVPR 2022)."""
    if shape.stride > 1 or x.shape[-1] != shape.width:
        x = convolution(normalised(x, shape), shape.width, kernel=shape.stride, stride=shape.stride, use_bias=True)
    y = normalised(depthwise(x, kernel=shape.kernel), shape)
    y = layers.Dense(4 * shape.width, kernel_initializer="he_normal")(y)
    y = layers.Dense(shape.width)(squeezed(activated(y, shape), shape))
    # Branches start at nearly nothing, so that a deep stack starts as a shallow one.
    y = FeatureScale(0.1)(y)
    return _joined(x, y, replace(shape, stride=1))


BLOCKS: Mapping[Block, Callable[[Any, BlockShape], Any]] = {
    Block.PLAIN: plain_block,
    Block.RESIDUAL: residual_block,
    Block.BOTTLENECK: bottleneck_block,
    Block.INVERTED: inverted_block,
    Block.DENSE: dense_block,
    Block.CONVNEXT: convnext_block,
}
"""Kind of a block -> what builds it on top of a map (batch, height, width, channels)."""
