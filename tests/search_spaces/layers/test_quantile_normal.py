from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer

from search_spaces.layers.quantile_normal import EDGE_SHARE, QuantileNormal

QUANTILES = np.array([[-2.0, 0.0, 0.0, 0.0, 1.0, 5.0]], np.float32)


def normal(x: float) -> float:
    """The share of rows below a value, averaged over both sides of a step, as a normal quantile."""
    shares = np.linspace(0.0, 1.0, QUANTILES.shape[1])
    forwards = np.interp(x, QUANTILES[0], shares)
    backwards = -np.interp(-x, -QUANTILES[0][::-1], -shares[::-1])
    return float(scipy.special.ndtri(np.clip(0.5 * (forwards + backwards), EDGE_SHARE, 1.0 - EDGE_SHARE)))


@settings(max_examples=40, deadline=None)
@given(x=st.floats(-3.0, 6.0, width=32, allow_subnormal=False) | st.sampled_from([-2.0, 0.0, 1.0, 5.0, 1e30, -1e30]))
def test_a_value_becomes_the_normal_quantile_of_its_share(x: float) -> None:
    found = np.asarray(QuantileNormal(quantiles=QUANTILES)(np.array([[x]], np.float32)))
    assert found[0, 0] == pytest.approx(normal(x), abs=2e-3)


def test_it_is_scikit_learns_quantile_transformer() -> None:
    rng = np.random.default_rng(3)
    x = np.stack([rng.normal(size=3_000), rng.lognormal(size=3_000)], axis=1).astype(np.float32)
    layer = QuantileNormal(100)
    layer.adapt(tf.data.Dataset.from_tensor_slices(x).batch(700))
    peer = QuantileTransformer(n_quantiles=100, output_distribution="normal", subsample=None).fit(x)
    others = rng.normal(size=(500, 2)).astype(np.float32) * 2.0
    np.testing.assert_allclose(np.asarray(layer(others)), peer.transform(others), atol=2e-3)


def test_a_value_of_many_rows_stands_in_the_middle_of_them() -> None:
    x = np.concatenate([np.zeros(600), np.linspace(1.0, 2.0, 400)])[:, None].astype(np.float32)
    layer = QuantileNormal(1_000, rows_per_quantile=1)
    layer.adapt(x)
    assert float(layer(np.zeros((1, 1), np.float32))[0, 0]) == pytest.approx(scipy.special.ndtri(0.3), abs=5e-3)


def test_missing_values_are_neither_learned_from_nor_far_from_the_middle() -> None:
    x = np.linspace(-1.0, 1.0, 101, dtype=np.float32)[:, None]
    with_missing = np.concatenate([x, np.full((30, 1), np.nan, np.float32)])
    layers = [QuantileNormal(11), QuantileNormal(11)]
    for layer, rows in zip(layers, (x, with_missing), strict=True):
        layer.adapt(rows)
    np.testing.assert_array_equal(np.asarray(layers[0].quantiles), np.asarray(layers[1].quantiles))
    assert float(layers[1](np.array([[np.nan]], np.float32))[0, 0]) == 0.0


def test_a_column_without_any_value_says_nothing() -> None:
    layer = QuantileNormal(5)
    layer.adapt(np.full((10, 1), np.nan, np.float32))
    assert np.asarray(layer(np.array([[0.0], [np.nan]], np.float32))).tolist() == [[0.0], [0.0]]


def test_before_it_has_learned_it_changes_little() -> None:
    x = np.linspace(-2.0, 2.0, 9, dtype=np.float32)[:, None]
    np.testing.assert_allclose(np.asarray(QuantileNormal(1_000)(x)), x, atol=0.01)


@pytest.mark.parametrize(("num_rows", "number"), [(50, 10), (300, 10), (3_000, 100)])
def test_few_rows_teach_few_quantiles_and_the_rest_lies_between(num_rows: int, number: int) -> None:
    x = np.random.default_rng(5).lognormal(size=(num_rows, 1)).astype(np.float32)
    # So many that every learned one is among them.
    layer = QuantileNormal(1 + 11 * 9 * 10)
    layer.adapt(x)
    learned = np.quantile(x, np.linspace(0.0, 1.0, number))
    every = np.interp(np.linspace(0.0, 1.0, layer.num_quantiles), np.linspace(0.0, 1.0, number), learned)
    np.testing.assert_allclose(np.asarray(layer.quantiles)[0], every, rtol=1e-5)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_quantiles is 1: expected at least 2"):
        QuantileNormal(1)
    with pytest.raises(ValueError, match=r"rows_per_quantile is 0: expected at least 1"):
        QuantileNormal(rows_per_quantile=0)
    with pytest.raises(ValueError, match=r"quantiles have to be .* and must not fall along a row"):
        QuantileNormal(quantiles=[[1.0, 0.0]])
    with pytest.raises(ValueError, match=r"quantiles are those of 1 columns: expected 2, as the input has"):
        QuantileNormal(quantiles=QUANTILES)(keras.Input((2,)))
