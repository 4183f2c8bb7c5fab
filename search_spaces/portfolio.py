"""Configurations that a search tries before it chooses for itself; no TensorFlow.

What a configuration leaves out takes its default. The networks are small and of one shape: they train together in one
graph for the price of a few, so that even a short search on a large table has seen different recipes before it pays
for wide networks. The recipes are a half fraction of a two-level design around the defaults (resolution III: learning
rate, depth, normalisation, dropout), so that after them the effect of each is known, not only the best of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = bool | int | float | str


def _small(
    learning_rate: float, depth: int, normalisation: str, dropout: float, activation: str = "relu"
) -> Mapping[str, Value]:
    return {
        "width": 64,
        "learning_rate": learning_rate,
        "depth": depth,
        "normalisation": normalisation,
        "dropout": dropout,
        "activation": activation,
    }


PORTFOLIOS: dict[str, tuple[Mapping[str, Value], ...]] = {
    # Its authors' default, as far as the table allows it.
    "ft_transformer": ({},),
    "mlp": (
        _small(1e-3, 2, "batch", 0.1),
        _small(4e-3, 3, "batch", 0.1),
        _small(4e-3, 2, "layer", 0.1, "gelu"),
        _small(1e-3, 3, "layer", 0.1, "gelu"),
        _small(4e-3, 2, "batch", 0.3),
        _small(1e-3, 3, "batch", 0.3),
        _small(1e-3, 2, "layer", 0.3, "gelu"),
        _small(4e-3, 3, "layer", 0.3, "gelu"),
    ),
}
"""Name of a space -> its portfolio, the surest first."""


def portfolio_of(space_name: str, *, batch_sizes: Sequence[int]) -> tuple[Mapping[str, Value], ...]:
    """Returns the portfolio of a space; () for one that has none, as those of users.

    Args:
        space_name: The space.
        batch_sizes: Those that are searched, in their order. The middle one is taken: twice the batch is nearly half
            the time of an epoch, as most of a step of a small network is overhead.
    """
    middle = batch_sizes[len(batch_sizes) // 2]
    return tuple({**recipe, "batch_size": middle} for recipe in PORTFOLIOS.get(space_name, ()))
