"""Which trials may train together in one compiled graph; no TensorFlow.

A pack is a set of trials whose weights are stacked and trained by the same operations. Everything that a member may
have of its own (learning rate, optimizer, dropout, depth, activation, normalisation ...) is a tensor of the graph; what
is listed here decides how much work a step is, and members that differ in it would wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from search_spaces.catalogue import FAMILY, MLP
from search_spaces.network_size import USUAL_COLUMNS, column_factor

Value = bool | int | float | str

PACK_PARAMETERS: tuple[str, ...] = (FAMILY, "batch_size", "width")
"""Parameters that a sampler holds alike in a batch of suggestions so that they fill a pack."""

MAX_PACK = 16
"""Most members of a pack. More would make a step cheaper still, but the search learns from a pack only as a whole."""

SMALL_WIDTH = 64
"""Widths up to here share packs: padding them costs less than a step's overhead."""

_LIMITS: Mapping[int, int] = {SMALL_WIDTH: MAX_PACK, 128: MAX_PACK, 256: 8}
"""Width -> most members. A step of wide networks is arithmetic and memory traffic, which no packing saves."""

_WIDEST_LIMIT = 4

USUAL_SHARE = 0.4
"""Of its epochs, after which early stopping has ended a small network; on real tables after 14 to 45 of 100."""

_PACKABLE = frozenset({MLP, "tabular"})
"""Spaces of which some networks can share a graph."""


def pack_shape(space_name: str, hyperparameters: Mapping[str, Value]) -> Hashable | None:
    """Returns what trials must have in common to train in one pack; None for one that trains alone.

    Args:
        space_name: Name of the space, or ``module:attribute`` of a space of the user's own.
        hyperparameters: The active parameters.
    """
    if space_name not in _PACKABLE or hyperparameters.get(FAMILY, MLP) != MLP:
        return None
    batch_size, width = hyperparameters.get("batch_size"), hyperparameters.get("width")
    if not isinstance(batch_size, int) or not isinstance(width, int):
        return None
    return (space_name, batch_size, max(width, SMALL_WIDTH))


def pack_limit(shape: Hashable) -> int:
    """Returns how many members a pack of `shape` should have at most, from 1 to `MAX_PACK`.

    Args:
        shape: What `pack_shape` returned.
    """
    if not isinstance(shape, tuple):
        return 1
    return _LIMITS.get(shape[-1], _WIDEST_LIMIT)


def members_in(seconds: float, *, num_rows: int, num_epochs: int, num_columns: int = USUAL_COLUMNS) -> int:
    """Returns how many members a pack may have that is to be trained in about `seconds`, at least 1.

    On few rows a step is overhead, which all members share; on many it is arithmetic, of which each brings its own.

    Args:
        seconds: Time for the whole pack; infinity for any.
        num_rows: Training rows.
        num_epochs: Epochs that each member trains at most.
        num_columns: Encoded columns.
    """
    if math.isinf(seconds):
        return MAX_PACK
    rows = num_rows * column_factor(MLP, num_columns)
    left = seconds / max(USUAL_SHARE * num_epochs, 1.0) - (0.05 + 1e-5 * rows)
    return max(1, min(MAX_PACK, 1 + math.floor(left / (0.005 + 7e-6 * rows))))


def why_alone(space_name: str, *, num_replicas: int = 1, mixed_precision: bool = False) -> str:
    """Returns in a few words why no trial of a search trains in a pack; nothing if they can.

    Args:
        space_name: The space.
        num_replicas: Copies of a network that train in step.
        mixed_precision: Whether networks train in float16.
    """
    if space_name not in _PACKABLE:
        return f"networks of the space {space_name!r} cannot share a graph"
    if num_replicas > 1:
        return f"a network trains on {num_replicas} devices in step"
    return "mixed precision" if mixed_precision else ""
