"""From encoded images to pixels, in graph operations only: the worker and the exported model decode alike (R4, R5)."""

from __future__ import annotations

import os
from typing import Any, final

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.image_encoding import ImageEncoding, Resize
from pipelines.image_headers import MAX_PIXELS

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

    Example:
        ``ImageDecoder(encoding)(tf.constant([png_bytes]))``
    """

    def __init__(self, encoding: ImageEncoding) -> None:
        self.encoding = encoding

    def __call__(self, data: Tensor) -> Tensor:
        """Return uint8 of shape ``(batch, height, width, channels)``; the graph fails on bytes that are no image.

        Args:
            data: (batch,) string, encoded images.
        """
        shape = (self.encoding.height, self.encoding.width, self.encoding.channels)
        spec = tf.TensorSpec(shape, tf.uint8)
        return tf.map_fn(self.decode_one, data, fn_output_signature=spec, parallel_iterations=_PARALLEL)

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
        resized = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
        return tf.ensure_shape(resized, (*size, encoding.channels))

    def decode_column(self, column: pa.ChunkedArray) -> NDArray[np.uint8]:
        """Return a whole column decoded, ``(num_rows, height, width, channels)``, on all cores.

        Args:
            column: Encoded images, as Arrow's binary type.

        Raises:
            tf.errors.InvalidArgumentError: One cannot be decoded.
        """
        encoding = self.encoding
        found = np.empty((len(column), encoding.height, encoding.width, encoding.channels), np.uint8)
        decode = tf.function(self.decode_one, autograph=False, input_signature=[tf.TensorSpec((), tf.string)])
        for start in range(0, len(column), _ROWS_AT_ONCE * 16):
            part = column.slice(start, _ROWS_AT_ONCE * 16)
            data = tf.data.Dataset.from_tensor_slices(tf.constant(part.to_pylist(), tf.string))
            batches = data.map(decode, num_parallel_calls=os.cpu_count(), deterministic=True).batch(_ROWS_AT_ONCE)
            for batch in batches:
                found[start : start + len(batch)] = batch.numpy()
                start += len(batch)
        return found

    def _jpeg(self, data: Tensor) -> Tensor:
        """Return a JPEG decoded at the largest reduction that leaves twice the pixels that are needed."""
        shape = tf.io.extract_jpeg_shape(data)
        data = _small_enough(data, height=shape[0], width=shape[1])
        needed = tf.constant([2 * self.encoding.height, 2 * self.encoding.width])
        enough = [tf.reduce_all(shape[:2] // ratio >= needed) for ratio in _RATIOS[1:]]
        return tf.switch_case(
            tf.add_n([tf.cast(one, tf.int32) for one in enough]),
            [lambda ratio=ratio: tf.io.decode_jpeg(data, channels=3, ratio=ratio) for ratio in _RATIOS],
        )


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
