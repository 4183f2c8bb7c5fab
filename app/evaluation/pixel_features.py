"""Images as a few numbers each, for the linear baseline: what brightness alone tells (NumPy)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.evaluation.baselines import EncodedRows

SIDE = 16
"""Most fields along a side."""

_ROWS_AT_ONCE = 1_000


def pixel_features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the mean brightness of up to 16 x 16 fields of every image and channel, in [0, 1].

    Args:
        images: (num_rows, height, width, channels).

    Returns:
        float32 of shape ``(num_rows, fields * channels)``.
    """
    num_rows, height, width, channels = images.shape
    rows, columns = (np.linspace(0, side, min(side, SIDE) + 1).astype(np.intp) for side in (height, width))
    area = np.diff(rows)[:, np.newaxis] * np.diff(columns)
    found = np.empty((num_rows, area.size * channels), np.float32)
    for start in range(0, num_rows, _ROWS_AT_ONCE):
        part = images[start : start + _ROWS_AT_ONCE].astype(np.float32)
        sums = np.add.reduceat(np.add.reduceat(part, rows[:-1], axis=1), columns[:-1], axis=2)
        found[start : start + len(part)] = (sums / area[..., np.newaxis] / 255.0).reshape(len(part), -1)
    return found


def with_pixel_features(rows: EncodedRows) -> EncodedRows:
    """Returns rows whose decoded images are numbers beside the others; rows without such images as they are.

    Args:
        rows: Encoded rows.
    """
    if rows.images is None:
        return rows
    numeric: NDArray[Any] = np.asarray(rows.numeric)
    if rows.images.dtype == np.uint8:
        numeric = np.concatenate([numeric, pixel_features(rows.images)], axis=1)
    return replace(rows, numeric=numeric, images=None)
