"""What weights shared by all cells say of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.search.space import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCell:
    """What a cell is worth with shared weights.

    Attributes:
        edges: Its edges.
        objective: Value of the objective on validation rows.
        loss: Mean loss on these rows.
        is_drawn: Whether it was drawn at random, before evolution began.
    """

    edges: Mapping[str, Value]
    objective: float
    loss: float
    is_drawn: bool
