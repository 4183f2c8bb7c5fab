"""Encoded rows on disk: one file an array, so that they can be looked at without being read (no TensorFlow)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.evaluation.baselines import EncodedRows

_FILES = {"numeric": "numeric.npy", "categorical": "categorical.npy", "y": "target.npy"}
_WEIGHTS = "weights.npy"
_IMAGES = "image.npy"


def save_encoded(rows: EncodedRows, folder: Path) -> None:
    """Writes rows; the folder appears when all of them are there."""
    temporary = unfinished(folder)
    for name, file in _FILES.items():
        np.save(temporary / file, getattr(rows, name), allow_pickle=False)
    if rows.weights is not None:
        np.save(temporary / _WEIGHTS, rows.weights, allow_pickle=False)
    if rows.images is not None and rows.images.dtype == np.uint8:
        np.save(temporary / _IMAGES, rows.images, allow_pickle=False)
    temporary.rename(folder)


def unfinished(folder: Path) -> Path:
    """Returns the folder, made if missing, that becomes `folder` when all is in it."""
    temporary = folder.with_name(f".{folder.name}")
    temporary.mkdir(parents=True, exist_ok=True)
    return temporary


def finish_encoded(folder: Path, *, y: NDArray[Any], weights: NDArray[Any] | None) -> None:
    """Writes the targets beside features that were written to `unfinished(folder)`; the folder appears."""
    temporary = unfinished(folder)
    np.save(temporary / _FILES["y"], y, allow_pickle=False)
    if weights is not None:
        np.save(temporary / _WEIGHTS, weights, allow_pickle=False)
    temporary.rename(folder)


def load_encoded(folder: Path) -> EncodedRows:
    """Returns what `save_encoded` wrote; features stay on disk until they are looked at.

    Images that do not fit into memory decoded were not written.
    """
    weights, images = folder / _WEIGHTS, folder / _IMAGES
    return EncodedRows(
        numeric=np.load(folder / _FILES["numeric"], mmap_mode="r"),
        categorical=np.load(folder / _FILES["categorical"], mmap_mode="r"),
        y=np.load(folder / _FILES["y"]),
        weights=np.load(weights) if weights.is_file() else None,
        images=np.load(images, mmap_mode="r") if images.is_file() else None,
    )
