"""Where trials fail: out of memory, losses that are not numbers, layers that do not fit together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.search.matern_regression import Posterior, condition, fit
from app.search.parameters import Array
from app.search.space import Space

_MOST_ROWS = 64  # of each kind; a boundary needs no more
_LEAST_PROBABILITY = 0.01


@dataclass(frozen=True, slots=True)
class Feasibility:
    """The probability that a trial does not fail: least-squares classification by a Gaussian process.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), section 6.5: the labels 0 and 1 are
    targets of a regression, and its mean, clipped, is taken for the probability. The learned noise tells failures by
    chance, which say nothing about a configuration, from failures of a region.
    """

    space: Space
    posterior: Posterior
    center: float
    scale: float

    @classmethod
    def learned(cls, space: Space, succeeded: Array, failed: Array) -> Feasibility:
        """From canonical rows (n, P) of trials that had a loss and (m, P) of those that failed, both at least one."""
        good, bad = _spread(succeeded), _spread(failed)
        # As often as in the history, whatever was left out.
        center = len(succeeded) / (len(succeeded) + len(failed))
        scale = float(np.sqrt(center * (1.0 - center)))
        inputs = space.columns(np.concatenate([good, bad]))
        labels = np.concatenate([np.ones(len(good)), np.zeros(len(bad))])
        targets = np.asarray((labels - center) / scale)
        return cls(space, condition(fit(inputs, targets, max_evaluations=12), inputs, targets), center, scale)

    def log_probability(self, rows: Array) -> Array:
        """Logarithm (m,) of the probability that trials at canonical rows (m, P) have a loss."""
        mean = self.center + self.scale * self.posterior.mean(self.space.columns(rows))
        return np.asarray(np.log(np.clip(mean, _LEAST_PROBABILITY, 1.0)))


def _spread(rows: Array) -> Array:
    """At most `_MOST_ROWS` of the rows, evenly over their order; the latest always."""
    if len(rows) <= _MOST_ROWS:
        return rows
    kept: NDArray[np.intp] = np.linspace(0, len(rows) - 1, _MOST_ROWS).round().astype(np.intp)
    return rows[kept]
