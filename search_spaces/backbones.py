"""Networks of Keras Applications that an image space builds on, and the files that hold their weights (TensorFlow).

Nothing is downloaded here: a search must not depend on a network, and a trial must not wait for one. Weights are read
from the folder in which Keras itself keeps them, where a file may also be put by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers

from search_spaces.catalogue import SpaceError

MIN_SIDE = 32
"""Pixels a side below which a backbone has nothing left to halve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A network without its last layer.

    Attributes:
        build: Builds it; arguments as of `keras.applications`.
        file: What Keras calls the file of its ImageNet weights.
        scales_itself: Whether pixels in [0, 255] are what it takes; otherwise it takes [-1, 1].
    """

    build: Callable[..., keras.Model]
    file: str
    scales_itself: bool = True


BACKBONES: Mapping[str, Backbone] = {
    "mobilenet_v3_small": Backbone(
        build=keras.applications.MobileNetV3Small, file="weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    ),
    "mobilenet_v3_large": Backbone(
        build=keras.applications.MobileNetV3Large, file="weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"
    ),
    "efficientnet_v2_b0": Backbone(build=keras.applications.EfficientNetV2B0, file="efficientnetv2-b0_notop.h5"),
    "convnext_tiny": Backbone(build=keras.applications.ConvNeXtTiny, file="convnext_tiny_notop.h5"),
    "resnet50_v2": Backbone(
        build=keras.applications.ResNet50V2,
        file="resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        scales_itself=False,
    ),
}
"""Name of a backbone, the lightest first."""


def weights_folder() -> Path:
    """Returns the folder in which Keras keeps weights: ``$KERAS_HOME/models``, or ``~/.keras/models``."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def backbone_of_file(file: str) -> str:
    """Returns the backbone whose weights a file holds, by the name that Keras gives it.

    Args:
        file: Its path.

    Raises:
        SpaceError: It is none of them.
    """
    for name, backbone in BACKBONES.items():
        if Path(file).name == backbone.file:
            return name
    raise SpaceError(
        f"{file} is no file of weights that is known: expected one of "
        f"{', '.join(backbone.file for backbone in BACKBONES.values())}, under the name that Keras gives it"
    )


def backbones_with_weights(file: str = "") -> list[str]:
    """Returns the backbones whose weights are on this machine.

    Args:
        file: Weights of the only one that is wanted; empty for all that Keras keeps.

    Raises:
        SpaceError: There are none; the message says which files are looked for and how to get them.
    """
    if file:
        return [backbone_of_file(file)]
    folder = weights_folder()
    found = [name for name, backbone in BACKBONES.items() if (folder / backbone.file).is_file()]
    if found:
        return found
    first = next(iter(BACKBONES.values()))
    raise SpaceError(
        f"no pretrained weights in {folder}: expected at least one of "
        f"{', '.join(backbone.file for backbone in BACKBONES.values())}. Where there is a network, python -c 'import "
        f'keras; keras.applications.{first.build.__name__}(include_top=False, weights="imagenet")\' gets the first; '
        f"copy the file otherwise, or search the same networks from a random start with --space backbone"
    )


def build_backbone(name: str, *, image_shape: tuple[int, int, int], weights: str | None) -> keras.Model:
    """Returns a backbone that turns images (batch, height, width, 3) into maps.

    Args:
        name: A key of `BACKBONES`.
        image_shape: ``(height, width, 3)``, at least `MIN_SIDE` pixels a side.
        weights: File of its weights; empty for the one that Keras keeps, None for a random start.

    Raises:
        SpaceError: The file of weights is missing or is no such file.
    """
    backbone = BACKBONES[name]
    model = backbone.build(include_top=False, weights=None, input_shape=image_shape)
    if weights is not None:
        path = Path(weights or weights_folder() / backbone.file)
        try:
            model.load_weights(path)
        except (OSError, ValueError) as error:
            raise SpaceError(f"cannot read the weights of {name} from {path}: {error}") from error
    return model


def prepared(image: Any, name: str) -> Any:
    """Returns images as a backbone wants them: three channels, in the range that its weights were trained with.

    Args:
        image: (batch, height, width, 1 or 3) in [0, 255].
        name: A key of `BACKBONES`.
    """
    scale, offset = (1.0, 0.0) if BACKBONES[name].scales_itself else (1.0 / 127.5, -1.0)
    pixels = layers.Rescaling(scale, offset, name="pixels")(image)
    return layers.Concatenate(name="colours")([pixels] * 3) if image.shape[-1] == 1 else pixels
