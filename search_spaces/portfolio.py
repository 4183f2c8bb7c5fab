"""Configurations known to be good, which a search tries before it chooses for itself; no TensorFlow.

What a configuration leaves out takes its default, so that the first of a space is its defaults.
"""

from __future__ import annotations

from collections.abc import Mapping

PORTFOLIOS: dict[str, tuple[Mapping[str, bool | int | float | str], ...]] = {
    "mlp": (),
    "resnet": (),
}


def portfolio_of(space_name: str) -> tuple[Mapping[str, bool | int | float | str], ...]:
    """Returns the portfolio of a space; () for one of the user's own."""
    return PORTFOLIOS.get(space_name, ())
