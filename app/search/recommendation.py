"""Which trial to believe in: the best expected loss, not the luckiest one.

The least of many noisy losses is partly luck. A Gaussian process over all trials tells how much of a loss its
neighbours confirm; what they do not explain is partly noise and partly the configuration's own.
"""

from __future__ import annotations

import numpy as np

from app.search.matern_regression import Posterior
from app.search.observations import Observations, observe
from app.search.sampler import UnitRows
from app.search.space import Space
from app.search.surrogate import Evidence
from app.search.trial import History, Resource

# The share of what the neighbours do not explain that is taken for the configuration's own. With 0 the process would
# smooth away what sets the best apart; with 1 the least loss would win, lucky or not.
_OWN_SHARE = 0.3

_FEWEST = 20  # with fewer losses the process knows too little to overrule the best of them


def ranking(space: Space, history: History) -> list[int]:
    """Numbers of the ended trials that have a loss, the best expected loss first.

    Args:
        space: what the trials' configurations are points of.
        history: all trials; each is judged at the budget it was trained to. Where folds count, trials with more folds
            come first: a mean over fewer is no better for being lower.
    """
    observed = observe(history.values()).known
    expected = observed.losses if len(observed.trials) < _FEWEST else _expected(observed, space)
    folds = -observed.budgets if history.resource is Resource.FOLDS else np.zeros(len(expected))
    order = np.lexsort((observed.losses, expected, folds))
    return [observed.trials[index].number for index in order]


def _expected(observed: Observations, space: Space) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Expected targets (n,), in the units of the evidence."""
    evidence = Evidence.of(observed, UnitRows(space).of(observed.trials), space)
    posterior: Posterior = evidence.posterior()
    mean = posterior.mean(evidence.own_inputs)
    return mean + _OWN_SHARE * (evidence.targets - mean)
