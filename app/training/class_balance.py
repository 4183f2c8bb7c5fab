"""How the classes of an experiment are balanced for a network: weights, rows that an epoch draws, the prior of both.

A network that learns from weighted or resampled rows learns the posterior of a population in which classes are as
frequent as that; `search_spaces.answers.AnswerForm` divides it out again, so that probabilities stay calibrated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.evaluation.baselines import EncodedRows
from app.evaluation.metrics import IMBALANCE_LIMIT, imbalance_ratio
from pipelines.balance import BALANCE, SEARCHED, Balance, epoch_share
from pipelines.schema import DatasetSchema
from search_spaces.catalogue import SpaceError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBalance:
    """How classes are balanced.

    Attributes:
        kind: For all networks, or ``search``; never ``auto``.
        weights: Inverse class frequencies, of weighted rows where rows have weights; empty when nothing is balanced.
        counts: Training rows of every class; empty when nothing is balanced.
    """

    kind: Balance = Balance.NONE
    weights: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    def of(self, values: Mapping[str, Any]) -> Balance:
        """Returns how classes are balanced for a network of these hyperparameters."""
        return Balance(values.get(BALANCE, Balance.NONE)) if self.kind is Balance.SEARCH else self.kind

    def epoch_rows(self, num_rows: int, kind: Balance) -> int:
        """Returns how many rows an epoch sees of `num_rows`."""
        return max(len(self.counts), int(num_rows * self.epoch_share(kind))) if kind.resamples else num_rows

    def epoch_share(self, kind: Balance) -> float:
        """Returns the rows that an epoch sees as a share of those there are, in (0, 1]."""
        return epoch_share(np.array(self.counts), kind)

    def labels(self, rows: EncodedRows, kind: Balance) -> NDArray[np.int32] | None:
        """Returns the classes by which an epoch draws its rows ``(num_rows,)``, or None when it sees every row once."""
        return rows.y.astype(np.int32) if kind.resamples else None

    def check_searched(self, names: Collection[str], *, space: str) -> None:
        """Checks that a space has the balance among its hyperparameters where it is to be searched.

        Args:
            names: The hyperparameters.
            space: Name of the space.

        Raises:
            SpaceError: It has not.
        """
        if self.kind is Balance.SEARCH and BALANCE not in names:
            raise SpaceError(
                f"the space {space!r} has no hyperparameter {BALANCE!r} to search: ask "
                f"hp.Choice({BALANCE!r}, {[one.value for one in SEARCHED]}) in its build function, or give another "
                f"--balance"
            )

    def asked(self, kind: Balance) -> tuple[float, ...]:
        """Returns how much more frequent each class is for a network than in the data; empty for as it is."""
        if kind is Balance.WEIGHTS:
            return self.weights
        if not kind.resamples:
            return ()
        mean = sum(self.counts) / len(self.counts)
        return tuple(mean / max(count, 1) for count in self.counts)

    def row_weights(self, rows: EncodedRows, kind: Balance) -> NDArray[np.float32] | None:
        """Returns the weight of every row by its class ``(num_rows,)``, or None when all weigh the same."""
        if kind is not Balance.WEIGHTS or not self.weights:
            return None
        weights: NDArray[np.float32] = np.asarray(self.weights, np.float32)[rows.y.astype(np.intp)]
        return weights


def class_balance(schema: DatasetSchema, rows: EncodedRows, kind: Balance) -> ClassBalance:
    """Returns how the classes of training rows are balanced; several labels, and numbers, never are.

    Args:
        schema: The columns.
        rows: The training rows.
        kind: What the settings say.
    """
    if not schema.target.task.is_classification or schema.target.columns:
        return ClassBalance()
    y, given = rows.y.astype(np.intp), rows.weights
    if kind is Balance.AUTO:
        kind = Balance.WEIGHTS if imbalance_ratio(y, weights=given) > IMBALANCE_LIMIT else Balance.NONE
    if kind is Balance.NONE:
        return ClassBalance()
    num_classes = len(schema.target.classes)
    weighted = np.bincount(y, weights=given, minlength=num_classes)
    least = 1 if given is None else given.mean()
    inverse = weighted.sum() / (num_classes * np.maximum(weighted, least))
    counts = np.bincount(y, minlength=num_classes)
    return ClassBalance(kind=kind, weights=tuple(map(float, inverse)), counts=tuple(map(int, counts)))
