"""From encoded images to pixels, in graph operations only: the worker and the exported model decode alike (R4, R5)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.image_encoding import ImageEncoding, Resize
from pipelines.image_headers import EXIF_BYTES, EXIF_PLACES, MAX_PIXELS, ORIENTATION_TAG, TURNED
from pipelines.image_references import image_places, is_image_file, read_places

# TensorFlow publishes no types; this is the edge at which its tensors are Any.
Tensor = Any

_PNG, _GIF, _JPEG = b"\x89PNG\r\n\x1a\n", b"GIF8", b"\xff\xd8\xff"
_RATIOS = (1, 2, 4, 8)
_PARALLEL = 16
_ROWS_AT_ONCE = 256


@final
class ImageDecoder:
    """Decodes JPEG, PNG, GIF and BMP files to one size and one number of channels.

    What is larger than needed is made smaller while it is decoded, as far as the format allows it (JPEG: by 2, 4 or 8);
    transparency is dropped, 16 bits become 8, palettes and CMYK become RGB, and of an animation the first frame counts.

    Args:
        encoding: The size and the channels.
        alive: Called before each part of the images that are decoded outside a graph.

    Example:
        ``ImageDecoder(encoding)(tf.constant([png_bytes]))``
    """

    def __init__(self, encoding: ImageEncoding, *, alive: Callable[[], None] = lambda: None) -> None:
        self.encoding = encoding
        self._alive = alive

    def __call__(self, data: Tensor) -> Tensor:
        """Return uint8 of shape ``(batch, height, width, channels)``; the graph fails on bytes that are no image.

        Args:
            data: (batch,) string, encoded images.
        """
        shape = (self.encoding.height, self.encoding.width, self.encoding.channels)
        spec = tf.TensorSpec(shape, tf.uint8)
        return tf.map_fn(self.decode_one, data, fn_output_signature=spec, parallel_iterations=_PARALLEL)

    def decode_files(self, places: Tensor) -> Tensor:
        """Return as ``__call__`` the images that stay on disk; never in an exported graph, which reads no files.

        Args:
            places: (batch,) string, as ``image_places`` says.
        """
        # Of TensorFlow's operations only data sets read a part of a file, and one for each image took a hundred times
        # as long as this.
        data = tf.numpy_function(read_places, [places], tf.string)
        return self(tf.ensure_shape(data, places.shape))

    def decode_one(self, data: Tensor) -> Tensor:
        """Return uint8 of shape ``(height, width, channels)``.

        Args:
            data: () string, an encoded image.
        """
        encoding = self.encoding
        is_jpeg = tf.strings.substr(data, 0, tf.minimum(tf.strings.length(data), 3)) == _JPEG
        pixels = tf.cond(is_jpeg, lambda: self._jpeg(data), lambda: _other(data))
        pixels = tf.ensure_shape(pixels, (None, None, 3))
        if encoding.channels == 1:
            pixels = tf.image.rgb_to_grayscale(pixels)
        if encoding.resize is Resize.CROP:
            pixels = _cropped(pixels, encoding.height / encoding.width)
        size = (encoding.height, encoding.width)
        if encoding.resize is Resize.PAD:
            resized = tf.image.resize_with_pad(pixels, *size, antialias=True)
        else:
            resized = tf.image.resize(pixels, size, antialias=True)
        # Means of pixels: none is above 255 by more than rounding, so the nearest whole number needs no bounds.
        resized = tf.cast(resized + 0.5, tf.uint8)
        return tf.ensure_shape(resized, (*size, encoding.channels))

    def decode_column(self, column: pa.ChunkedArray) -> NDArray[np.uint8]:
        """Return a whole column decoded, ``(num_rows, height, width, channels)``, on all cores.

        Args:
            column: Encoded images, as Arrow's binary type, or images that stay on disk.

        Raises:
            tf.errors.InvalidArgumentError: One cannot be decoded.
            DataError: A file is no longer there.
        """
        if is_image_file(column.type):
            return self.decode_all(image_places(column).tolist(), are_places=True)
        return self.decode_all(column, are_places=False)

    def decode_all(self, images: Sequence[bytes] | pa.ChunkedArray, *, are_places: bool) -> NDArray[np.uint8]:
        """Return images decoded, ``(num_images, height, width, channels)``, on all cores.

        Args:
            images: Encoded images, or where each lies, as ``image_places`` says.
            are_places: Which of both.

        Raises:
            tf.errors.InvalidArgumentError: One cannot be decoded.
            DataError: A file is no longer there.
        """
        encoding = self.encoding
        found = np.empty((len(images), encoding.height, encoding.width, encoding.channels), np.uint8)
        decode = tf.function(self.decode_one, autograph=False, input_signature=[tf.TensorSpec((), tf.string)])
        # What stays on disk is meant to be in memory a little at a time.
        at_once = _ROWS_AT_ONCE if are_places else _ROWS_AT_ONCE * 16
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once]
            given = read_places(part).tolist() if are_places else part
            given = part.to_pylist() if isinstance(part, pa.ChunkedArray) else given
            data = tf.data.Dataset.from_tensor_slices(tf.constant(given, tf.string))
            batches = data.map(decode, num_parallel_calls=os.cpu_count(), deterministic=True).batch(_ROWS_AT_ONCE)
            for batch in batches:
                self._alive()
                found[start : start + len(batch)] = batch.numpy()
                start += len(batch)
        return found

    def _jpeg(self, data: Tensor) -> Tensor:
        """Return a JPEG upright, decoded at the largest reduction that leaves twice the pixels that are needed."""
        shape = tf.io.extract_jpeg_shape(data)
        data = _small_enough(data, height=shape[0], width=shape[1])
        orientation = jpeg_orientation(data)
        height, width = self.encoding.height, self.encoding.width
        needed = tf.where(orientation >= TURNED, [2 * width, 2 * height], [2 * height, 2 * width])
        enough = [tf.reduce_all(shape[:2] // ratio >= needed) for ratio in _RATIOS[1:]]
        pixels = tf.switch_case(
            tf.add_n([tf.cast(one, tf.int32) for one in enough]),
            [lambda ratio=ratio: tf.io.decode_jpeg(data, channels=3, ratio=ratio) for ratio in _RATIOS],
        )
        return tf.cond(orientation > 1, lambda: _upright(pixels, orientation), lambda: pixels)


def jpeg_orientation(data: Tensor) -> Tensor:
    """Return what `image_headers.jpeg_orientation` does, () int32, in the graph.

    Args:
        data: () string, a JPEG.
    """
    head = tf.io.decode_raw(data, tf.uint8, fixed_length=EXIF_PLACES[-1] + 4)
    begins = [tf.reduce_all(head[place : place + 4] == tuple(b"Exif")) for place in EXIF_PLACES]
    place = tf.where(begins[0], EXIF_PLACES[0], EXIF_PLACES[1]) + 6
    return tf.cond(begins[0] | begins[1], lambda: _told_orientation(data, place), lambda: tf.constant(1))


def _told_orientation(data: Tensor, place: Tensor) -> Tensor:
    """Return the orientation in the Exif block that begins at a place; 1 where it has none."""
    # Zeros behind the end: no entry there is that of the orientation.
    head = tf.concat([tf.io.decode_raw(data, tf.uint8, fixed_length=EXIF_BYTES), tf.zeros(12, tf.uint8)], axis=0)
    head = tf.cast(head, tf.int32)[place:]
    is_little = tf.reduce_all(head[:2] == ord("I"))
    is_known = is_little | tf.reduce_all(head[:2] == ord("M"))
    order = tf.where(is_little, tf.range(4), tf.range(4)[::-1])
    powers = tf.bitwise.left_shift(tf.ones(4, tf.int32), 8 * order)
    first = tf.clip_by_value(tf.reduce_sum(head[4:8] * powers), 0, EXIF_BYTES - 2 - place)
    pair = tf.where(is_little, [1, 256], [256, 1])
    num_entries = tf.minimum(tf.reduce_sum(head[first : first + 2] * pair), (EXIF_BYTES - place - first - 2) // 12)
    entries = tf.reshape(head[first + 2 : first + 2 + 12 * num_entries], (-1, 12))
    tags = tf.reduce_sum(entries[:, :2] * pair, axis=1)
    values = tf.reduce_sum(entries[:, 8:10] * pair, axis=1)
    told = tf.concat([values[tags == ORIENTATION_TAG], [1]], axis=0)[0]
    return tf.where(is_known & (told >= 1) & (told <= 8), told, 1)


def _upright(pixels: Tensor, orientation: Tensor) -> Tensor:
    """Return pixels (height, width, channels) as they are to be seen (Exif 3.0, tag 0x0112)."""
    pixels = tf.cond(orientation >= TURNED, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
    axes = tf.constant([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0], [0, 1], [1, 1], [1, 0]])[orientation - 1]
    pixels = tf.cond(axes[0] == 1, lambda: tf.reverse(pixels, [0]), lambda: pixels)
    return tf.cond(axes[1] == 1, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def _other(data: Tensor) -> Tensor:
    head = tf.strings.substr(data, 0, tf.minimum(tf.strings.length(data), 24))
    is_whole = tf.strings.length(head) == 24
    is_png = is_whole & (tf.strings.substr(head, 0, tf.minimum(tf.strings.length(head), 8)) == _PNG)
    is_gif = is_whole & (tf.strings.substr(head, 0, tf.minimum(tf.strings.length(head), 4)) == _GIF)
    nothing = tf.constant([1, 1])
    # Two numbers at another place in either format, the first the width.
    png = tf.cond(is_png, lambda: tf.io.decode_raw(tf.strings.substr(head, 16, 8), tf.int32, False), lambda: nothing)
    gif = tf.cond(
        is_gif, lambda: tf.cast(tf.io.decode_raw(tf.strings.substr(head, 6, 4), tf.uint16), tf.int32), lambda: nothing
    )
    data = _small_enough(data, height=png[1], width=png[0])
    data = _small_enough(data, height=gif[1], width=gif[0])
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def _small_enough(data: Tensor, *, height: Tensor, width: Tensor) -> Tensor:
    """Return the bytes again, unless they announce more pixels than memory is meant for."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    told = ["Expected an image of at most", MAX_PIXELS, "pixels, received (width, height)", width, height]
    with tf.control_dependencies([tf.debugging.Assert(pixels <= MAX_PIXELS, told)]):
        return tf.identity(data)


def _cropped(pixels: Tensor, shape: float) -> Tensor:
    """Return the middle of an image, as large as possible, whose height is `shape` times its width."""
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    high = tf.minimum(height, tf.cast(tf.round(tf.cast(width, tf.float32) * shape), tf.int32))
    wide = tf.minimum(width, tf.cast(tf.round(tf.cast(height, tf.float32) / shape), tf.int32))
    high, wide = tf.maximum(high, 1), tf.maximum(wide, 1)
    return tf.image.crop_to_bounding_box(pixels, (height - high) // 2, (width - wide) // 2, high, wide)
