"""Whether trials are judged on one validation part or by cross-validation, and why, in words for the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUM_FOLDS = 5

SMALL_ROWS = 1_000
"""Training and validation rows below which `auto` takes folds; from here on one part chooses as well at equal time
(`benchmarks/folds.py` measures it)."""

BAG_ROWS, BAG_SECONDS = 5_000, 600.0
"""Below so many rows, and from so long a budget on, folds are taken for what they leave behind: networks that together
have learned from every row, to answer together (docs/ensembles.md)."""

MIN_TRIALS = 10
"""Trials below which little is lost to chance in choosing the best of them by one part of the rows."""

MIN_SECONDS = 120.0
"""Time budget below which folds leave too few trials to choose among: each costs two to three times as much."""

FOLD_VALUE, FOLD_BEST_EPOCH, FOLD_EPOCHS = "fold/value", "fold/best_epoch", "fold/epochs"
"""Tags of what a fold itself came to, beside the means over the folds so far."""

MIN_ROWS_OF_CLASS = 2 * NUM_FOLDS
"""Rows of the rarest class below which some fold may hold out none or one of them."""


def fold_parts(data: Mapping[str, Any]) -> int:
    """Returns in how many folds trials are judged, as the ``data`` of a manifest says; 1 in one of before folds."""
    return int(data.get("folds", {"number": 1})["number"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldChoice:
    """How trials are judged.

    Attributes:
        number: Folds of the cross-validation; 1 for one validation part.
        reason: Why, in words.
        is_worth_saying: Whether the number is not what everybody would expect.
    """

    number: int
    reason: str
    is_worth_saying: bool = True


def choose_folds(
    asked: int,
    *,
    num_rows: int,
    seconds: float,
    trials: int,
    smallest_class: int | None,
    in_time: bool,
    bagging: bool = False,
) -> FoldChoice:
    """Chooses the number of folds.

    Args:
        asked: Folds that the user asked for; 0 for automatic.
        num_rows: Training and validation rows.
        seconds: Wall-clock budget of everything; 0 for none.
        trials: Number of trials; 0 for no limit.
        smallest_class: Those rows that belong to the rarest class; None for a regression.
        in_time: Whether a column orders the rows in time.
        bagging: Whether the networks of the folds may answer together in the end.
    """
    if asked:
        return FoldChoice(number=asked, reason="as asked", is_worth_saying=asked > 1)
    bagged = bagging and num_rows < BAG_ROWS and seconds >= BAG_SECONDS
    if num_rows >= SMALL_ROWS and not bagged:
        reason = f"{num_rows:,} rows are enough to select on one part of them"
        return FoldChoice(number=1, reason=reason, is_worth_saying=False)
    if in_time:
        return FoldChoice(number=1, reason="the latest rows say most about what comes after them")
    if smallest_class is not None and smallest_class < MIN_ROWS_OF_CLASS:
        return FoldChoice(number=1, reason=f"the rarest class has {smallest_class:,} rows, too few to hold out in turn")
    if 0 < trials < MIN_TRIALS:
        reason = f"{trials} trials are few to choose among; --folds {NUM_FOLDS} asks for cross-validation"
        return FoldChoice(number=1, reason=reason)
    if 0 < seconds < MIN_SECONDS:
        return FoldChoice(
            number=1,
            reason=f"{num_rows:,} rows are few enough for cross-validation, but each trial would take {NUM_FOLDS} "
            f"trainings and {seconds:.0f} s leave time for too few; --folds {NUM_FOLDS} asks for it",
        )
    if num_rows >= SMALL_ROWS:
        reason = f"{num_rows:,} rows are few enough for the networks of all folds to answer together"
        return FoldChoice(number=NUM_FOLDS, reason=reason)
    return FoldChoice(number=NUM_FOLDS, reason=f"one part of {num_rows:,} rows would be too small to select on")
