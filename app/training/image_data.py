"""The images of an experiment in a worker: decoded once if they fit into memory, else when needed (TensorFlow)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from app.errors import TamizError
from app.evaluation.baselines import IMAGE_PATH, EncodedRows
from app.image_config import ImageCache, MirrorImages
from app.memory import total_memory
from pipelines.encoder import Encoder
from pipelines.errors import DataError
from pipelines.image_decoder import ImageDecoder
from pipelines.image_files import PATH_COLUMN
from pipelines.image_references import image_places, is_image_file
from pipelines.raw_columns import raw_column
from pipelines.schema import DatasetSchema, FeatureKind

MEMORY_SHARE = 0.15
"""Share of the machine's memory that decoded images may take; a worker holds them about twice while it trains."""

SAMPLE_IMAGES = 2_000
"""Images that mean and deviation of the pixels are measured on."""

_SYMBOL = re.compile(r"(?i:left|right|links|rechts|[a-z]|\d+|digit.?\d|(?:upper|lower|letter|number).?\w)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What spaces are told of the training images.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        channels: 1 (grey) or 3 (RGB).
        pixel_mean: Mean of every channel, in [0, 255].
        pixel_deviation: Standard deviation of every channel.
        may_flip: Whether an image and its mirror image mean the same.
    """

    height: int
    width: int
    channels: int
    pixel_mean: tuple[float, ...]
    pixel_deviation: tuple[float, ...]
    may_flip: bool


def encode_with_images(
    table: pa.Table, schema: DatasetSchema, encoder: Encoder, *, cache: ImageCache
) -> dict[str, NDArray[Any]]:
    """Returns the encoded features of a table with images.

    Args:
        table: The rows.
        schema: The columns.
        encoder: Raw columns -> encoded features.
        cache: Whether images are decoded now or stay encoded.

    Returns:
        ``numeric``, ``categorical``, and ``image``: (num_rows, height, width, channels) uint8, or what `encoded_images`
        returns.

    Raises:
        TamizError: An image cannot be decoded.
    """
    (decoder,) = encoder.images.values()
    others = [feature for feature in schema.used_features if feature.kind is not FeatureKind.IMAGE]
    found: dict[str, NDArray[Any]] = {
        "numeric": np.zeros((table.num_rows, 0), np.float32),
        "categorical": np.zeros((table.num_rows, 0), np.int32),
    }
    if others:
        found = encoder.encode_in_batches({feature.name: raw_column(table, feature) for feature in others})
    fits = table.num_rows * decoder.encoding.num_bytes <= MEMORY_SHARE * total_memory()
    if cache is ImageCache.DECODED or (cache is ImageCache.AUTO and fits):
        found["image"] = decoded_column(decoder, table)
    else:
        found["image"] = encoded_images(table, encoder)
    return found


def encoded_images(table: pa.Table, encoder: Encoder) -> NDArray[Any]:
    """Returns the images of a table as they are stored, (num_rows,): objects of bytes, or places on disk."""
    (name,) = encoder.images
    if is_image_file(table.schema.field(name).type):
        return image_places(table.column(name))
    return np.asarray(table.column(name).combine_chunks().to_numpy(zero_copy_only=False), dtype=object)


def decoded_column(decoder: ImageDecoder, table: pa.Table) -> NDArray[np.uint8]:
    """Returns the images of a table, (num_rows, height, width, channels) uint8.

    Raises:
        TamizError: One cannot be read or decoded; the message names the first.
    """
    column = table.column(decoder.encoding.name)
    try:
        return decoder.decode_column(column)
    except DataError as error:
        raise TamizError(str(error)) from error
    except tf.errors.InvalidArgumentError:
        for row in range(table.num_rows):
            try:
                decoder.decode_column(column.slice(row, 1))
            except tf.errors.InvalidArgumentError as error:
                place = table.column(PATH_COLUMN)[row].as_py()
                reason = str(error.message).rpartition("}} ")[2].splitlines()[0]
                raise TamizError(
                    f"the image {place} cannot be decoded ({reason}): mend or remove it, and search again"
                ) from error
        raise


def image_facts(
    encoder: Encoder, training: EncodedRows, *, mirror: MirrorImages, classes: Sequence[str]
) -> ImageFacts | None:
    """Returns what spaces are told of the training images; None without images.

    Args:
        encoder: Decodes them.
        training: The training rows.
        mirror: Whether they may be mirrored.
        classes: Class labels; () for a regression.
    """
    if training.images is None:
        return None
    (decoder,) = encoder.images.values()
    chosen = np.linspace(0, training.num_rows - 1, min(SAMPLE_IMAGES, training.num_rows)).astype(np.intp)
    sample = training.images[chosen]
    if sample.dtype != np.uint8:
        sample = decoder.decode_all(sample.tolist(), are_places=sample.dtype != object)
    pixels = sample.reshape(-1, sample.shape[-1]).astype(np.float64)
    encoding = decoder.encoding
    return ImageFacts(
        height=encoding.height,
        width=encoding.width,
        channels=encoding.channels,
        pixel_mean=tuple(map(float, pixels.mean(axis=0))),
        pixel_deviation=tuple(map(float, pixels.std(axis=0))),
        may_flip=may_be_mirrored(mirror, classes),
    )


def may_be_mirrored(mirror: MirrorImages, classes: Sequence[str]) -> bool:
    """Returns whether an image and its mirror image mean the same.

    Args:
        mirror: What the settings say.
        classes: Class labels; letters, digits and sides are told by them.
    """
    if mirror is not MirrorImages.AUTO:
        return mirror is MirrorImages.YES
    symbols = sum(bool(_SYMBOL.fullmatch(label)) for label in classes)
    return 2 * symbols <= len(classes)


def decoded(features: dict[str, Any], encoder: Encoder) -> dict[str, Any]:
    """Returns features whose images are pixels, whatever they were; in the graph."""
    if IMAGE_PATH in features:
        (decoder,) = encoder.images.values()
        others = {name: tensor for name, tensor in features.items() if name != IMAGE_PATH}
        return {**others, "image": decoder.decode_files(features[IMAGE_PATH])}
    image = features.get("image")
    if image is None or image.dtype != tf.string:
        return features
    (decoder,) = encoder.images.values()
    return {**features, "image": decoder(image)}
