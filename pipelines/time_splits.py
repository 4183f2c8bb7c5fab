"""The embargo of a split in time: rows before a boundary that neither side may learn from.

A row of the earlier side that lies close to the boundary may tell of the later side (a label that is known only days
later, an average over the past week), so such rows are left out of the experiment and counted. They are always taken
from the earlier side: what is judged stays whole. (Lopez de Prado, Advances in Financial Machine Learning, 2018, 7.4)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.instants import MICROSECONDS, Instants

LEFT_OUT = -1
"""The split of rows that no part of an experiment sees."""

_SPLITS = ("training", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embargo:
    """How far apart the splits of an ordered table are kept.

    Attributes:
        seconds: Seconds before the first row of a split in which no row is kept; 0 for none.
        steps: Different times before it of which no row is kept; 0 for none.
    """

    seconds: float = 0.0
    steps: int = 0

    @property
    def is_none(self) -> bool:
        """Whether nothing is left out."""
        return not self.seconds and not self.steps


def embargoed(
    splits: NDArray[np.int8], times: Instants, embargo: Embargo, *, name: str
) -> NDArray[np.int8]:
    """Return the splits with the rows of the embargo as ``LEFT_OUT``.

    Args:
        splits: ``Split`` values of shape ``(num_rows,)``, rising with the time.
        times: What ``pipelines.instants`` returned of the same rows.
        embargo: How far the splits are kept apart.
        name: The time column, for messages.

    Raises:
        DataError: The embargo is a duration and the times are numbers, or it leaves a split without rows.
    """
    if embargo.is_none:
        return splits
    if embargo.seconds and times.dtype != np.int64:
        raise DataError(
            f"Expected a number of rows as the embargo, such as 10, because the time column {name!r} holds numbers and "
            f"not dates; received {embargo.seconds:g} seconds."
        )
    found = splits.copy()
    distinct = np.unique(times)
    for later in (1, 2):
        if not (splits >= later).any():
            continue
        boundary = times[splits >= later].min()
        if embargo.seconds:
            near = times >= boundary - int(embargo.seconds * MICROSECONDS)
        else:
            place = int(np.searchsorted(distinct, boundary)) - embargo.steps
            near = times >= distinct[max(place, 0)]
        found[near & (times < boundary)] = LEFT_OUT
    for split, what in enumerate(_SPLITS):
        if not (found == split).any():
            raise DataError(
                f"Expected rows in training, validation and test, but the embargo leaves no {what} rows: it takes "
                f"{int((found == LEFT_OUT).sum()):,} of {len(found):,}; give a shorter one, more rows or other shares."
            )
    return found
