from __future__ import annotations

import numpy as np
import pytest

from search_spaces.layers.tokens import ClassToken, FeatureBias, LinearEmbedding

RNG = np.random.default_rng(8)
TOKENS = RNG.normal(size=(4, 3, 6)).astype(np.float32)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_number_becomes_a_point_on_its_columns_line(activation: str | None) -> None:
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    x[1, 2] = np.nan
    layer = LinearEmbedding(6, activation=activation)
    found = np.asarray(layer(x))
    expected = np.nan_to_num(x)[:, :, None] * np.asarray(layer.weight) + np.asarray(layer.bias)
    np.testing.assert_allclose(found, expected if activation is None else np.maximum(expected, 0.0), atol=1e-6)
    assert np.abs(np.asarray(layer.weight)).max() <= 6**-0.5


def test_every_feature_has_a_bias_of_its_own() -> None:
    layer = FeatureBias()
    found = np.asarray(layer(TOKENS))
    np.testing.assert_allclose(found, TOKENS + np.asarray(layer.bias)[None], atol=1e-6)
    assert layer.bias.shape == (3, 6)


def test_the_class_token_stands_first_in_every_row() -> None:
    layer = ClassToken()
    found = np.asarray(layer(TOKENS))
    np.testing.assert_array_equal(found[:, 0], np.tile(np.asarray(layer.token), (4, 1)))
    np.testing.assert_array_equal(found[:, 1:], TOKENS)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size is 0: expected at least 1"):
        LinearEmbedding(0)
