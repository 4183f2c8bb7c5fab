from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from search_spaces.layers.token_attention import GatedLinearUnit, TokenAttention

TOKENS = np.random.default_rng(9).normal(size=(5, 4, 6)).astype(np.float32)


def attended(row: np.ndarray, layer: TokenAttention) -> np.ndarray:
    """Section 3.2.2 of Vaswani et al. (2017), head by head."""
    wq, bq, wp, bp, wo, bo = (np.asarray(weight, np.float64) for weight in layer.trainable_weights)
    size, heads = row.shape[-1], layer.num_heads
    q, k, v = row @ wq + bq, row @ wp[:, :size] + bp[:size], row @ wp[:, size:] + bp[size:]
    width, parts = size // heads, []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        weights = scipy.special.softmax(q[:, own] @ k[:, own].T / np.sqrt(width), axis=-1)
        parts.append(weights @ v[:, own])
    return np.concatenate(parts, axis=1) @ wo + bo


@pytest.mark.parametrize("num_heads", [1, 2, 3])
def test_every_token_gathers_from_all_by_the_papers_formula(num_heads: int) -> None:
    layer = TokenAttention(num_heads)
    found = np.asarray(layer(TOKENS))
    for row, output in zip(TOKENS, found, strict=True):
        np.testing.assert_allclose(output, attended(row, layer), atol=1e-5)


def test_the_first_token_alone_gathers_what_it_gathers_among_all() -> None:
    every, first = TokenAttention(2), TokenAttention(2, queries="first")
    expected = every(TOKENS)[:, :1]
    first.build(TOKENS.shape)
    first.set_weights(every.get_weights())
    np.testing.assert_allclose(np.asarray(first(TOKENS)), np.asarray(expected), atol=1e-6)


def test_dropout_acts_in_training_alone() -> None:
    layer = TokenAttention(2, dropout=0.5, seed=1)
    still = np.asarray(layer(TOKENS))
    np.testing.assert_array_equal(np.asarray(layer(TOKENS, training=False)), still)
    assert np.abs(np.asarray(layer(TOKENS, training=True)) - still).max() > 1e-3


@pytest.mark.parametrize(("gate", "function"), [("relu", lambda x: np.maximum(x, 0)), ("gelu", tf.nn.gelu)])
def test_one_half_is_multiplied_by_the_activated_other(gate: str, function: object) -> None:
    found = np.asarray(GatedLinearUnit(gate)(TOKENS))
    expected = TOKENS[..., :3] * np.asarray(function(TOKENS[..., 3:]))  # type: ignore[operator]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_heads is 0: expected at least 1"):
        TokenAttention(0)
    with pytest.raises(ValueError, match=r"dropout is 1.0: expected a share in \[0, 1\)"):
        TokenAttention(2, dropout=1.0)
    with pytest.raises(ValueError, match=r"tokens have the size 6: expected a multiple of the 4 heads"):
        TokenAttention(4)(keras.Input((4, 6)))
    with pytest.raises(ValueError, match=r"the input has a width of 5: expected an even number, two halves"):
        GatedLinearUnit()(keras.Input((4, 5)))
