"""Which trials of a search train together in one graph, and how many at most."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

from app.search.trial import Suggestion
from search_spaces.network_size import USUAL_COLUMNS
from search_spaces.pack_shapes import MAX_PACK, members_in, pack_limit, pack_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Which trials train together.

    Attributes:
        space: Name of the space.
        num_rows: Training rows.
        num_columns: Encoded columns of the table.
        unit_epochs: Epochs in a unit of a trial's budget: 1, or those of a fold.
        most: Members of any pack at most.
        seconds: About how long a pack may take: the search learns from it only as a whole, and what does not end in
            time is lost as a whole; infinity for any.
    """

    space: str
    num_rows: int
    num_columns: int = USUAL_COLUMNS
    unit_epochs: int = 1
    most: int = MAX_PACK
    seconds: float = math.inf

    def key(self, suggestion: Suggestion) -> Hashable | None:
        """Returns what the members of a pack have in common; None for a trial that trains alone."""
        shape = pack_shape(self.space, suggestion.hyperparameters)
        return None if shape is None else (shape, suggestion.start_epoch, suggestion.budget)

    def limit(self, suggestion: Suggestion) -> int:
        """Returns how many members a pack with this trial may have."""
        epochs = (suggestion.budget - suggestion.start_epoch) * self.unit_epochs
        in_time = members_in(
            self.seconds, num_rows=self.num_rows, num_epochs=epochs, num_columns=self.num_columns
        )
        return min(pack_limit(pack_shape(self.space, suggestion.hyperparameters)), in_time, self.most)

    def after_failure(self, size: int) -> Packing:
        """Returns what is left of packs when one of `size` members has failed as a whole: others of half as many.

        What went wrong is as a rule the memory of so many. When packs of two fail, none is left.
        """
        return replace(self, most=max(1, min(self.most, size // 2)))
