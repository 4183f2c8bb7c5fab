from __future__ import annotations

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from app.search.acquisition import log_expected_improvement


def test_expected_improvement_equals_its_integral() -> None:
    for mean, deviation, best in [(0.0, 1.0, 0.3), (1.0, 0.5, 0.2), (0.0, 0.3, -1.0)]:
        density = norm(mean, deviation).pdf
        integral = quad(lambda f, d=density, b=best: (b - f) * d(f), mean - 12 * deviation, best, epsabs=0)[0]
        value = log_expected_improvement(np.array([mean]), np.array([deviation]), best)[0]
        assert np.isclose(value, np.log(integral), rtol=1e-6)


def test_logarithm_tells_hopeless_points_apart() -> None:
    means = np.array([0.0, 0.9, 1.1, 5.0, 40.0, 900.0, 1100.0, 1e5])
    values = log_expected_improvement(means, np.ones(len(means)), 0.0)
    assert np.isfinite(values).all()
    assert np.all(np.diff(values) < 0)
