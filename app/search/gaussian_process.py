"""Bayesian optimisation: a Gaussian process over what was tried, expected improvement for what comes next."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from app.search.acquisition import log_expected_improvement
from app.search.feasibility import Feasibility
from app.search.matern_regression import Forecast, Posterior, extend
from app.search.observations import observe_rungs
from app.search.parameters import Array
from app.search.random import RandomSampler
from app.search.sampler import Sampler, Shared, UnitRows, draw_new
from app.search.space import INACTIVE, Configuration, Space
from app.search.surrogate import LEAST_LOSSES, Evidence, rank_scores, saturated
from app.search.trial import History

NUM_INITIAL = 8  # the defaults and seven quasi-random trials come before the model is asked

_NUM_RANDOM = 600
_NUM_PARENTS = 8
_NUM_MUTANTS = 50  # of each parent
# The improvement counts by this power of the probability that the trial does not fail. Where the best region lay behind
# a border of failures, two fifths of the late trials failed with the square, under a third with the eighth power, and
# the best found was no worse.
_CAUTION = 8.0

_LEAST_CELLS = 32  # of a continuous parameter's range

_MOST_LISTED = 1000  # a space with no more configurations is judged as a whole


@dataclass(frozen=True, slots=True)
class _Model:
    """What the sampler believes: of the losses, and of where trials fail."""

    evidence: Evidence
    posterior: Posterior
    feasibility: Feasibility | None

    @property
    def best(self) -> float:
        """The best predicted target rather than the best reported one, which is partly luck."""
        promising = np.argsort(self.evidence.targets, kind="stable")[:50]
        return float(self.posterior.mean(self.evidence.inputs(self.evidence.rows[promising])).min())


class _Tried:
    """What was tried, and in which cells of a coarse grid: trials that gather in one cell tell little anew.

    Args:
        space: what rows are points of.
        rows: (n, P) canonical; what may not be tried again.
        again: (m, P) canonical; what was tried and may go on, wherever it lies.
    """

    def __init__(self, space: Space, rows: Array, again: Array) -> None:
        self._space = space
        self._continuous = np.array([parameter.num_values is None for parameter in space.parameters])
        # Finer as trials become many.
        self._num_cells = max(_LEAST_CELLS, len(rows) // 4)
        self._again = set(space.keys(again))
        self.keys: set[Hashable] = set(space.keys(rows))
        self._cells = {cell for _, cell in self.places(rows)}

    def add(self, row: Array) -> None:
        """Take a canonical row (P,)."""
        ((key, cell),) = self.places(row[None, :])
        self.keys.add(key)
        self._cells.add(cell)

    def places(self, rows: Array) -> list[tuple[Hashable, Hashable]]:
        """The key and the cell of each canonical row (n, P)."""
        rounded = np.rint(rows * self._num_cells) / self._num_cells
        cells = np.where(self._continuous & (rows != INACTIVE), rounded, rows)
        return list(zip(self._space.keys(rows), self._space.keys(cells), strict=True))

    def fresh(self, places: Sequence[tuple[Hashable, Hashable]]) -> NDArray[np.bool_]:
        """Which of some places (m,) lie in cells of their own; which are new, when none does."""
        new = np.array([key not in self.keys for key, _ in places])
        alone = new & np.array([cell not in self._cells or key in self._again for key, cell in places])
        return alone if alone.any() else new


@final
class GaussianProcessSampler(Sampler):
    """Gaussian process with log expected improvement; for up to about 30 parameters, mixed and conditional.

    Failed trials have a model of their own: the improvement expected of a point counts as far as it is expected not to
    fail. Running trials are taken to end at their predicted loss, which keeps parallel suggestions apart. Candidates
    are random points, mutations of the best eight trials and paused trials that may be resumed; no other point is
    suggested twice, and none beside another in a cell of a coarse grid while there are others.

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
        model = self._model(history) if len(history) >= NUM_INITIAL else None
        if model is None:
            # Until the model knows enough, a batch is quasi-random as a whole.
            return self._start.sample(history, num, rng, alike=alike)
        shared = Shared(self.space, alike)
        paused = [history[number] for number in sorted(history.again)]
        paused_rows = self._rows.of(paused)
        tried = _Tried(self.space, self._rows.closed(history), paused_rows)
        candidates = np.concatenate([self._candidates(_parents(model.evidence), rng), paused_rows])
        if not alike or num == 1:
            chosen = self._choose(model, candidates, num, tried, rng, shared)
        else:
            chosen = self._choose(model, candidates, 1, tried, rng, shared)
            if chosen:
                believed = extend(model.posterior, model.evidence.inputs(np.array(chosen)))
                model = _Model(model.evidence, believed, model.feasibility)
                chosen += self._choose(model, shared.imposed(candidates), num - 1, tried, rng, shared)
        # In its own words: a number that went to its coordinate and back may differ in its last digit, and nobody would
        # know the trial again.
        own = dict(zip(self.space.keys(paused_rows), paused, strict=True))
        found = [own.get(self.space.keys(row[None, :])[0]) for row in chosen]
        return [
            self.space.from_units(row) if trial is None else trial.hyperparameters
            for row, trial in zip(chosen, found, strict=True)
        ]

    def _model(self, history: History) -> _Model | None:
        """What the history teaches; None when too few trials have a loss."""
        observed = observe_rungs(history.values())
        if observed.num_known < LEAST_LOSSES:
            return None
        known, failed = observed.known, self._rows.of(observed.failed)
        countable = self.space.num_configurations is not None
        targets = rank_scores(known.losses) if countable else saturated(known.losses)
        evidence = Evidence.of(known, self._rows.of(known.trials), self.space, targets=targets)
        posterior = evidence.posterior()
        pending = self._rows.of(history.running)
        if len(pending):
            posterior = extend(posterior, evidence.inputs(pending))
        # Each trial once, whatever the number of its losses.
        succeeded = self._rows.of({trial.number: trial for trial in known.trials}.values())
        feasibility = Feasibility.learned(self.space, succeeded, failed) if len(failed) else None
        return _Model(evidence, posterior, feasibility)

    def _choose(
        self,
        model: _Model,
        candidates: Array,
        num: int,
        tried: _Tried,
        rng: np.random.Generator,
        shared: Shared,
    ) -> list[Array]:
        """Up to `num` canonical rows (P,), each with the largest expected improvement given those before it."""
        forecast = Forecast(model.posterior, model.evidence.inputs(candidates), most_chosen=num)
        doubts = 0.0 if model.feasibility is None else _CAUTION * model.feasibility.log_probability(candidates)
        best, places = model.best, tried.places(candidates)
        chosen: list[Array] = []
        while len(chosen) < num:
            # A parameter that no member before had is shared from then on.
            fresh = tried.fresh(places) & shared.fits(candidates)
            if fresh.any():
                value = log_expected_improvement(forecast.mean, forecast.deviation, best) + doubts
                index = int(np.argmax(np.where(fresh, value, -np.inf)))
                row = candidates[index]
                forecast.choose(index)
            else:
                left = draw_new(self.space, tried.keys, rng, shared)
                if left is None:
                    break
                row = self.space.units(left)
            chosen.append(row)
            shared.learn(row)
            tried.add(row)
        return chosen

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


def _parents(evidence: Evidence) -> Array:
    """Canonical rows of the best configurations, each once whatever the number of its losses."""
    ordered = evidence.rows[np.argsort(evidence.targets, kind="stable")]
    firsts = np.unique(ordered, axis=0, return_index=True)[1]
    return np.asarray(ordered[np.sort(firsts)[:_NUM_PARENTS]])
