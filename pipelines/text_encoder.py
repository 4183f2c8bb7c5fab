"""``pipelines.text_encoding`` in graph operations: text in, averaged embeddings of its n-grams out (TensorFlow)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.text_encoding import (
    LETTER_RANGES,
    MAX_CHARACTERS,
    MIXER,
    MULTIPLIER,
    NGRAMS,
    NUM_BUCKETS,
    SHIFT,
    SPACE,
    UPPER_RANGES,
    TextEncoding,
)

Tensor = Any

_MAX_BYTES = 4 * MAX_CHARACTERS  # of as many characters in UTF-8


class TextEncoder:
    """Encodes one column of text.

    Args:
        column: What ``fit_text`` learned.
    """

    def __init__(self, column: TextEncoding) -> None:
        self._column = column
        self._projection = np.concatenate([column.matrix, np.zeros((1, column.num_directions), np.float32)])
        self._mean = np.array(column.mean, np.float32)
        self._inverse_scale = np.array(column.inverse_scale, np.float32)
        # ln(1 + L) of every length: a look-up has the same bits in every batch, a logarithm not quite.
        lengths = np.log1p(np.arange(MAX_CHARACTERS + 1))
        self._lengths = ((lengths - column.length_mean) * column.length_inverse_scale).astype(np.float32)

    def __call__(self, text: Tensor) -> Tensor:
        """Return the parts of a batch.

        Args:
            text: UTF-8 of shape ``(batch,)``; bytes that are none become a replacement character.

        Returns:
            float32 of shape ``(batch, num_parts)``, in the order of ``TextEncoding.part_names``.
        """
        text = tf.strings.strip(text)
        points = tf.strings.unicode_decode(tf.strings.substr(text, 0, _MAX_BYTES), "UTF-8", errors="replace")
        points = points[:, :MAX_CHARACTERS]
        lengths = tf.cast(points.row_lengths(), tf.int32)
        total = self._total(_folded(tf.cast(points.to_tensor(SPACE), tf.int64)), lengths)
        # The mean over the n-grams has the same direction as their sum.
        norm = tf.sqrt(tf.reduce_sum(tf.square(total), axis=1, keepdims=True))
        positions = total / tf.maximum(norm, 1e-12)
        scaled = tf.clip_by_value((positions - self._mean) * self._inverse_scale, -10.0, 10.0)
        # Without a single n-gram a text is nowhere: it stands in the middle.
        parts = [tf.where(norm > 0.0, scaled, 0.0), tf.gather(self._lengths, lengths)[:, tf.newaxis]]
        if self._column.has_indicator:
            parts.append(tf.cast(lengths == 0, tf.float32)[:, tf.newaxis])
        return tf.concat(parts, axis=1)

    def _total(self, points: Tensor, lengths: Tensor) -> Tensor:
        """Return the sum of the embeddings of every text's n-grams, ``(batch, D)``."""
        rows = tf.shape(points)[0]
        longest = max(NGRAMS)
        padded = tf.pad(points, [[0, 0], [1, longest]], constant_values=SPACE)
        # The kernel that sums takes eight rows at a time, the odd ones first: with a multiple of eight a text is cut
        # into the same eights however long the texts beside it are.
        starts = -(-(tf.shape(points)[1] + 2) // 8) * 8
        places = tf.range(starts)
        buckets = []
        for size in NGRAMS:
            hashed = tf.fill(tf.stack([rows, starts]), tf.constant(size, tf.int64))
            for offset in range(size):
                window = padded[:, offset : offset + starts]
                # The windows of long n-grams run past the end by blanks that no n-gram counts.
                window = tf.pad(window, [[0, 0], [0, starts - tf.shape(window)[1]]], constant_values=SPACE)
                hashed = hashed * tf.constant(MULTIPLIER, tf.int64) + window
            mixed = tf.bitwise.right_shift(hashed * tf.constant(MIXER, tf.int64), tf.constant(SHIFT, tf.int64))
            bucket = tf.bitwise.bitwise_and(mixed, tf.constant(NUM_BUCKETS - 1, tf.int64))
            counted = (places[tf.newaxis] + size <= lengths[:, tf.newaxis] + 2) & (lengths[:, tf.newaxis] > 0)
            # What is no n-gram of the text has the bucket behind the last, whose embedding is zero.
            buckets.append(tf.where(counted, tf.cast(bucket, tf.int32), NUM_BUCKETS))
        # In the order of the text, so that what stands for no n-gram comes last.
        found = tf.reshape(tf.stack(buckets, axis=2), tf.stack([rows, -1]))
        return tf.raw_ops.SparseSegmentSumWithNumSegments(
            data=self._projection,
            indices=tf.reshape(found, (-1,)),
            segment_ids=tf.repeat(tf.range(rows), tf.shape(found)[1]),
            num_segments=rows,
        )


def _folded(points: Tensor) -> Tensor:
    """Return small letters, digits and characters beyond ASCII; blanks for all others."""
    for low, high in UPPER_RANGES:
        points = tf.where((points >= low) & (points <= high), points + 32, points)
    kept = points >= 128
    for low, high in LETTER_RANGES:
        kept |= (points >= low) & (points <= high)
    return tf.where(kept, points, tf.constant(SPACE, tf.int64))
