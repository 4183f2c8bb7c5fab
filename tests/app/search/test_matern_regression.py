from __future__ import annotations

import numpy as np

from app.search.matern_regression import Forecast, Kernel, _negative_log_likelihood, _Pairs, condition, extend, fit

RNG = np.random.default_rng(0)
INPUTS = RNG.random((40, 3))
TARGETS = np.sin(4 * INPUTS[:, 0]) + INPUTS[:, 1] ** 2
KERNEL = Kernel(lengths=np.array([0.5, 1.0, 2.0]), signal=1.3, noise=0.01)


def test_gradient_equals_finite_differences() -> None:
    theta = np.log([0.4, 0.9, 1.7, 1.2, 0.05])
    pairs = _Pairs.of(INPUTS)
    _, gradient = _negative_log_likelihood(theta, pairs, TARGETS)
    for index in range(len(theta)):
        step = np.zeros_like(theta)
        step[index] = 1e-6
        up, _ = _negative_log_likelihood(theta + step, pairs, TARGETS)
        down, _ = _negative_log_likelihood(theta - step, pairs, TARGETS)
        assert np.isclose(gradient[index], (up - down) / 2e-6, rtol=1e-4, atol=1e-4)


def test_likelihood_is_the_textbook_formula() -> None:
    theta = np.log([0.5, 1.0, 2.0, 1.3, 0.01])
    value, _ = _negative_log_likelihood(theta, _Pairs.of(INPUTS), TARGETS)
    posterior = condition(KERNEL, INPUTS, TARGETS)
    matrix = posterior.factor @ posterior.factor.T
    expected = 0.5 * TARGETS @ np.linalg.solve(matrix, TARGETS) + 0.5 * np.linalg.slogdet(matrix)[1]
    assert np.isclose(value, expected)


def test_posterior_is_the_textbook_formula() -> None:
    points = RNG.random((5, 3))
    mean, deviation = condition(KERNEL, INPUTS, TARGETS).mean_and_deviation(points)

    def covariance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        r = np.sqrt((((left[:, None] - right[None]) / KERNEL.lengths) ** 2).sum(-1))
        a = np.sqrt(5.0) * r
        return np.asarray(KERNEL.signal * (1 + a + a**2 / 3) * np.exp(-a))

    inverse = np.linalg.inv(covariance(INPUTS, INPUTS) + (KERNEL.noise + 1e-6) * np.eye(40))
    cross = covariance(points, INPUTS)
    assert np.allclose(mean, cross @ inverse @ TARGETS)
    assert np.allclose(deviation**2, np.diag(covariance(points, points) - cross @ inverse @ cross.T))


def test_forecast_after_choices_is_the_extended_posterior() -> None:
    posterior = condition(KERNEL, INPUTS, TARGETS)
    points = np.random.default_rng(1).random((20, 3))
    forecast = Forecast(posterior, points, most_chosen=2)
    for index in (4, 11):
        mean, deviation = posterior.mean_and_deviation(points)
        assert np.allclose(forecast.mean, mean)
        assert np.allclose(forecast.deviation, deviation, atol=1e-6)
        forecast.choose(index)
        posterior = extend(posterior, points[index : index + 1])
    assert np.allclose(forecast.deviation, posterior.mean_and_deviation(points)[1], atol=1e-6)


def test_believed_points_keep_the_mean_and_take_away_uncertainty() -> None:
    posterior = condition(KERNEL, INPUTS, TARGETS)
    points = RNG.random((4, 3))
    believed = extend(posterior, points)
    elsewhere = RNG.random((6, 3))
    assert np.allclose(believed.mean(elsewhere), posterior.mean(elsewhere))
    assert np.all(believed.mean_and_deviation(elsewhere)[1] < posterior.mean_and_deviation(elsewhere)[1])
    assert np.all(believed.mean_and_deviation(points)[1] < 0.02)


def test_equal_points_may_be_believed_many_times() -> None:
    posterior = condition(KERNEL, INPUTS, TARGETS)
    for _ in range(5):
        posterior = extend(posterior, np.repeat(INPUTS[:1], 20, axis=0))
    assert np.isfinite(posterior.factor).all()


def test_believing_points_one_by_one_is_believing_them_at_once() -> None:
    posterior = condition(KERNEL, INPUTS, TARGETS)
    points, elsewhere = RNG.random((3, 3)), RNG.random((6, 3))
    one_by_one = posterior
    for point in points:
        one_by_one = extend(one_by_one, point[None, :])
    at_once = extend(posterior, points)
    assert np.allclose(one_by_one.mean_and_deviation(elsewhere), at_once.mean_and_deviation(elsewhere))


def test_fit_finds_what_matters() -> None:
    noisy = TARGETS + 0.05 * RNG.standard_normal(40)
    kernel = fit(INPUTS, (noisy - noisy.mean()) / noisy.std())
    # The third column has no influence: its length-scale is the longest by far.
    assert kernel.lengths[2] > 3 * kernel.lengths[:2].max()
    assert kernel.noise < 0.1


def test_repeated_and_constant_data_do_not_break_the_fit() -> None:
    inputs = np.repeat(RNG.random((3, 2)), 10, axis=0)
    kernel = fit(inputs, np.zeros(30))
    assert np.isfinite(condition(kernel, inputs, np.zeros(30)).mean(inputs)).all()
