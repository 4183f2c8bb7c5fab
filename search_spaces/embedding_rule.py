"""How long the vector of a category is, by the number of categories of its column; no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_LENGTH = 32
"""More has not paid on tables, and a pack of networks pays for the longest vector in it."""

NUM_BUCKETS = 2
"""Ids that stand for no category of their own: 0 is missing, 1 is rare or unseen."""


def worth(cardinality: int) -> float:
    """Returns about how many numbers a column of so many ids is worth: ``1.6 * n**0.56``, the fastai library's rule."""
    return float(min(1.6 * cardinality**0.56, MAX_LENGTH))


def embedding_lengths(cardinalities: Sequence[int], *, size: int = MAX_LENGTH) -> tuple[int, ...]:
    """Returns the length of the vectors of every column: what it is worth, at most `size`.

    Args:
        cardinalities: Number of ids of every column.
        size: Length of the longest, at least 1.
    """
    return tuple(min(size, math.ceil(worth(cardinality))) for cardinality in cardinalities)


def start_scale(
    cardinalities: Sequence[int], lengths: Sequence[int], *, size: int, stddev: float | None = None
) -> NDArray[np.float32]:
    """Returns the standard deviation that every number of the vectors starts with, ``(sum of cardinalities, size)``.

    Vectors start with length 1. Those of missing and other (ids 0 and 1) start at zero: a bucket that training never
    met then adds nothing instead of noise. What is past a column's length is zero and stays so.

    Args:
        cardinalities: Number of ids of every column.
        lengths: Length of the vectors of every column, at most `size`.
        size: Columns of the matrix that holds them all.
        stddev: Of the numbers that are not zero; None for ``1 / sqrt(length)``.
    """
    scale = np.zeros((sum(cardinalities), size), np.float32)
    offset = 0
    for cardinality, length in zip(cardinalities, lengths, strict=True):
        scale[offset + NUM_BUCKETS : offset + cardinality, :length] = length**-0.5 if stddev is None else stddev
        offset += cardinality
    return scale
