"""How rare classes are made to count: not at all, by weights, or by which rows an epoch sees."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

BALANCE = "balance"
"""Name of the hyperparameter where the balance is searched."""


class Balance(StrEnum):
    """How classes are balanced in training; what is evaluated is never touched.

    ``auto``: weights where the most frequent class has more than ten times the rows of the rarest. ``weights``: inverse
    class frequencies in the loss. ``oversample``: an epoch has as many rows as there are, equal shares of every class,
    so that rare rows repeat. ``undersample``: an epoch has as many rows of every class as the rarest one has, drawn
    anew each time. ``search``: a hyperparameter.
    """

    AUTO = "auto"
    NONE = "none"
    WEIGHTS = "weights"
    OVERSAMPLE = "oversample"
    UNDERSAMPLE = "undersample"
    SEARCH = "search"

    @property
    def resamples(self) -> bool:
        """Whether an epoch sees other rows than those there are."""
        return self in (Balance.OVERSAMPLE, Balance.UNDERSAMPLE)


SEARCHED = (Balance.NONE, Balance.WEIGHTS, Balance.OVERSAMPLE, Balance.UNDERSAMPLE)


def epoch_share(counts: NDArray[np.integer], balance: Balance) -> float:
    """Return the rows that an epoch sees as a share of those there are, in (0, 1].

    Args:
        counts: Rows of every class, ``(num_classes,)``.
        balance: How classes are balanced.
    """
    if balance is not Balance.UNDERSAMPLE:
        return 1.0
    present = counts[counts > 0]
    return float(present.min() * len(present) / present.sum())


def places_of_classes(labels: NDArray[np.integer], num_rows: int) -> NDArray[np.int64]:
    """Return which rows of an order by class an epoch takes, so that every class has an equal share of them.

    Where a class has fewer rows than its share they are taken again from the beginning; the first classes get what does
    not divide.

    Args:
        labels: Class ids, ``(pool_rows,)``.
        num_rows: Rows that an epoch sees.

    Returns:
        Places in the labels sorted, ``(num_rows,)``.
    """
    counts = np.bincount(labels.astype(np.int64))
    present = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    quotas = np.full(len(present), num_rows // len(present))
    quotas[: num_rows - quotas.sum()] += 1
    return np.concatenate(
        [starts[c] + np.arange(quota) % counts[c] for c, quota in zip(present, quotas, strict=True)]
    ).astype(np.int64)


def balanced_rows(labels: NDArray[np.integer], *, num_rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return the rows that an epoch sees, in random order, an equal share of them of every class.

    Args:
        labels: Class ids, ``(pool_rows,)``.
        num_rows: Rows that an epoch sees.
        rng: Decides which rows of a class, and the order.
    """
    by_class = np.lexsort((rng.random(len(labels)), labels))
    rows: NDArray[Any] = by_class[places_of_classes(labels, num_rows)]
    return rng.permutation(rows)
