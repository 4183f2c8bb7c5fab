"""Configurations that a search tries before it chooses for itself; no TensorFlow.

What a configuration leaves out takes its default. The space over all families begins with the papers' own defaults of
the two that are best on most tables, RealMLP and TabM, laid out for the time there is. Behind them, or between them
where rows are few, come small networks of one shape: they train together in one graph for the price of a few, so that
even a short search on a large table has seen different recipes. These are a half fraction of a two-level design around
the defaults (resolution III: learning rate, depth, normalisation, dropout), so that after them the effect of each is
known, not only the best of them. Where rows are few, additive models stand near the front. The rest are departures
from the papers' defaults in the directions that their authors' own tuning took.
"""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.catalogue import FAMILY, MLP
from search_spaces.context import TableContext, TrainingContext
from search_spaces.image_context import ImageContext
from search_spaces.image_portfolio import image_portfolio
from search_spaces.network_size import EPOCH_SHARE, epoch_seconds, epoch_share, has_time

Value = bool | int | float | str
Recipe = Mapping[str, Value]


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


_SMALL: tuple[Recipe, ...] = (
    _small(1e-3, 2, "batch", 0.1),
    _small(4e-3, 3, "batch", 0.1),
    _small(4e-3, 2, "layer", 0.1, "gelu"),
    _small(1e-3, 3, "layer", 0.1, "gelu"),
    _small(4e-3, 2, "batch", 0.3),
    _small(1e-3, 3, "batch", 0.3),
    _small(1e-3, 2, "layer", 0.3, "gelu"),
    _small(4e-3, 3, "layer", 0.3, "gelu"),
)

_REALMLP: tuple[Recipe, ...] = (
    {},
    {"activation": "mish", "learning_rate": 0.1, "dropout": 0.05},
    {"dropout": 0.3, "frequency_scale": 0.3, "learning_rate": 0.06},
    {"numeric_embedding": "none", "width": 128, "depth": 2},
    {"activation": "mish", "width": 512, "depth": 2, "learning_rate": 0.03, "dropout": 0.3},
)

_TABM: tuple[Recipe, ...] = (
    {},
    {"num_blocks": 3, "num_bins": 16, "weight_decay": 1e-2, "dropout": 0.2},
    {"learning_rate": 5e-4, "bin_vector": 16, "weight_decay": 1e-3},
)

_ADDITIVE: tuple[Recipe, ...] = ({}, {"num_bins": 1, "learning_rate": 1e-2})
"""Curves, and plain lines."""

_OF_NUMBERS = frozenset({"numeric_embedding", "frequency_scale", "num_bins", "bin_vector"})
"""Parameters that a space has only for a table with numbers."""

FAMILY_RECIPES: Mapping[str, tuple[Recipe, ...]] = {
    MLP: _SMALL,
    "realmlp": _REALMLP,
    "tabm": _TABM,
    "tabm-mini": _TABM,
    "additive": _ADDITIVE,
}
"""Name of a space -> its portfolio, the surest first."""

_ORDER: tuple[tuple[str, slice], ...] = (
    ("realmlp", slice(0, 1)),
    ("tabm", slice(0, 1)),
    (MLP, slice(None)),
    ("realmlp", slice(1, 2)),
    ("tabm-mini", slice(0, 1)),
    ("realmlp", slice(2, 4)),
    ("tabm", slice(1, 2)),
    ("realmlp", slice(4, 5)),
    ("tabm-mini", slice(1, 2)),
    ("additive", slice(0, 1)),
)
"""Which recipes of which family the space over all families tries, in turn."""

_CURVE_SHARE = 0.25
"""Of all epochs, that an additive model needs: its loss has a single optimum and no valley to wander in."""

FEW_ROWS = 5_000
_ORDER_OF_FEW = (_ORDER[0], ("additive", slice(None)), _ORDER[2], _ORDER[1], *_ORDER[3:-1])
"""On so few training rows eight small networks in a pack take the time of one TabM, and differ enough to answer
together: they come before it, so that a short search has an ensemble. Before them come additive models, which take a
few seconds each; where columns do not interact nothing is better."""


def portfolio_of(space_name: str, context: TrainingContext, *, seconds: float) -> tuple[Recipe, ...]:
    """Returns the portfolio of a space; () for one that has none, as those of users.

    Args:
        space_name: The space.
        context: The table, or the images.
        seconds: Time for everything; 0 for no limit.
    """
    if isinstance(context, ImageContext):
        return image_portfolio(space_name, context, seconds=seconds)
    if not isinstance(context, TableContext):
        return ()
    if space_name in FAMILY_RECIPES:
        return tuple(_fitted(space_name, recipe, context, seconds) for recipe in FAMILY_RECIPES[space_name])
    if space_name != "tabular":
        return ()
    found: list[Recipe] = []
    too_long: list[Recipe] = []
    for family, places in _ORDER_OF_FEW if context.num_training_rows < FEW_ROWS else _ORDER:
        prefix = "" if family == MLP else f"{family}/"
        for recipe in FAMILY_RECIPES[family][places]:
            fitted = dict(_fitted(family, recipe, context, seconds))
            batch_size = fitted.pop("batch_size")
            own = {f"{prefix}{name}": value for name, value in fitted.items()}
            ends = has_time(_seconds(family, context), share=float(fitted.get(EPOCH_SHARE, 0.0)), seconds=seconds)
            (found if ends else too_long).append({FAMILY: family, "batch_size": batch_size, **own})
    # On a wide table the largest networks would take all of a short time, and none of them come to its end.
    return (*found, *too_long)


def _seconds(family: str, context: TableContext) -> float:
    """Returns about how long all epochs of a family's usual network take; 0 for the small networks of the others."""
    if family in (MLP, "additive"):
        return 0.0
    num_columns = context.num_numeric + len(context.cardinalities)
    return context.max_epochs * epoch_seconds(family, context.num_training_rows, num_columns=num_columns)


def _fitted(family: str, recipe: Recipe, context: TableContext, seconds: float) -> Recipe:
    """Returns a recipe without what the table has no use for, and with what depends on its size and on the time."""
    own = {name: value for name, value in recipe.items() if context.num_numeric or name not in _OF_NUMBERS}
    sizes = context.batch_sizes()
    if family == MLP:
        # Twice the batch is nearly half the time of an epoch, as most of a step of a small network is overhead.
        return {**own, "batch_size": sizes[len(sizes) // 2]}
    if family == "additive":
        return {**own, "batch_size": sizes[len(sizes) // 2], "epoch_share": _CURVE_SHARE}
    own["batch_size"] = min(sizes, key=lambda size: abs(size - 256))
    own["epoch_share"] = epoch_share(_seconds(family, context), seconds=seconds)
    return own
