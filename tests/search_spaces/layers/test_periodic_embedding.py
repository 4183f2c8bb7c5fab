from __future__ import annotations

import numpy as np
import pytest

from search_spaces.layers.periodic_embedding import PeriodicEmbedding

X = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)


def weights(layer: PeriodicEmbedding) -> list[np.ndarray]:
    return [np.asarray(weight, np.float64) for weight in layer.weights]


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("form", ["plr", "pl"])
def test_waves_of_sine_and_cosine_pass_a_linear_layer(form: str, lite: bool) -> None:
    layer = PeriodicEmbedding(5, form=form, num_frequencies=7, frequency_scale=0.3, lite=lite)
    found = np.asarray(layer(X))
    frequencies, kernel, bias = weights(layer)
    for column in range(3):
        angles = 2 * np.pi * X[:, column, None] * frequencies[column]
        owner = 0 if lite else column
        expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) @ kernel[owner] + bias[owner]
        if form == "plr":
            expected = np.maximum(expected, 0.0)
        np.testing.assert_allclose(found[:, column], expected, atol=1e-5)


def test_pbld_keeps_the_number_beside_a_linear_layer_of_shifted_waves() -> None:
    layer = PeriodicEmbedding(4, form="pbld", num_frequencies=16, frequency_scale=0.1)
    found = np.asarray(layer(X))
    frequencies, phases, kernel, bias = weights(layer)
    for column in range(3):
        waves = np.cos(2 * np.pi * X[:, column, None] * frequencies[column] + phases[column])
        np.testing.assert_array_equal(found[:, column, 0], X[:, column])
        np.testing.assert_allclose(found[:, column, 1:], waves @ kernel[column] + bias[column], atol=1e-5)


def test_frequencies_start_normal_and_cut_at_three_sigma_and_phases_uniform() -> None:
    plr = PeriodicEmbedding(2, num_frequencies=2_000, frequency_scale=0.05)
    plr.build((None, 5))
    drawn = np.asarray(plr.frequencies) / 0.05
    assert np.abs(drawn).max() <= 3.0 + 1e-4
    assert drawn.std() == pytest.approx(0.9866, abs=0.03)  # of a normal variable cut there
    assert drawn.mean() == pytest.approx(0.0, abs=0.05)
    pbld = PeriodicEmbedding(2, form="pbld", num_frequencies=2_000, frequency_scale=0.1)
    pbld.build((None, 5))
    phases = np.asarray(pbld.phases)
    assert np.abs(phases).max() <= np.pi
    assert phases.std() == pytest.approx(np.pi / np.sqrt(3.0), abs=0.05)


def test_a_missing_value_counts_as_zero() -> None:
    layer = PeriodicEmbedding(4, form="pbld")
    missing, zero = X.copy(), X.copy()
    missing[2, 1], zero[2, 1] = np.nan, 0.0
    np.testing.assert_array_equal(np.asarray(layer(missing)), np.asarray(layer(zero)))


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size is 1: expected at least 2 for pbld"):
        PeriodicEmbedding(1, form="pbld")
    with pytest.raises(ValueError, match=r"num_frequencies is 0: expected at least 1"):
        PeriodicEmbedding(2, num_frequencies=0)
    with pytest.raises(ValueError, match=r"frequency_scale is nan: expected a positive number"):
        PeriodicEmbedding(2, frequency_scale=float("nan"))
    with pytest.raises(ValueError, match=r"'fourier' is not a valid PeriodicForm"):
        PeriodicEmbedding(2, form="fourier")
