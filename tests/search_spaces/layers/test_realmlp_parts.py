"""The small layers of RealMLP: activation, front scale, fading dropout, range of the target."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from search_spaces.layers.fading_dropout import FadingDropout
from search_spaces.layers.feature_scale import FeatureScale
from search_spaces.layers.parametric_activation import ParametricActivation
from search_spaces.layers.target_range import TargetRange

RNG = np.random.default_rng(2)
ROWS = RNG.normal(size=(9, 4)).astype(np.float32)


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.log1p(np.exp(x)))


def selu(x: np.ndarray) -> np.ndarray:
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * scipy.special.expm1(x))


@pytest.mark.parametrize(("name", "f"), [("mish", mish), ("selu", selu)])
def test_an_activation_is_mixed_with_the_identity_unit_by_unit(name: str, f: object) -> None:
    layer = ParametricActivation(name)
    layer.build(ROWS.shape)
    np.testing.assert_allclose(np.asarray(layer(ROWS)), f(ROWS), rtol=1e-4, atol=1e-6)  # type: ignore[operator]
    alpha = np.array([0.0, 0.5, 1.0, -1.0], np.float32)
    layer.alpha.assign(alpha)
    expected = ROWS + alpha * (f(ROWS) - ROWS)  # type: ignore[operator]
    np.testing.assert_allclose(np.asarray(layer(ROWS)), expected, rtol=1e-4, atol=1e-6)


def test_a_front_scale_starts_at_one_and_multiplies() -> None:
    layer = FeatureScale()
    np.testing.assert_array_equal(np.asarray(layer(ROWS)), ROWS)
    layer.scale.assign([1.0, 2.0, 0.0, -1.0])
    np.testing.assert_allclose(np.asarray(layer(ROWS)), ROWS * [1.0, 2.0, 0.0, -1.0])


def test_dropout_is_constant_for_half_the_steps_and_then_fades_to_nothing() -> None:
    x = np.ones((400, 50), np.float32)
    layer = FadingDropout(0.4, total_steps=8, seed=1)
    shares = []
    for _ in range(9):
        dropped = np.asarray(layer(x, training=True))
        shares.append(float((dropped == 0).mean()))
        kept = dropped[dropped != 0]
        np.testing.assert_allclose(kept, 1.0 / (1.0 - shares[-1]), rtol=0.05)
    fading = [0.4 * 0.5 * (1.0 + np.cos(np.pi * t)) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(shares, [0.4] * 4 + fading, atol=0.02)
    np.testing.assert_array_equal(np.asarray(layer(x, training=False)), x)
    assert float(np.asarray(layer.step)) == 9.0


def test_answers_stay_inside_the_range_of_the_target_and_training_does_not() -> None:
    layer = TargetRange()
    layer.build((None, 2))
    x = np.array([[-5.0, 0.0], [0.5, 9.0]], np.float32)
    np.testing.assert_array_equal(np.asarray(layer(x)), x)
    layer.learn(x, np.array([[-1.0, 1.0], [2.0, 3.0]]))
    np.testing.assert_array_equal(np.asarray(layer(x)), [[-1.0, 1.0], [0.5, 3.0]])
    np.testing.assert_array_equal(np.asarray(layer(x, training=True)), x)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rate is 1.0: expected a share in \[0, 1\)"):
        FadingDropout(1.0, total_steps=3)
    with pytest.raises(ValueError, match=r"total_steps is 0: expected at least 1"):
        FadingDropout(0.1, total_steps=0)
    with pytest.raises(ValueError, match=r"cannot be learned without it"):
        TargetRange().learn(ROWS)
