"""Which parameters decide how good a trial is.

PED-ANOVA: Watanabe, Bansal, Hutter: "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI 2023, equation 16: the Pearson divergence between where a parameter lies in the best trials and where
it lies in all of them. It costs one pass over the trials and one density for each parameter.

Departures: what equally large random subsets of the trials show is subtracted, since with few trials every parameter
seems to matter a little; several quantiles are averaged, so that the answer does not hang on one threshold; a parameter
that exists under conditions only is judged among the trials that have it and weighted by their share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.search.parameters import Array, Categorical, Parameter
from app.search.space import INACTIVE, Space
from app.search.trial import Completed, Failed, History, Trial

MIN_TRIALS = 6
"""With fewer trials that have a result, nothing is said."""

_QUANTILES = (0.15, 0.3, 0.5)
_NUM_SUBSETS = 100
_NUM_CELLS = 32  # cells of a numeric parameter's range in which densities are compared
_SHARE_UNIFORM = 0.5  # weight, in trials, of the uniform density that keeps a cell without trials from being impossible


def importance(space: Space, history: History) -> Mapping[str, float]:
    """Each parameter's share of the differences between trials, largest first; the shares sum to 1.

    {} when fewer than `MIN_TRIALS` trials have a result. When no parameter shows more than chance does, all have equal
    shares. Deterministic. Trials trained to different budgets are compared at the largest budget that half of them
    reached; failed trials count as the worst.

    Args:
        space: what is searched; values of parameters that were added during the search are the defaults before.
        history: all trials.
    """
    trials, losses = _comparable(history)
    if len(trials) < MIN_TRIALS:
        return {}
    units = np.array([space.units(trial.hyperparameters) for trial in trials])
    scores = {
        parameter.name: _score(parameter, units[:, index], losses) for index, parameter in enumerate(space.parameters)
    }
    total = sum(scores.values())
    if total <= 0.0:
        movable = [parameter.name for parameter in space.parameters if parameter.num_values != 1] or list(space.names)
        return {name: 1.0 / len(movable) if name in movable else 0.0 for name in space.names}
    ordered = sorted(scores, key=lambda name: (-scores[name], space.names.index(name)))
    return {name: scores[name] / total for name in ordered}


def _comparable(history: History) -> tuple[list[Trial], Array]:
    """Trials with losses (n,) at one budget; the failed ones with an infinite loss."""
    ended = [trial for trial in history.values() if trial.outcome is not None]
    alive = [trial for trial in ended if not isinstance(trial.outcome, Failed) and trial.loss is not None]
    if not alive:
        return [], np.empty(0)
    reached = sorted(map(_reach, alive), reverse=True)
    # At least half of them, and enough to say anything.
    level = reached[min(max((len(reached) + 1) // 2, MIN_TRIALS), len(reached)) - 1]
    compared: list[Trial] = []
    losses: list[float] = []
    for trial in ended:
        if isinstance(trial.outcome, Failed):
            compared.append(trial)
            losses.append(math.inf)
        elif _reach(trial) >= level:
            loss = trial.loss if math.isinf(level) else trial.loss_until(int(level))
            if loss is not None:
                compared.append(trial)
                losses.append(loss)
    if sum(map(math.isfinite, losses)) < MIN_TRIALS:
        return [], np.empty(0)
    return compared, np.array(losses)


def _reach(trial: Trial) -> float:
    """Epochs up to which the trial's loss is known; a completed one stays as good as it is."""
    return math.inf if isinstance(trial.outcome, Completed) else trial.epochs


def _score(parameter: Parameter, units: Array, losses: Array) -> float:
    """Divergence beyond chance, >= 0, of one parameter with coordinates (n,)."""
    active = units != INACTIVE
    num_active = int(active.sum())
    if parameter.num_values == 1 or num_active < MIN_TRIALS:
        return 0.0
    weights = _cell_weights(parameter, units[active])
    order = np.argsort(losses[active], kind="stable")
    # The first row ranks the trials by loss, the others by lot.
    ranks = np.vstack([np.argsort(order), np.random.default_rng(0).random((_NUM_SUBSETS, num_active)).argsort(axis=1)])
    beyond = []
    for quantile in _QUANTILES:
        found, *by_chance = _divergence(weights, ranks < max(2, math.ceil(quantile * num_active)))
        beyond.append(quantile * quantile * max(float(found) - float(np.mean(by_chance)), 0.0))
    return float(np.mean(beyond)) * num_active / len(losses)


def _divergence(weights: Array, members: NDArray[np.bool_]) -> Array:
    """Pearson divergences (s,) of subsets (s, n) of the trials from all; each row of weights (n, cells) sums to 1."""
    uniform = _SHARE_UNIFORM / weights.shape[1]
    everywhere = weights.sum(axis=0) + uniform
    everywhere = everywhere / everywhere.sum()
    best = members.astype(np.float64) @ weights + _SHARE_UNIFORM * everywhere
    best = best / best.sum(axis=1, keepdims=True)
    return np.asarray(((best / everywhere - 1.0) ** 2 * everywhere).sum(axis=1))


def _cell_weights(parameter: Parameter, units: Array) -> Array:
    """How much of each trial (n,) belongs to each cell (n, cells): all in its own, or spread over the near ones."""
    count = parameter.num_values
    if isinstance(parameter, Categorical) and not parameter.ordered:
        return np.asarray(np.eye(count or 1)[np.minimum((units * (count or 1)).astype(np.intp), (count or 1) - 1)])
    cells = min(count or _NUM_CELLS, _NUM_CELLS)
    centres = (np.arange(cells) + 0.5) / cells
    # Scott's rule, never narrower than a cell.
    bandwidth = max(1.06 * float(np.std(units)) * len(units) ** -0.2, 0.5 / cells)
    kernel = np.exp(-0.5 * ((units[:, None] - centres[None, :]) / bandwidth) ** 2)
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True))


__all__: Sequence[str] = ["MIN_TRIALS", "importance"]
