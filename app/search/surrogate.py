"""A history as the arrays that Gaussian process regression wants, and the process that explains it.

Neither the scale of losses nor outliers matter: they become normal quantiles of their ranks, or saturate. Ranks serve
best where a space is countable. Where numbers are continuous, trials gather close to one another; ranks make large
differences of the small ones between them, a model takes that for noise, and the search stays where it is. Where trials
were trained to different budgets, the budget is one more column: a loss after few epochs then speaks for its own
budget, and for larger ones as far as the data say.

Notation: n observations, P parameters, d model columns.
A space of cells is seen as graphs are (`cell_graph`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from app.search.cell_graph import CellGraph, columns
from app.search.matern_regression import Posterior, condition, fit
from app.search.observations import Observations
from app.search.parameters import Array
from app.search.space import Space

# A decision costs O(n³). With these limits it stays below 200 ms on one core however long the search is: the kernel is
# fitted on few points (its few numbers are well known by then), the posterior uses more.
_MOST_FITTED = 80
_MOST_CONDITIONED = 400

LEAST_LOSSES = 3  # below, there is nothing to fit


@dataclass(frozen=True, slots=True)
class Evidence:
    """What trials with a loss say.

    Attributes:
        space: what their configurations are points of.
        rows: (n, P) canonical coordinates.
        budgets: (n,) in [0, 1], on the scale of log(1 + epochs).
        targets: (n,) their losses, made about standard normal.
        graph: the cell that the space is of, if it is of one.
    """

    space: Space
    rows: Array
    budgets: Array
    targets: Array
    graph: CellGraph | None

    @classmethod
    def of(cls, observed: Observations, rows: Array, space: Space, *, targets: Array) -> Evidence:
        """The evidence of trials that all have a loss, at canonical rows (n, P), by their targets (n,)."""
        budgets = np.log1p(observed.budgets)
        budgets = budgets / max(float(budgets.max()), 1e-9)
        return cls(space, rows, budgets, targets, CellGraph.of(space))

    @property
    def has_budgets(self) -> bool:
        """Whether trials were trained to different budgets."""
        return bool(np.any(self.budgets != 1.0))

    @property
    def own_inputs(self) -> Array:
        """Model inputs (n, d) of the observations, each at its own budget."""
        known = columns(self.space, self.rows, self.graph)
        return np.column_stack([known, self.budgets]) if self.has_budgets else known

    def inputs(self, rows: Array) -> Array:
        """Model inputs (m, d) of canonical rows (m, P) at the largest budget."""
        known = columns(self.space, rows, self.graph)
        return np.column_stack([known, np.ones(len(rows))]) if self.has_budgets else known

    def posterior(self) -> Posterior:
        """The process that explains the evidence, its kernel learned from it."""
        inputs = self.own_inputs
        few = _subset(self.targets, _MOST_FITTED)
        kernel = fit(inputs[few], self.targets[few])
        many = _subset(self.targets, _MOST_CONDITIONED)
        return condition(kernel, inputs[many], self.targets[many])


def rank_scores(losses: Array) -> Array:
    """Normal quantiles (n,) of the ranks of losses (n,)."""
    return np.asarray(ndtri((rankdata(losses) - 0.5) / len(losses)))


def saturated(losses: Array) -> Array:
    """Losses (n,) as x / (x + 2 m), with mean 0 and variance 1, for a loss that is x above the least and a median m.

    Nearly the loss itself among the good, and never far from 1 among the bad. Scores of ranks when half of the losses
    are the least.
    """
    with np.errstate(over="ignore"):
        above = losses - losses.min()
        half_way = 2.0 * float(np.median(above))
    if not 0.0 < half_way < np.inf:
        return rank_scores(losses)
    above = np.minimum(above, 1e9 * half_way)
    shares = above / (above + half_way)
    return np.asarray((shares - shares.mean()) / shares.std())


def _subset(targets: Array, most: int) -> NDArray[np.intp]:
    """Indices of at most `most` points: the better half of them are the best, the others spread over the rest."""
    order = np.argsort(targets, kind="stable")
    if len(order) <= most:
        return np.arange(len(order))
    half = most // 2
    spread = np.linspace(half, len(order) - 1, most - half).round().astype(np.intp)
    return np.sort(np.concatenate([order[:half], order[spread]]))
