"""Sizes of networks that two cores train in the time a search usually has; no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping

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


TABM_MEMBERS, TABM_WIDTHS = (8, 16, 32), (64, 128, 256, 512)
"""What the search may take."""

FIRST_LAYER = 2**25
"""Numbers that the first layer of all members may work on at once; a step holds about five times as many, 0.7 GB."""

_SHARED_ROWS = 256
"""Rows of a batch, each of which members that share whole layers see on scales of their own."""


def tabm_sizes(num_inputs: int, *, shared_layers: bool) -> tuple[list[int], list[int]]:
    """Returns members and widths that a table of so many columns may have; all of them up to some 2,000 inputs.

    Members that share matrices multiply these in the first layer by scales of their own, so that a table of a thousand
    columns would take gigabytes; those that share layers do so with the rows of a batch.

    Args:
        num_inputs: Numbers that the first layer sees of a row.
        shared_layers: Whether members share whole layers.
    """
    least = _SHARED_ROWS if shared_layers else TABM_WIDTHS[0]
    members = [number for number in TABM_MEMBERS if num_inputs * number * least <= FIRST_LAYER] or [TABM_MEMBERS[0]]
    fitting = [width for width in TABM_WIDTHS if num_inputs * members[-1] * width <= FIRST_LAYER] or [TABM_WIDTHS[0]]
    return members, list(TABM_WIDTHS) if shared_layers else fitting


_EPOCH_START = 0.05
_ROW_SECONDS = {"realmlp": 3e-5, "tabm": 5e-8, "tabm-mini": 3e-8}
"""Seconds a row of a training epoch, in TabM's case and a unit of every member; on two cores."""


USUAL_COLUMNS = 15
"""Columns of the tables that seconds were measured on."""

_BEHIND: Mapping[str, int] = {"realmlp": 122, "tabm": 16, "tabm-mini": 16, "mlp": 96}
"""Columns with which the first layer, embeddings included, has as many multiply-adds as all layers behind it:
a column takes 4 x 256 + 48 of RealMLP's, 8 x 128 of each member of TabM, 64 of a small network."""


def column_factor(family: str, num_columns: int) -> float:
    """Returns how many times as long a row takes as on a table of few columns, at least 1.

    Args:
        family: ``realmlp``, ``tabm``, ``tabm-mini`` or ``mlp`` (of 64 units).
        num_columns: Encoded columns, a categorical one counting as one.
    """
    return max(1.0, (_BEHIND[family] + num_columns) / (_BEHIND[family] + USUAL_COLUMNS))


def epoch_seconds(family: str, num_rows: int, *, num_columns: int = USUAL_COLUMNS) -> float:
    """Returns about how long an epoch of a family's usual network takes on two cores.

    Args:
        family: ``realmlp``, ``tabm`` or ``tabm-mini``.
        num_rows: Training rows.
        num_columns: Encoded columns, a categorical one counting as one.
    """
    units = 1 if family == "realmlp" else math.prod(usual_tabm_size(num_rows))
    return _EPOCH_START + _ROW_SECONDS[family] * column_factor(family, num_columns) * units * num_rows


TRIAL_SHARE = 0.15
"""Of the time for everything, that a trial of the portfolio may take; if it wins, its final training takes as much."""

EPOCH_SHARE = "epoch_share"
"""The parameter that says after which share of all epochs a schedule is over; behind a family's name where there are
several."""

EPOCH_SHARES = (1.0, 0.5, 0.25, 0.125)
"""Its values, the largest first."""

SCHEDULE, CONSTANT = "schedule", "constant"
"""The parameter of a recipe that says how its learning rate falls, and its value for not at all."""


def schedule_share(values: Mapping[str, bool | int | float | str]) -> tuple[str, float] | None:
    """Returns the parameter that says after which share of all epochs a schedule is over, and that share.

    Args:
        values: Active parameters.

    Returns:
        None where there is no such parameter, or no schedule that it ends: a rate that stays as it is.
    """
    name = next((name for name in values if name.rpartition("/")[2] == EPOCH_SHARE), None)
    if name is None or values.get(name.removesuffix(EPOCH_SHARE) + SCHEDULE) == CONSTANT:
        return None
    return name, float(values[name])


def epoch_share(training: float, *, seconds: float) -> float:
    """Returns the largest share of all epochs that a trial of the portfolio has the time for, or the least.

    Args:
        training: Seconds that all epochs take.
        seconds: Time for everything; 0 for no limit.
    """
    shares = (share for share in EPOCH_SHARES if has_time(training, share=share, seconds=seconds))
    return next(shares, EPOCH_SHARES[-1])


def has_time(training: float, *, share: float, seconds: float) -> bool:
    """Returns whether a trial of the portfolio has the time for a share of all epochs.

    Args:
        training: Seconds that all epochs take.
        share: Of the epochs.
        seconds: Time for everything; 0 for no limit.
    """
    return not seconds or share * training <= TRIAL_SHARE * seconds
