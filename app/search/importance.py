"""Which parameters decide how good a trial is.

Functional ANOVA (Hutter, Hoos, Leyton-Brown: "An Efficient Approach for Assessing Hyperparameter Importance", ICML
2014): a model of the trials says how much of the variance over the whole space goes back to each parameter, alone or
together with others. So it does not matter that a search looks at good places more often than at bad ones; methods that
compare the trials themselves (PED-ANOVA) then see little of the parameters that the search has settled.

Departures: a Gaussian process in place of a random forest, since it needs fewer trials; total effects, so that what two
parameters do together counts for both; losses become normal quantiles of their ranks, so that one disaster is not the
whole variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from app.search.matern_regression import condition, fit
from app.search.parameters import Array
from app.search.space import Space
from app.search.trial import Completed, Failed, History, Trial

MIN_TRIALS = 6
"""With fewer trials that have a result, nothing is said."""

_LEAST_EXPLAINED = 0.02  # share of the variance below which the model has found nothing
_NUM_POINTS = 512
_MOST_FITTED = 128  # the kernel costs O(n³) an evaluation
_MOST_CONDITIONED = 400


def importance(space: Space, history: History) -> Mapping[str, float]:
    """Each parameter's share of the differences between trials, largest first; the shares sum to 1.

    {} when fewer than `MIN_TRIALS` trials have a result. When no parameter explains anything, all have equal shares.
    Deterministic. Trials trained to different budgets are compared at the largest budget that half of them
    reached; failed trials count as the worst.

    Args:
        space: what is searched; values of parameters that were added during the search are the defaults before.
        history: all trials.
    """
    trials, losses = _comparable(history)
    if len(trials) < MIN_TRIALS:
        return {}
    inputs = space.columns(np.array([space.units(trial.hyperparameters) for trial in trials]))
    movable = np.array([parameter.num_values != 1 for parameter in space.parameters])
    effects = np.zeros(len(movable))
    if movable.any():
        targets = np.asarray(ndtri((rankdata(losses) - 0.5) / len(losses)))
        few = np.random.default_rng(0).permutation(len(losses))
        kernel = fit(inputs[few[:_MOST_FITTED]], targets[few[:_MOST_FITTED]])
        posterior = condition(kernel, inputs[few[:_MOST_CONDITIONED]], targets[few[:_MOST_CONDITIONED]])
        effects = _total_effects(space, lambda rows: posterior.mean(space.columns(rows)))
    if effects.sum() < _LEAST_EXPLAINED:
        effects = movable.astype(np.float64) if movable.any() else np.ones(len(movable))
    shares = dict(zip(space.names, (effects / effects.sum()).tolist(), strict=True))
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


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


def _total_effects(space: Space, predict: Callable[[Array], Array]) -> Array:
    """Total effects (P,) of the parameters on `predict`, which maps canonical rows (n, P) to (n,).

    Saltelli et al., "Variance based sensitivity analysis of model output", Computer Physics Communications 181 (2010),
    Jansen's estimator (table 2, f): half the mean squared change when one parameter is drawn anew. A parent's change
    makes its children exist or not, which counts for the parent.
    """
    rng = np.random.default_rng(0)
    num_parameters = len(space.parameters)
    before, after = rng.random((2, _NUM_POINTS, num_parameters))
    reference = predict(space.canonical(before))
    effects = np.zeros(num_parameters)
    for index, parameter in enumerate(space.parameters):
        if parameter.num_values == 1:
            continue
        changed = before.copy()
        changed[:, index] = after[:, index]
        effects[index] = 0.5 * np.mean((predict(space.canonical(changed)) - reference) ** 2)
    return effects
