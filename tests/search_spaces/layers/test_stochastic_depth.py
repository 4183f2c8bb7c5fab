from __future__ import annotations

import numpy as np
import pytest

from search_spaces.layers.stochastic_depth import StochasticDepth

RATE = 0.3
ROWS = np.random.default_rng(4).normal(size=(2_000, 3, 2)).astype(np.float32)


def test_a_branch_is_left_out_of_whole_rows_and_scaled_up_in_the_others() -> None:
    """Huang et al., equation 2, by row, with the scale of equation 5 in training instead of afterwards."""
    answered = np.asarray(StochasticDepth(RATE, seed=1)(ROWS, training=True))
    kept = answered.any(axis=(1, 2))
    np.testing.assert_allclose(answered, ROWS * kept[:, None, None] / (1.0 - RATE), rtol=1e-6)
    assert kept.mean() == pytest.approx(1.0 - RATE, abs=0.04)


@pytest.mark.parametrize(("rate", "training"), [(RATE, False), (0.0, True)])
def test_outside_training_and_at_a_rate_of_nothing_every_branch_stays(rate: float, training: bool) -> None:
    np.testing.assert_array_equal(np.asarray(StochasticDepth(rate, seed=1)(ROWS, training=training)), ROWS)


def test_a_rate_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate is 1.0: expected a share in \[0, 1\)"):
        StochasticDepth(1.0)
