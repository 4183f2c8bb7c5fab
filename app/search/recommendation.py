"""Which trial to believe in: the best expected loss, not the luckiest one.

The least of many noisy losses is partly luck. A Gaussian process over all trials tells how much of a loss its
neighbours confirm; what they do not explain is partly noise and partly the configuration's own.

To choose among what was tried, how much better matters, not ranks alone: the process sees `saturated` losses.
"""

from __future__ import annotations

import numpy as np

from app.search.observations import Observations, observe
from app.search.parameters import Array
from app.search.sampler import UnitRows
from app.search.space import Space
from app.search.surrogate import Evidence, saturated
from app.search.trial import History, Resource

# The share of what the neighbours do not explain that is taken for the configuration's own. With 0 the process would
# smooth away what sets the best apart; with 1 the least loss would win, lucky or not.
_OWN_SHARE = 0.3

FEWEST = 30
"""With fewer losses the process knows too little to overrule the best of them."""


def ranking(space: Space, history: History) -> list[int]:
    """Numbers of the ended trials that have a loss, the best expected loss first.

    Args:
        space: what the trials' configurations are points of.
        history: all trials; each is judged at the budget it was trained to. Where folds count, trials with more folds
            come first: a mean over fewer is no better for being lower.
    """
    observed = observe(history.values()).known
    expected = observed.losses if len(observed.trials) < FEWEST else _expected(observed, space)
    folds = -observed.budgets if history.resource is Resource.FOLDS else np.zeros(len(expected))
    order = np.lexsort((observed.losses, expected, folds))
    return [observed.trials[index].number for index in order]


def _expected(observed: Observations, space: Space) -> Array:
    """Expected targets (n,), in the units of `saturated`."""
    rows, targets = UnitRows(space).of(observed.trials), saturated(observed.losses)
    evidence = Evidence.of(observed, rows, space, targets=targets)
    mean = evidence.posterior().mean(evidence.own_inputs)
    return np.asarray(mean + _OWN_SHARE * (targets - mean))
