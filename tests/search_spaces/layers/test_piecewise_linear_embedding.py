from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.layers.piecewise_linear_embedding import (
    MAX_OUTSIDE,
    PiecewiseLinearEmbedding,
    quantile_edges,
    target_edges,
)

EDGES = np.array([[-1.0, 0.0, 0.5, 3.0], [0.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]], np.float32)
"""Three bins, one bin and none."""


def encoding(x: float, edges: np.ndarray) -> list[float]:
    """Equation 1 of the paper, bin by bin, with the limit on what lies beyond all edges."""
    edges = np.unique(edges)
    found = []
    for t in range(1, len(edges)):
        share = (x - edges[t - 1]) / (edges[t] - edges[t - 1])
        low, high = -MAX_OUTSIDE if t == 1 else 0.0, 1.0 + MAX_OUTSIDE if t == len(edges) - 1 else 1.0
        found.append(min(max(share, low), high))
    return found


def random_kernel(layer: PiecewiseLinearEmbedding) -> None:
    layer.kernel.assign(np.random.default_rng(2).normal(size=layer.kernel.shape))


@pytest.mark.parametrize("linear", [True, False])
@settings(max_examples=15, deadline=None)
@given(values=st.lists(st.floats(-4.0, 4.0, width=32), min_size=3, max_size=3))
def test_vectors_are_those_of_the_papers_formula(linear: bool, values: list[float]) -> None:
    layer = PiecewiseLinearEmbedding(5, linear=linear, edges=EDGES)
    x = np.array([values], np.float32)
    layer.build(x.shape)
    random_kernel(layer)
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    expected = np.zeros((3, 5))
    for column, value in enumerate(values):
        for bin_number, share in enumerate(encoding(value, EDGES[column])):
            expected[column] += share * kernel[column, bin_number]
        expected[column] += bias[column]
        if linear:
            expected[column] += value * np.asarray(layer.weight)[column]
    np.testing.assert_allclose(np.asarray(layer(x))[0], expected, atol=1e-4, rtol=1e-4)


def test_a_network_with_bins_starts_as_one_without() -> None:
    layer = PiecewiseLinearEmbedding(4, edges=EDGES)
    x = np.array([[0.3, 2.0, 5.0]], np.float32)
    expected = x[..., None] * np.asarray(layer(x) * 0 + layer.weight) + np.asarray(layer.bias)
    np.testing.assert_allclose(np.asarray(layer(x)), expected, atol=1e-6)


def test_an_outlier_counts_up_to_the_limit_and_a_missing_value_as_zero() -> None:
    layer = PiecewiseLinearEmbedding(2, edges=EDGES)
    layer.build((None, 3))
    code = np.asarray(layer.encode(np.array([[1e30, -1e30, 0.0], [np.nan, np.nan, np.nan], [0.0] * 3], np.float32)))
    assert code[0, 0].tolist() == [1.0, 1.0, 1.0 + MAX_OUTSIDE]
    assert code[1, 0].tolist() == [-MAX_OUTSIDE, 0.0, 0.0]
    np.testing.assert_array_equal(code[:, 1], code[:, 2])


def test_quantile_bins_hold_as_many_rows_each_and_skip_repeated_quantiles() -> None:
    values = np.random.default_rng(0).normal(size=4_000)
    edges = quantile_edges(values, num_bins=8)
    assert len(edges) == 9
    assert set(np.histogram(values, edges)[0]) <= {499, 500, 501}
    assert quantile_edges(np.repeat([0.0, 1.0], [30, 71]), num_bins=8).tolist() == [0.0, 1.0]
    assert quantile_edges(np.array([np.nan, 3.0, np.nan]), num_bins=8).tolist() == [3.0]
    assert quantile_edges(np.full(5, np.nan), num_bins=8).tolist() == [0.0]


@pytest.mark.parametrize("width", [1, 2])
def test_target_bins_lie_where_the_target_changes(width: int) -> None:
    x = np.linspace(0.0, 1.0, 2_000)
    y = np.repeat((x > 0.7)[:, None], width, axis=1)
    for target in (y.astype(np.int32), y.astype(np.float32)):
        edges = target_edges(x, target, num_bins=6)
        assert np.abs(edges - 0.7).min() < 1e-3
        # Nothing changes elsewhere, so there is no other edge.
        assert len(edges) == 3


def test_target_bins_never_outnumber_the_limit() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=3_000)
    assert 6 < len(target_edges(x, np.sin(5 * x)[:, None], num_bins=7)) <= 8
    assert target_edges(np.zeros(50), np.zeros((50, 1)), num_bins=7).tolist() == [0.0]


def test_bins_are_learned_from_a_dataset_with_its_target() -> None:
    x = np.stack([np.linspace(-1.0, 1.0, 1_000), np.zeros(1_000)], axis=1).astype(np.float32)
    y = (x[:, :1] > 0.25).astype(np.int32)
    layer = PiecewiseLinearEmbedding(3, num_bins=4, rule="target")
    layer.adapt(tf.data.Dataset.from_tensor_slices((x, y)).batch(128))
    found = np.asarray(layer.edges)
    np.testing.assert_allclose(found[0], [-1.0, 0.25, 1.0, 1.0, 1.0], atol=2e-3)
    assert found[1].tolist() == [0.0] * 5


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size is 0: expected at least 1"):
        PiecewiseLinearEmbedding(0)
    with pytest.raises(ValueError, match=r"num_bins is 0: expected at least 1"):
        PiecewiseLinearEmbedding(2, num_bins=0)
    with pytest.raises(ValueError, match=r"'median' is not a valid BinRule"):
        PiecewiseLinearEmbedding(2, rule="median")
    with pytest.raises(ValueError, match=r"edges have the shape \(3,\): expected finite \(num_features, num_bins"):
        PiecewiseLinearEmbedding(2, edges=np.zeros(3))
    with pytest.raises(ValueError, match=r"edges have to rise along each row; only the last one may repeat"):
        PiecewiseLinearEmbedding(2, edges=[[0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match=r"edges are those of 3 columns: expected 2, as the input has"):
        PiecewiseLinearEmbedding(2, edges=EDGES)(keras.Input((2,)))
    with pytest.raises(ValueError, match=r"target-aware bins need the target: expected batches \(rows, target\)"):
        PiecewiseLinearEmbedding(2, rule="target").adapt(np.zeros((5, 2)))
