"""How promising a point is: expected improvement, in logarithms.

Ament, Daulton, Eriksson, Balandat, Bakshy: "Unexpected Improvements to Expected Improvement for Bayesian Optimization",
NeurIPS 2023. Far from the best points the improvement underflows to zero; its logarithm still tells them apart.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, ndtr

from app.search.parameters import Array


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Logarithm (m,) of E[max(best - f, 0)] for f normal with mean (m,) and standard deviation (m,) (equation 9)."""
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    near = np.log(np.maximum(density + z * ndtr(z), 1e-300))
    # For z < -1: log(phi(z) + z Phi(z)) = log phi(z) + log(1 - |z| sqrt(pi/2) erfcx(|z| / sqrt 2)); the last
    # difference cancels for large |z|, where its series 1/z² takes over.
    far_z = np.maximum(-z, 1.0)
    difference = 1.0 - far_z * math.sqrt(math.pi / 2.0) * erfcx(far_z / math.sqrt(2.0))
    tail = np.where(far_z < 1e3, np.log(np.maximum(difference, 1e-300)), -2.0 * np.log(far_z))
    far = -0.5 * far_z * far_z - 0.5 * math.log(2.0 * math.pi) + tail
    return np.asarray(np.log(deviation) + np.where(z > -1.0, near, far))
