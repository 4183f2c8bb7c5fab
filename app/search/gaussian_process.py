"""Bayesian optimisation: a Gaussian process over what was tried, expected improvement for what comes next."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from app.search.acquisition import log_expected_improvement
from app.search.matern_regression import Posterior, condition, extend, fit
from app.search.parameters import Array
from app.search.random import RandomSampler
from app.search.sampler import Sampler, Shared, UnitRows, draw_new
from app.search.space import Configuration, Space
from app.search.trial import Failed, History, Trial

NUM_INITIAL = 11  # the defaults and ten quasi-random trials come before the model is asked

# A decision costs O(n³). With these limits it stays below 200 ms on one core however long the search is: the kernel is
# fitted on few points (its few numbers are well known by then), the posterior uses more.
_MOST_FITTED = 128
_MOST_CONDITIONED = 400

_NUM_RANDOM = 600
_NUM_PARENTS = 8
_NUM_MUTANTS = 50  # of each parent
_MOST_LISTED = 1000  # a space with no more configurations is judged as a whole


@dataclass(frozen=True, slots=True)
class _Data:
    """Observations as arrays: rows (n, P), budgets (n,) in [0, 1], targets (n,); rows of running trials (m, P)."""

    rows: Array
    budgets: Array
    targets: Array
    pending: Array

    @property
    def has_budgets(self) -> bool:
        """Whether trials were trained to different budgets."""
        return bool(np.any(self.budgets != 1.0))


@final
class GaussianProcessSampler(Sampler):
    """Gaussian process with log expected improvement; for up to about 30 parameters, mixed and conditional.

    Losses become normal quantiles of their ranks, so neither scale nor outliers matter; failed trials count as bad as
    the worst one seen. Running trials are taken to end at their predicted loss, which keeps parallel suggestions apart.
    Candidates are random points and mutations of the best eight trials; a point is never suggested twice.

    Args:
        space: what may be drawn.
        seed: of the quasi-random start; >= 0.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self.space = space
        self._start = RandomSampler(space, seed=seed)
        self._rows = UnitRows(space)

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """See `Sampler.sample`."""
        data = self._data(history)
        if len(history) < NUM_INITIAL or data is None:
            # Until the model knows enough, a batch is quasi-random as a whole.
            return self._start.sample(history, num, rng, alike=alike)
        posterior = self._posterior(data)
        seen: set[Hashable] = {*self._rows.keys(history)}
        shared = Shared(self.space, alike)
        configurations: list[Configuration] = []
        while len(configurations) < num:
            row = self._most_promising(posterior, data, seen, rng, shared)
            if row is None:
                break
            configurations.append(self.space.from_units(row))
            shared.learn(row)
            seen.add(self.space.keys(row[None, :])[0])
            if len(configurations) < num:
                posterior = extend(posterior, self._inputs(row[None, :], data))
        return configurations

    def _data(self, history: History) -> _Data | None:
        """Arrays of the history; None when fewer than three trials have a loss."""
        ended = [trial for trial in history.values() if trial.outcome is not None]
        losses = np.array([_loss(trial) for trial in ended])
        known = np.isfinite(losses)
        if known.sum() < 3:
            return None
        losses[~known] = losses[known].max()
        ranks = rankdata(losses)
        budgets = np.log1p([trial.budget for trial in ended])
        return _Data(
            rows=self._rows.of(ended),
            budgets=budgets / budgets.max(),
            targets=np.asarray(ndtri((ranks - 0.5) / len(ranks))),
            pending=self._rows.of(history.running),
        )

    def _inputs(self, rows: Array, data: _Data) -> Array:
        """Model inputs of rows (m, P) at full budget."""
        columns = self.space.columns(rows)
        return np.column_stack([columns, np.ones(len(rows))]) if data.has_budgets else columns

    def _posterior(self, data: _Data) -> Posterior:
        inputs = self.space.columns(data.rows)
        if data.has_budgets:
            inputs = np.column_stack([inputs, data.budgets])
        few = _subset(data.targets, _MOST_FITTED)
        kernel = fit(inputs[few], data.targets[few])
        many = _subset(data.targets, _MOST_CONDITIONED)
        posterior = condition(kernel, inputs[many], data.targets[many])
        return extend(posterior, self._inputs(data.pending, data)) if len(data.pending) else posterior

    def _most_promising(
        self, posterior: Posterior, data: _Data, seen: set[Hashable], rng: np.random.Generator, shared: Shared
    ) -> Array | None:
        """The canonical row (P,) with the largest expected improvement among those not seen."""
        best_first = np.argsort(data.targets, kind="stable")
        # The best predicted loss rather than the best reported one, which is partly luck.
        best = float(posterior.mean(self._inputs(data.rows[best_first[:50]], data)).min())
        candidates = self._candidates(data.rows[best_first[:_NUM_PARENTS]], rng)
        if shared:
            candidates = shared.imposed(candidates)
        mean, deviation = posterior.mean_and_deviation(self._inputs(candidates, data))
        order = np.argsort(-log_expected_improvement(mean, deviation, best), kind="stable")
        keys = self.space.keys(candidates)
        for index in order:
            if keys[index] not in seen:
                return np.asarray(candidates[index])
        left = draw_new(self.space, seen, rng, shared)
        return None if left is None else self.space.units(left)

    def _candidates(self, parents: Array, rng: np.random.Generator) -> Array:
        count = self.space.num_configurations
        if count is not None and count <= _MOST_LISTED:
            return self._listed
        fresh = self.space.canonical(rng.random((_NUM_RANDOM, len(self.space.parameters))))
        crowd = np.repeat(parents, _NUM_MUTANTS, axis=0)
        mutants = self.space.mutate_units(crowd, rng=rng, num_changes=rng.integers(1, 3, len(crowd)))
        return np.concatenate([fresh, mutants])

    @cached_property
    def _listed(self) -> Array:
        return np.array([self.space.units(configuration) for configuration in self.space.enumerate()])


def _loss(trial: Trial) -> float:
    if isinstance(trial.outcome, Failed) or trial.loss is None:
        return math.nan
    return trial.loss


def _subset(targets: Array, most: int) -> NDArray[np.intp]:
    """Indices of at most `most` points: the better half of them are the best, the others spread over the rest."""
    order = np.argsort(targets, kind="stable")
    if len(order) <= most:
        return np.arange(len(order))
    half = most // 2
    spread = np.linspace(half, len(order) - 1, most - half).round().astype(np.intp)
    return np.sort(np.concatenate([order[:half], order[spread]]))
