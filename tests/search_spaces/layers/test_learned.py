from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from search_spaces.context import TableSample
from search_spaces.layers.learned import learn_layers, sampled_rows
from search_spaces.layers.piecewise_linear_embedding import PiecewiseLinearEmbedding
from search_spaces.layers.quantile_normal import QuantileNormal
from search_spaces.layers.robust_scale_smooth_clip import RobustScaleSmoothClip

RNG = np.random.default_rng(11)
SAMPLE = TableSample(
    numeric=RNG.lognormal(size=(600, 2)).astype(np.float32),
    categorical=RNG.integers(0, 3, (600, 1)).astype(np.int32),
    target=RNG.integers(0, 2, (600, 1)).astype(np.int32),
)


def test_a_layer_learns_from_what_the_layers_before_it_learned() -> None:
    inputs = {"numeric": keras.Input((2,), name="numeric")}
    inputs["categorical"] = keras.Input((1,), name="categorical", dtype="int32")
    normal, bins = QuantileNormal(50, rows_per_quantile=1), PiecewiseLinearEmbedding(3, num_bins=4)
    x = layers.Flatten()(bins(normal(inputs["numeric"])))
    model = keras.Model(inputs, layers.Concatenate()([x, layers.CategoryEncoding(3)(inputs["categorical"])]))
    learn_layers(model, SAMPLE)
    alone = QuantileNormal(50, rows_per_quantile=1)
    alone.adapt(SAMPLE.numeric)
    np.testing.assert_array_equal(np.asarray(normal.quantiles), np.asarray(alone.quantiles))
    expected = np.quantile(np.asarray(alone(SAMPLE.numeric)), np.linspace(0, 1, 5), axis=0).T
    np.testing.assert_allclose(np.asarray(bins.edges), expected, atol=1e-4)


def test_a_model_without_such_layers_is_left_as_it_is() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    before = model.get_weights()
    learn_layers(model, SAMPLE)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_short_dataset_is_kept_whole_and_in_order() -> None:
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    rows, target = sampled_rows(tf.data.Dataset.from_tensor_slices((x, y)).batch(3), max_rows=10, seed=1)
    np.testing.assert_array_equal(rows, x)
    np.testing.assert_array_equal(target, y)


def test_a_long_dataset_is_sampled_evenly_with_its_targets() -> None:
    x = np.arange(30_000.0)[:, None]
    dataset = tf.data.Dataset.from_tensor_slices((x, -x)).batch(1_000)
    rows, target = sampled_rows(dataset, max_rows=900, seed=1)
    assert rows.shape == (900, 1)
    assert len(np.unique(rows)) == 900
    assert target is not None
    np.testing.assert_array_equal(target, -rows)
    # Each third of the dataset has about a third of the sample.
    assert np.histogram(rows, bins=3, range=(0, 30_000))[0] == pytest.approx([300] * 3, abs=60)
    again, _ = sampled_rows(dataset, max_rows=900, seed=1)
    np.testing.assert_array_equal(again, rows)


def test_an_array_has_no_target() -> None:
    rows, target = sampled_rows(np.zeros((4, 2)), max_rows=9, seed=0)
    assert rows.shape == (4, 2)
    assert target is None


@pytest.mark.parametrize("data", [np.zeros((0, 2)), tf.data.Dataset.from_tensor_slices(np.zeros((0, 2))).batch(2)])
def test_a_dataset_without_rows_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"the dataset to adapt to has no rows: expected at least one batch of rows"):
        RobustScaleSmoothClip().adapt(data)
