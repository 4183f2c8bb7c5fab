"""The one error of this room: the user's data cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """The data cannot be used; the message says what was expected, what came and what to do."""


def suggest_name(wrong: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or ``""`` when none is near.

    Args:
        wrong: The name that was not found.
        known: The names that exist.
    """
    names = list(known)
    folded = {name.casefold(): name for name in names}
    if wrong.casefold() in folded:
        return f" Did you mean {folded[wrong.casefold()]!r}?"
    near = difflib.get_close_matches(wrong.casefold(), list(folded), n=1, cutoff=0.5)
    return f" Did you mean {folded[near[0]]!r}?" if near else ""


def list_names(names: Iterable[str], *, limit: int = 8) -> str:
    """Return names for an error message, quoted, at most ``limit`` of them.

    Args:
        names: What to list.
        limit: How many are written before the rest is only counted.
    """
    every = list(names)
    shown = ", ".join(repr(name) for name in every[:limit])
    return shown if len(every) <= limit else f"{shown} and {len(every) - limit} more"
