"""Where good trials are dense and bad ones are not: a tree-structured density ratio.

Bergstra, Bardenet, Bengio, Kégl: "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, section 4; the joint
("multivariate") kernels and the rules for bandwidths follow Watanabe: "Tree-Structured Parzen Estimator", 2023.

Notation: m points, c centres (trials), P parameters; densities are relative to the uniform one, so that a parameter
without influence, or one that is inactive, contributes a factor of 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from app.search.observations import Observations, observe_rung
from app.search.parameters import Array, Categorical, Parameter
from app.search.random import RandomSampler
from app.search.sampler import Sampler, Shared, UnitRows, draw_new
from app.search.space import INACTIVE, Configuration, Space, num_equal_cells
from app.search.trial import History

NUM_INITIAL = 11  # the defaults and ten quasi-random trials

_GOOD_SHARE = 0.15
_MOST_GOOD = 25
_MOST_BAD = 400  # more cost time and say little: the others are spread evenly over the ranks
_NUM_CANDIDATES = 256
_MORE_CANDIDATES = 16  # for each configuration of a batch
_MOST_CELLS = 64  # a countable parameter with more values is treated as continuous
_LEAST_WIDTH = 0.02  # of a kernel, as a share of the range


@dataclass(frozen=True, slots=True)
class _Kernel:
    """The kernel of one parameter around c centres.

    Args:
        centers: (c,) coordinates; `INACTIVE` where the centre lacks the parameter: its kernel is then uniform.
        cells: row-stochastic (k, k) for k values; None for a continuous parameter.
        width: standard deviation of a continuous kernel.
    """

    centers: Array
    cells: Array | None
    width: float

    def log_ratio(self, points: Array) -> Array:
        """Logarithm (m, c) of each kernel's density at points (m,), relative to the uniform density."""
        both = (points[:, None] != INACTIVE) & (self.centers[None, :] != INACTIVE)
        if self.cells is not None:
            count = len(self.cells)
            table = np.log(self.cells * count)
            logs = table[_cells(self.centers, count)[None, :], _cells(points, count)[:, None]]
        else:
            z = (points[:, None] - self.centers[None, :]) / self.width
            mass = ndtr((1.0 - self.centers) / self.width) - ndtr(-self.centers / self.width)
            logs = -0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - np.log(self.width * np.maximum(mass, 1e-12))
        return np.where(both, logs, 0.0)

    def draw(self, chosen: Array, rng: np.random.Generator) -> Array:
        """A coordinate (m,) from the kernel around each of the chosen centres (m,)."""
        uniform = rng.random(len(chosen))
        if self.cells is not None:
            count = len(self.cells)
            ends = np.cumsum(self.cells, axis=1)[_cells(chosen, count)]
            drawn = (np.minimum((ends < uniform[:, None]).sum(axis=1), count - 1) + 0.5) / count
        else:
            low, high = ndtr(-chosen / self.width), ndtr((1.0 - chosen) / self.width)
            drawn = np.clip(chosen + self.width * ndtri(low + uniform * (high - low)), 0.0, 1.0)
        return np.where(chosen == INACTIVE, uniform, drawn)


@dataclass(frozen=True, slots=True)
class _Density:
    """A mixture of c product kernels, one a trial, and the uniform density as one more component."""

    kernels: tuple[_Kernel, ...]
    log_weights: Array

    @classmethod
    def around(cls, space: Space, centers: Array, weights: Array) -> _Density:
        """The density around canonical centres (c, P) with weights (c + 1,), the uniform component's last."""
        spread = 0.2 * max(len(centers), 1) ** (-1.0 / (len(space.parameters) + 4))
        kernels = tuple(
            _kernel(parameter, centers[:, index], width=max(spread, _LEAST_WIDTH))
            for index, parameter in enumerate(space.parameters)
        )
        return cls(kernels=kernels, log_weights=np.log(weights / weights.sum()))

    def log_ratio(self, points: Array) -> Array:
        """Logarithm (m,) of the density at canonical points (m, P), relative to the uniform density."""
        logs = np.zeros((len(points), len(self.log_weights)))
        for index, kernel in enumerate(self.kernels):
            logs[:, :-1] += kernel.log_ratio(points[:, index])
        return np.asarray(logsumexp(logs + self.log_weights, axis=1))

    def around_one(self, center: Array, points: Array) -> Array:
        """Logarithm (m,) of the density of one more component, around a canonical row (P,)."""
        logs = np.zeros(len(points))
        for index, kernel in enumerate(self.kernels):
            alone = replace(kernel, centers=center[index : index + 1])
            logs += alone.log_ratio(points[:, index])[:, 0]
        return logs

    def draw(self, num: int, rng: np.random.Generator) -> Array:
        """Coordinates (num, P) from the density, not yet canonical."""
        component = rng.choice(len(self.log_weights), size=num, p=np.exp(self.log_weights))
        # The uniform component has no centre: its coordinates are marked as a kernel marks a missing one.
        columns = [np.append(kernel.centers, INACTIVE)[component] for kernel in self.kernels]
        return np.column_stack([kernel.draw(column, rng) for kernel, column in zip(self.kernels, columns, strict=True)])


@final
class DensityRatioSampler(Sampler):
    """Tree-structured Parzen estimator; for many observations or heavily conditional spaces.

    The best 15 % of the trials (25 at most) make one density, the others a second one; of the candidates drawn from
    the first, the one with the largest ratio is suggested. Parameters are modelled jointly, each only where it is
    active. Failed and running trials belong to the bad ones, which keeps parallel suggestions apart. Trials of several
    budgets are judged at the largest one that enough of them reached.

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
        observed = observe_rung(history.values(), least=len(self.space.parameters) + 1)
        if len(history) < NUM_INITIAL or observed.num_known < 3:
            return self._start.sample(history, num, rng, alike=alike)
        good, bad = self._split(observed)
        bad = np.concatenate([bad, self._rows.of(history.running)])
        # Better trials weigh more (as in expected improvement); the uniform component keeps the search open.
        attraction = _Density.around(self.space, good, np.append(np.arange(len(good), 0.0, -1.0), 1.0))
        repulsion = _Density.around(self.space, bad, np.ones(len(bad) + 1))
        candidates = attraction.draw(_NUM_CANDIDATES + _MORE_CANDIDATES * num, rng)
        seen: set[Hashable] = {*self._rows.keys(history)}
        shared = Shared(self.space, alike)
        first = 1 if alike else num
        chosen = self._choose(attraction, repulsion, shared.imposed(candidates), first, seen, rng, shared)
        if chosen and first < num:
            repulsion = _Density.around(self.space, np.concatenate([bad, chosen]), np.ones(len(bad) + 2))
            members = shared.imposed(candidates)
            chosen += self._choose(attraction, repulsion, members, num - first, seen, rng, shared)
        return [self.space.from_units(row) for row in chosen]

    def _split(self, observed: Observations) -> tuple[Array, Array]:
        """Canonical rows of the good trials, best first, and of the others."""
        rows = self._rows.of(observed.trials)
        order = np.argsort(np.where(np.isnan(observed.losses), np.inf, observed.losses), kind="stable")
        num_good = min(math.ceil(_GOOD_SHARE * observed.num_known), _MOST_GOOD)
        others = order[num_good:]
        if len(others) > _MOST_BAD:
            others = others[np.linspace(0, len(others) - 1, _MOST_BAD).round().astype(np.intp)]
        return rows[order[:num_good]], rows[others]

    def _choose(
        self,
        attraction: _Density,
        repulsion: _Density,
        candidates: Array,
        num: int,
        seen: set[Hashable],
        rng: np.random.Generator,
        shared: Shared,
    ) -> list[Array]:
        """Up to `num` canonical rows (P,), each with the largest ratio given that those before it are bad."""
        wanted, unwanted = attraction.log_ratio(candidates), repulsion.log_ratio(candidates)
        weight = repulsion.log_weights[-1]
        keys = self.space.keys(candidates)
        fresh = np.array([key not in seen for key in keys])
        chosen: list[Array] = []
        while len(chosen) < num:
            if fresh.any():
                row = candidates[int(np.argmax(np.where(fresh, wanted - unwanted, -np.inf)))]
            else:
                left = draw_new(self.space, seen, rng, shared)
                if left is None:
                    break
                row = self.space.units(left)
            key = self.space.keys(row[None, :])[0]
            chosen.append(row)
            shared.learn(row)
            seen.add(key)
            # A parameter that no member before this one had is shared from here on.
            fresh &= shared.fits(candidates) & np.array([other != key for other in keys])
            # One more bad centre; the others' weights fall by one part in many, which is left out.
            unwanted = np.logaddexp(unwanted, weight + repulsion.around_one(row, candidates))
        return chosen


def _kernel(parameter: Parameter, centers: Array, *, width: float) -> _Kernel:
    count = num_equal_cells(parameter)
    if count == 0 or count > _MOST_CELLS:
        return _Kernel(centers=centers, cells=None, width=width)
    if isinstance(parameter, Categorical) and not parameter.ordered:
        # One count for each choice from the start, spread over the centres (Laplace): few centres stay open-minded.
        share = count / (len(centers) + 1 + count)
        cells = (1.0 - share) * np.eye(count) + share / count
    else:
        middles = (np.arange(count) + 0.5) / count
        # No narrower than to reach the neighbour.
        reach = max(width, 0.5 / count)
        cells = np.exp(-0.5 * ((middles[:, None] - middles[None, :]) / reach) ** 2) + 1e-6
        cells /= cells.sum(axis=1, keepdims=True)
    return _Kernel(centers=centers, cells=cells, width=width)


def _cells(units: Array, count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.clip((units * count).astype(np.intp), 0, count - 1)
