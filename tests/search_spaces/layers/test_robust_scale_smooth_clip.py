from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from search_spaces.layers.robust_scale_smooth_clip import RobustScaleSmoothClip

RNG = np.random.default_rng(7)
ROWS = np.stack(
    [
        RNG.normal(5.0, 2.0, 400),
        np.where(np.arange(400) < 20, np.arange(400), 0.0),  # no spread between the quartiles
        np.full(400, 3.0),
    ],
    axis=1,
).astype(np.float32)


def test_values_are_scaled_by_their_middle_half_and_clipped_smoothly() -> None:
    layer = RobustScaleSmoothClip()
    layer.adapt(tf.data.Dataset.from_tensor_slices(ROWS).batch(64))
    found = np.asarray(layer(ROWS))
    first, median, third = np.quantile(ROWS.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
    spread = np.array([third[0] - first[0], 0.5 * (ROWS[:, 1].max() - ROWS[:, 1].min()), np.inf])
    scaled = (ROWS - median) / spread
    np.testing.assert_allclose(found, scaled / np.sqrt(1.0 + (scaled / 3.0) ** 2), atol=1e-5)
    assert (found[:, 2] == 0).all()


def test_nothing_leaves_the_range_and_a_missing_value_is_the_median() -> None:
    layer = RobustScaleSmoothClip(median=[1.0], factor=[2.0])
    x = np.array([[1e10], [-1e10], [np.nan], [1.0], [2.0]], np.float32)
    expected = [[3.0], [-3.0], [0.0], [0.0], [2.0 / np.sqrt(1.0 + 4.0 / 9.0)]]
    np.testing.assert_allclose(np.asarray(layer(x)), expected, atol=1e-6)


def test_missing_values_are_not_learned_from() -> None:
    layers = [RobustScaleSmoothClip(), RobustScaleSmoothClip()]
    holes = np.concatenate([ROWS, np.full((99, 3), np.nan, np.float32)])
    for layer, rows in zip(layers, (ROWS, holes), strict=True):
        layer.adapt(rows)
    for one, other in zip(layers[0].get_weights(), layers[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected both median and factor, or neither; received one of the two"):
        RobustScaleSmoothClip(median=[1.0])
    with pytest.raises(ValueError, match=r"median and factor are those of 1 columns: expected 2, as the input has"):
        RobustScaleSmoothClip(median=[1.0], factor=[1.0])(keras.Input((2,)))
