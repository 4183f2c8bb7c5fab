"""Images that are there more than once: kept in one split, and told."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.errors import list_names


def kept_together(
    splits: NDArray[np.int8], hashes: NDArray[np.uint64], labels: NDArray[np.generic]
) -> NDArray[np.int8]:
    """Return splits in which equal images are in one: those that were in several, or have several labels, train.

    Equal images have equal ranks and so mostly one split, but each class is cut by itself, and an image with two labels
    is in two classes.

    Args:
        splits: ``Split`` values of shape ``(num_rows,)``.
        hashes: Hash of every row's image, ``(num_rows,)``.
        labels: Target of every row, ``(num_rows, ...)``.
    """
    _, image = np.unique(hashes, return_inverse=True)
    in_several = _num_distinct(image, splits) > 1
    return np.where((in_several | (_num_distinct(image, labels) > 1))[image], np.int8(0), splits)


def duplicate_notes(
    hashes: NDArray[np.uint64], labels: NDArray[np.generic], places: pa.ChunkedArray, *, together: bool = True
) -> list[str]:
    """Return sentences on images that are there more than once, and on those of them whose labels differ.

    Args:
        hashes: Hash of every row's image, ``(num_rows,)``.
        labels: Target of every row, ``(num_rows, ...)``.
        places: Where every image came from.
        together: Whether equal images were kept in one split.
    """
    _, image, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    repeated = int((counts > 1).sum())
    if not repeated:
        return []
    rows = int(counts[counts > 1].sum())
    where = "; each stays in one split" if together else ""
    are = "1 image is" if repeated == 1 else f"{repeated:,} images are"
    notes = [f"{are} there more than once, in {rows:,} rows{where}."]
    several = np.flatnonzero(_num_distinct(image, labels) > 1)
    if several.size:
        first = np.flatnonzero(image == several[0])
        names = list_names([places[int(row)].as_py() for row in first], limit=3)
        notes.append(
            f"{'1 image has' if several.size == 1 else f'{several.size:,} images have'} labels that differ, such as "
            f"{names}, which are the same picture"
            f"{'; all of them are training rows' if together else ''}."
        )
    return notes


def _num_distinct(image: NDArray[np.intp], labels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return how many different labels each image has, ``(num_images,)``."""
    _, label = np.unique(labels, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([image, label.reshape(-1)], axis=1), axis=0)
    return np.bincount(pairs[:, 0])
