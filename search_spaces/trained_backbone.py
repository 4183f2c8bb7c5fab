"""The network of an earlier search on images as a backbone: loaded in Keras' safe mode, without its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import layers

from search_spaces.catalogue import SpaceError

PREFIX = "backbone"


def is_network(file: str) -> bool:
    """Returns whether a file to begin with is a whole network, and not weights alone.

    Args:
        file: Its path; empty for none.
    """
    return file.endswith(".keras")


def load_backbone(file: str) -> keras.Model:
    """Returns a saved network from its images to what its last layer looked at.

    Its layers get names of their own, so that none is like one of the network that is built on it. Where images were
    joined with columns of a table, only what it saw in the images is left.

    Args:
        file: A ``.keras`` file with a functional model.

    Raises:
        SpaceError: The file cannot be read, or is no network for images with a last layer on features.
    """
    try:
        saved: Any = keras.models.load_model(file, safe_mode=True, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise SpaceError(f"cannot load the backbone {Path(file).name}: {error}") from error
    image = _image_input(saved)
    seen = None if image is None else _before_head(saved)
    if seen is None or len(seen.shape) != 2:
        raise SpaceError(
            "the network of the earlier run cannot be a backbone: expected one that takes images and ends with a Dense "
            "layer on a vector (batch, num_features), as all networks of the spaces for images do"
        )
    cut = keras.Model(image, seen)
    named = keras.models.clone_model(cut, clone_function=_renamed)
    named.set_weights(cut.get_weights())
    named.name = PREFIX
    return named


def sized(image: Any, backbone: keras.Model) -> Any:
    """Returns images at the size that a backbone has learned from.

    Args:
        image: (batch, height, width, channels) uint8.
        backbone: What `load_backbone` returned.

    Raises:
        SpaceError: The images have another number of channels.
    """
    height, width, channels = backbone.input_shape[1:]
    if image.shape[-1] != channels:
        raise SpaceError(
            f"the images have {image.shape[-1]} channels and the backbone has learned from {channels}: expected equal "
            f"ones, see the setting colour of [images]"
        )
    if tuple(image.shape[1:3]) == (height, width):
        return image
    resized = layers.Resizing(height, width, antialias=True, name="resized")(image)
    # The backbone takes whole numbers, and to cut off the rest would make every image half a level darker.
    return keras.ops.cast(keras.ops.round(resized), "uint8")


def _image_input(model: Any) -> Any:
    """Returns the input that takes the images; None where there is none."""
    if not isinstance(model, keras.Model) or not isinstance(getattr(model, "inputs", None), list):
        return None
    images = [tensor for tensor in model.inputs if len(tensor.shape) == 4]
    return images[0] if len(images) == 1 else None


def _before_head(model: Any) -> Any:
    """Returns what the last Dense layer takes, dropout aside; None where there is no such layer."""
    if len(model.outputs) != 1:
        return None
    layer = _maker(model.outputs[0])
    while isinstance(layer, (layers.Activation, layers.Softmax)):
        layer = _maker(layer.input)
    if not isinstance(layer, layers.Dense):
        return None
    seen = layer.input
    joined = _maker(seen)
    if isinstance(joined, layers.Concatenate) and joined.name == "joined":
        seen = joined.input[0]
    while isinstance(_maker(seen), layers.Dropout):
        seen = _maker(seen).input
    return seen


def _maker(tensor: Any) -> Any:
    """Returns the layer that a symbolic tensor comes from."""
    return tensor._keras_history.operation


def _renamed(layer: Any) -> Any:
    config = _free(layer.get_config())
    return type(layer).from_config({**config, "name": f"{PREFIX}_{layer.name}"})


def _free(config: Any) -> Any:
    """Returns a configuration in which nothing is frozen: whether it is now, the later search decides."""
    if isinstance(config, dict):
        return {key: True if key == "trainable" else _free(value) for key, value in config.items()}
    return [_free(item) for item in config] if isinstance(config, list) else config
