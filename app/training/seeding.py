"""The one place for randomness: every seed is derived from the experiment's seed and what it is for."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Returns a seed for one purpose, independent of every other purpose's.

    Args:
        seed: The experiment's seed.
        purpose: What it is for, such as ``("trial", 7)``.

    Returns:
        A number in [0, 2**31).
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras; same seed and machine, same weights, dropout and data order."""
    import keras

    keras.utils.set_random_seed(seed)
