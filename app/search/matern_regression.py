"""Gaussian process regression with a Matérn-5/2 kernel; arrays only, it knows no trials.

Notation (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006): n points, d columns;
    X (n, d) inputs in [0, 1];  y (n,) targets, about standard normal;  l (d,) length-scales;
    k(x, x') = s (1 + a + a²/3) exp(-a), a = √5 r, r² = Σ ((x - x') / l)²;  K = k(X, X) + noise I = L Lᵀ;  α = K⁻¹ y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, lapack, solve_triangular
from scipy.optimize import minimize

from app.search.parameters import Array

_JITTER = 1e-6

# Believed targets are nearly free of noise: with the learned noise a batch would try the same place again. Not quite
# free, so that equal points leave the matrix positive definite.
_BELIEF_NOISE = 1e-4

# Weak priors on the logarithms (mean, standard deviation): they keep length-scales finite while points are few.
# Distances grow with √d, so the length-scale that makes typical points neighbours does too. A wide prior lets columns
# without influence drop out; a narrow one (1.0) cost about a third more regret on tables of architectures.
_LENGTH_PRIOR = (0.0, 2.0)
_SIGNAL_PRIOR = (0.0, 0.7)
_NOISE_PRIOR = (math.log(0.05), 1.5)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Length-scales (d,), signal variance and noise variance."""

    lengths: Array
    signal: float
    noise: float


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the process knows after n points: X (n, d), L (n, n) lower triangular, α (n,)."""

    kernel: Kernel
    inputs: Array
    factor: Array
    weights: Array

    def mean(self, points: Array) -> Array:
        """Posterior mean (m,) at points (m, d)."""
        return np.asarray(_covariance(self.kernel, points, self.inputs) @ self.weights)

    def mean_and_deviation(self, points: Array) -> tuple[Array, Array]:
        """Posterior mean (m,) and standard deviation (m,) of the noise-free function at points (m, d)."""
        cross = _covariance(self.kernel, points, self.inputs)
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        variance = self.kernel.signal - np.einsum("ij,ij->j", explained, explained)
        return np.asarray(cross @ self.weights), np.sqrt(np.maximum(variance, 1e-12))


class Forecast:
    """Mean (m,) and deviation (m,) at fixed points (m, d), for choosing several of them one after the other.

    A chosen point is believed to end exactly as predicted (`extend`): the mean stays, the deviation around it shrinks.
    For points that are known beforehand that is one more row of the factor, O((n + k) m) for the k-th choice, where
    a new posterior would cost O(n² m).
    """

    def __init__(self, posterior: Posterior, points: Array, *, most_chosen: int) -> None:
        kernel = posterior.kernel
        cross = _covariance(kernel, points, posterior.inputs)
        num_known = len(posterior.inputs)
        self.mean: Array = np.asarray(cross @ posterior.weights)
        self._rows = np.empty((num_known + most_chosen, len(points)))
        self._rows[:num_known] = solve_triangular(posterior.factor, cross.T, lower=True, check_finite=False)
        self._used = num_known
        self._variance = kernel.signal - np.einsum("ij,ij->j", self._rows[:num_known], self._rows[:num_known])
        self._kernel, self._points = kernel, points

    @property
    def deviation(self) -> Array:
        """Standard deviation (m,) of the noise-free function, given what was chosen."""
        return np.asarray(np.sqrt(np.maximum(self._variance, 1e-12)))

    def choose(self, index: int) -> None:
        """Believe that the point at `index` ends as predicted."""
        rows = self._rows[: self._used]
        covariance = _covariance(self._kernel, self._points, self._points[index : index + 1])[:, 0]
        covariance -= rows[:, index] @ rows
        row = covariance / math.sqrt(max(float(self._variance[index]), 0.0) + _BELIEF_NOISE)
        self._rows[self._used] = row
        self._used += 1
        self._variance = self._variance - row * row


def condition(kernel: Kernel, inputs: Array, targets: Array) -> Posterior:
    """The posterior given inputs (n, d) and targets (n,)."""
    matrix = _covariance(kernel, inputs, inputs)
    matrix.flat[:: len(matrix) + 1] += kernel.noise + _JITTER
    factor = np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
    weights = np.asarray(cho_solve((factor, True), targets, check_finite=False))
    return Posterior(kernel=kernel, inputs=inputs, factor=factor, weights=weights)


def extend(posterior: Posterior, points: Array) -> Posterior:
    """The posterior after points (m, d) ended exactly as predicted: the mean stays, the uncertainty around them goes.

    Ginsbourger, Le Riche, Carraro: "Kriging Is Well-Suited to Parallelize Optimization" (2010), "kriging believer".
    The Cholesky factor grows by m rows, O(n² m).
    """
    kernel, num_known = posterior.kernel, len(posterior.inputs)
    cross = solve_triangular(
        posterior.factor, _covariance(kernel, posterior.inputs, points), lower=True, check_finite=False
    )
    corner = _covariance(kernel, points, points) - cross.T @ cross
    corner.flat[:: len(corner) + 1] += _BELIEF_NOISE
    factor = np.zeros((num_known + len(points),) * 2)
    factor[:num_known, :num_known] = posterior.factor
    factor[num_known:, :num_known] = cross.T
    factor[num_known:, num_known:] = np.linalg.cholesky(corner)
    # A target that equals its prediction has weight zero.
    weights = np.concatenate([posterior.weights, np.zeros(len(points))])
    return Posterior(kernel, np.concatenate([posterior.inputs, points]), factor, weights)


def fit(inputs: Array, targets: Array, *, max_evaluations: int = 30) -> Kernel:
    """The kernel that maximises the marginal likelihood times weak priors (2.30 and 5.9 in the book).

    Args:
        inputs: (n, d) in [0, 1].
        targets: (n,), about standard normal.
        max_evaluations: of the likelihood and its gradient, each O(n³).
    """
    dimension = inputs.shape[1]
    pairs = _Pairs.of(inputs)
    length_mean = _LENGTH_PRIOR[0] + 0.5 * math.log(max(dimension, 1))
    means = np.array([length_mean] * dimension + [_SIGNAL_PRIOR[0], _NOISE_PRIOR[0]])
    deviations = np.array([_LENGTH_PRIOR[1]] * dimension + [_SIGNAL_PRIOR[1], _NOISE_PRIOR[1]])
    bounds = [(math.log(0.02), math.log(100.0))] * dimension + [
        (math.log(0.05), math.log(20.0)),
        (math.log(1e-5), math.log(2.0)),
    ]

    def loss(theta: Array) -> tuple[float, Array]:
        value, gradient = _negative_log_likelihood(theta, pairs, targets)
        scaled = (theta - means) / deviations
        return value + 0.5 * float(scaled @ scaled), gradient + scaled / deviations

    result = minimize(
        loss, means, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxfun": max_evaluations, "ftol": 1e-5}
    )
    theta = np.asarray(result.x, dtype=np.float64)
    return Kernel(lengths=np.exp(theta[:-2]), signal=float(np.exp(theta[-2])), noise=float(np.exp(theta[-1])))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The p = n (n - 1) / 2 pairs of n points.

    Attributes:
        lower: (p,) rows of a matrix (n, n) below its diagonal.
        upper: (p,) columns there.
        places: (p,) positions in the matrix when it is stored by columns, as LAPACK does.
        squares: (d, p) squared differences in each column.
    """

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    places: NDArray[np.intp]
    squares: Array

    @classmethod
    def of(cls, inputs: Array) -> _Pairs:
        """The pairs of inputs (n, d)."""
        lower, upper = np.tril_indices(len(inputs), -1)
        columns = np.ascontiguousarray(inputs.T)
        squares = (np.take(columns, lower, axis=1) - np.take(columns, upper, axis=1)) ** 2
        return cls(lower, upper, lower + upper * len(inputs), squares)


def _negative_log_likelihood(theta: Array, pairs: _Pairs, targets: Array) -> tuple[float, Array]:
    """Minus the log marginal likelihood at logarithms (d + 2,), and its gradient, without the constant."""
    # Most of a decision is spent here: each pair is computed once, and LAPACK reads half of a matrix only.
    n = len(targets)
    signal, noise = math.exp(theta[-2]), math.exp(theta[-1])
    scales = np.exp(-2.0 * theta[:-2])
    a = scales @ pairs.squares
    a *= 5.0
    np.sqrt(a, out=a)
    decay = np.exp(-a)
    decay *= signal
    slopes = decay * a
    covariance = slopes * a
    covariance *= 1.0 / 3.0
    slopes += decay
    covariance += slopes
    matrix = np.zeros((n, n), order="F")
    flat = matrix.ravel(order="K")
    flat[pairs.places] = covariance
    flat[:: n + 1] = signal + noise + _JITTER
    factor, failed = lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
    if failed:
        return 1e25, np.zeros_like(theta)
    weights, _ = lapack.dpotrs(factor, targets, lower=1)
    value = 0.5 * float(targets @ weights) + float(np.log(np.diagonal(factor)).sum())
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = inverse.ravel(order="K")
    # K⁻¹ - α αᵀ, of which equation 5.9 takes half the trace with dK: a pair counts twice, the diagonal once.
    beside = inverse[pairs.places] - weights[pairs.lower] * weights[pairs.upper]
    diagonal = 0.5 * float((inverse[:: n + 1] - weights * weights).sum())
    by_signal = float(beside @ covariance) + signal * diagonal
    # dk/dlog(l_i) = 5/3 s (1 + a) exp(-a) ((x_i - x'_i) / l_i)².
    slopes *= beside
    by_length = (5.0 / 3.0) * scales * (pairs.squares @ slopes)
    return value, np.concatenate([by_length, [by_signal, noise * diagonal]])


def _covariance(kernel: Kernel, left: Array, right: Array) -> Array:
    a = _squared_distances(left / kernel.lengths, right / kernel.lengths)
    a *= 5.0
    np.sqrt(a, out=a)
    decay = np.exp(-a)
    polynomial = a * (1.0 / 3.0)
    polynomial += 1.0
    polynomial *= a
    polynomial += 1.0
    polynomial *= decay
    polynomial *= kernel.signal
    return np.asarray(polynomial)


def _squared_distances(left: Array, right: Array) -> Array:
    """Squared distances (m, n) between rows (m, d) and (n, d); through one matrix product, hence the guard at 0."""
    squares = left @ right.T
    squares *= -2.0
    squares += np.einsum("ij,ij->i", left, left)[:, None]
    squares += np.einsum("ij,ij->i", right, right)
    return np.asarray(np.maximum(squares, 0.0, out=squares))
