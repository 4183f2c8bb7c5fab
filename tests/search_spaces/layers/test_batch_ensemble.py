from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special

from search_spaces.layers.batch_ensemble import BatchEnsembleDense, MemberAverage, MemberDense, MemberScaling

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(7, 4)).astype(np.float32)
MEMBERS = RNG.normal(size=(7, 3, 4)).astype(np.float32)


def drawn(layer: Any, rows: np.ndarray) -> Any:
    """The layer on `rows`, with every weight drawn at random."""
    layer.build(rows.shape)
    for weight in layer.weights:
        weight.assign(RNG.normal(size=weight.shape))
    return np.asarray(layer(rows))


@pytest.mark.parametrize("rows", [ROWS, MEMBERS], ids=["one view for all", "a view of each member"])
def test_a_member_is_scaled_multiplied_scaled_and_shifted(rows: np.ndarray) -> None:
    layer = BatchEnsembleDense(5, num_members=3)
    found = drawn(layer, rows)
    kernel, r, s, b = (np.asarray(w) for w in (layer.kernel, layer.input_scale, layer.output_scale, layer.bias))
    for member in range(3):
        x = rows if rows.ndim == 2 else rows[:, member]
        np.testing.assert_allclose(
            found[:, member], ((x * r[member]) @ kernel) * s[member] + b[member], rtol=1e-4, atol=1e-5
        )


def test_a_scaling_shows_each_member_the_input_on_its_own_scales() -> None:
    layer = MemberScaling(3)
    found = drawn(layer, ROWS)
    np.testing.assert_allclose(found, ROWS[:, None] * np.asarray(layer.scale)[None], rtol=1e-6)


def test_every_member_has_a_head_of_its_own() -> None:
    layer = MemberDense(2)
    found = drawn(layer, MEMBERS)
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    for member in range(3):
        np.testing.assert_allclose(
            found[:, member], MEMBERS[:, member] @ kernel[member] + bias[member], rtol=1e-4, atol=1e-5
        )


def test_members_differ_at_the_start_in_the_first_scale_alone() -> None:
    layer = BatchEnsembleDense(5, num_members=3, start="random-signs", chunks=(1, 3))
    layer.build((None, 4))
    r, bias = np.asarray(layer.input_scale), np.asarray(layer.bias)
    assert set(np.unique(r)) <= {-1.0, 1.0}
    assert (r[:, 1:] == r[:, 1:2]).all()
    np.testing.assert_array_equal(np.asarray(layer.output_scale), 1.0)
    np.testing.assert_array_equal(bias, np.tile(bias[:1], (3, 1)))
    assert np.abs(np.asarray(layer.kernel)).max() <= 0.5
    later = BatchEnsembleDense(5, num_members=3)
    later.build((None, 3, 4))
    np.testing.assert_array_equal(np.asarray(later.input_scale), 1.0)


def test_a_chunk_of_inputs_starts_with_one_random_scale() -> None:
    layer = MemberScaling(200, start="normal", chunks=(3, 1, 2))
    layer.build((None, 6))
    scale = np.asarray(layer.scale)
    np.testing.assert_array_equal(scale[:, [0, 0, 4]], scale[:, [1, 2, 5]])
    assert scale[:, [0, 3, 4]].std() == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(scale[:, 0], scale[:, 3])[0, 1] == pytest.approx(0.0, abs=0.3)


def test_the_average_is_of_probabilities_and_comes_back_as_logits() -> None:
    average = MemberAverage("softmax")
    probabilities = scipy.special.softmax(MEMBERS.astype(np.float64), axis=-1).mean(axis=1)
    found = scipy.special.softmax(np.asarray(average(MEMBERS)), axis=-1)
    np.testing.assert_allclose(found, probabilities, rtol=1e-5)


def test_the_average_of_two_classes_is_of_the_probabilities_of_each_output() -> None:
    outputs = 20.0 * MEMBERS
    expected = scipy.special.expit(outputs.astype(np.float64)).mean(axis=1)
    found = np.asarray(MemberAverage("sigmoid")(outputs))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(scipy.special.expit(found.astype(np.float64)), expected, rtol=1e-4)


def test_values_are_averaged_as_they_are() -> None:
    np.testing.assert_allclose(np.asarray(MemberAverage("values")(MEMBERS)), MEMBERS.mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("averaged", ["softmax", "sigmoid", "values"])
def test_in_training_the_members_stand_side_by_side(averaged: str) -> None:
    found = np.asarray(MemberAverage(averaged)(MEMBERS, training=True))
    np.testing.assert_array_equal(found, MEMBERS.reshape(7, 12))


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_members is 0: expected at least 1"):
        BatchEnsembleDense(4, num_members=0)
    with pytest.raises(ValueError, match=r"chunks are \(2, 3\): expected lengths that add up to the 4 inputs"):
        MemberScaling(2, chunks=(2, 3))(ROWS)
