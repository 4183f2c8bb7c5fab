from __future__ import annotations

import numpy as np
import pytest

from search_spaces.layers.ntk_dense import NUM_MIXED, NtkDense

RNG = np.random.default_rng(9)
ROWS = (RNG.normal(size=(300, 6)) * 3.0 + 1.0).astype(np.float32)


def test_the_product_is_scaled_by_the_number_of_features() -> None:
    layer = NtkDense(4)
    layer.build(ROWS.shape)
    layer.bias.assign(RNG.normal(size=4))
    expected = ROWS @ np.asarray(layer.kernel) / np.sqrt(6.0) + np.asarray(layer.bias)
    np.testing.assert_allclose(np.asarray(layer(ROWS)), expected, rtol=1e-4, atol=1e-5)


def test_units_that_have_learned_have_a_standard_deviation_of_one() -> None:
    layer = NtkDense(50)
    layer.build(ROWS.shape)
    layer.learn(ROWS)
    np.testing.assert_allclose(np.asarray(layer(ROWS)).std(axis=0), 1.0, rtol=1e-4)


def test_a_bias_is_minus_a_mixture_of_the_units_values_on_five_rows() -> None:
    layer = NtkDense(50, seed=3)
    layer.build(ROWS.shape)
    layer.learn(ROWS)
    values = ROWS @ np.asarray(layer.kernel) / np.sqrt(6.0)
    rng = np.random.default_rng(3)
    chosen, shares = rng.integers(0, 300, (NUM_MIXED, 50)), rng.exponential(size=(NUM_MIXED, 50))
    mixture = (shares / shares.sum(axis=0) * np.take_along_axis(values, chosen, axis=0)).sum(axis=0)
    np.testing.assert_allclose(np.asarray(layer.bias), -mixture, rtol=1e-3, atol=1e-4)
    # The bends of the activations lie where the rows are.
    assert ((values.min(axis=0) <= -np.asarray(layer.bias)) & (-np.asarray(layer.bias) <= values.max(axis=0))).all()


def test_learning_again_from_the_same_rows_changes_nothing() -> None:
    layer = NtkDense(8)
    layer.build(ROWS.shape)
    layer.learn(ROWS)
    first = [np.asarray(weight) for weight in layer.weights]
    layer.learn(ROWS)
    for before, after in zip(first, layer.weights, strict=True):
        np.testing.assert_allclose(np.asarray(after), before, rtol=1e-4, atol=1e-5)


def test_rows_that_are_all_the_same_leave_finite_weights() -> None:
    layer = NtkDense(8)
    layer.build((None, 3))
    layer.learn(np.zeros((10, 3), np.float32))
    assert all(np.isfinite(np.asarray(weight)).all() for weight in layer.weights)


def test_no_units_are_refused() -> None:
    with pytest.raises(ValueError, match=r"units is 0: expected at least 1"):
        NtkDense(0)
