"""Sizes of networks that two cores train in the time a search usually has; no TensorFlow."""

from __future__ import annotations

_TABM_SIZES: tuple[tuple[int, tuple[int, int]], ...] = (
    (1_500, (32, 128)),
    (8_000, (16, 128)),
    (20_000, (16, 64)),
)
"""Training rows up to which TabM starts with so many members of such a width."""


def usual_tabm_size(num_rows: int) -> tuple[int, int]:
    """Returns members and width that TabM starts with.

    The authors' 32 members of width 512 cost 75 million multiply-adds a row and step. The sizes here cost about half a
    second an epoch on two cores, so that a search of a minute trains more than one network to its end.

    Args:
        num_rows: Training rows.
    """
    return next((size for rows, size in _TABM_SIZES if num_rows <= rows), (8, 64))
