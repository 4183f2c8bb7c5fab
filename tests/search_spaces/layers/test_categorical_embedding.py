from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from search_spaces.layers.categorical_embedding import CategoricalEmbedding

CARDINALITIES = (4, 2, 7)
IDS = np.array([[0, 1, 6], [3, 0, 2], [1, 1, 1]], np.int32)


@pytest.fixture
def layer() -> CategoricalEmbedding:
    keras.utils.set_random_seed(1)
    return CategoricalEmbedding(CARDINALITIES, size=5)


def test_the_vectors_of_all_columns_lie_side_by_side(layer: CategoricalEmbedding) -> None:
    found = np.asarray(layer(IDS))
    assert found.shape == (3, 15) == layer.compute_output_shape(IDS.shape)
    matrix, offsets = np.asarray(layer.matrix), (0, 4, 6)
    for row, ids in enumerate(IDS):
        vectors = [matrix[offset + number] for offset, number in zip(offsets, ids, strict=True)]
        np.testing.assert_array_equal(found[row], np.concatenate(vectors))


def test_missing_and_other_start_at_zero_and_the_rest_does_not(layer: CategoricalEmbedding) -> None:
    layer(IDS)
    norms = np.linalg.norm(np.asarray(layer.matrix), axis=1)
    blank = [0, 1, 4, 5, 6, 7]
    assert (norms[blank] == 0).all()
    assert (np.delete(norms, blank) > 0).all()


def test_a_shorter_vector_ends_in_zeros_that_training_leaves_alone() -> None:
    layer = CategoricalEmbedding(CARDINALITIES, size=5, lengths=(2, 1, 5))
    with tf.GradientTape() as tape:
        found = layer(IDS)
        loss = tf.reduce_sum((found - 1.0) ** 2)
    absent = np.concatenate([np.arange(5) >= length for length in layer.lengths or ()])
    assert not np.asarray(found)[:, absent].any()
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.matrix.value)).numpy()
    assert not gradient[:4, 2:].any()
    assert gradient[3, :2].all()


def test_the_gradient_is_finite_and_reaches_the_rows_that_were_looked_up(layer: CategoricalEmbedding) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((layer(IDS) - 1.0) ** 2)
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.matrix.value)).numpy()
    assert np.isfinite(gradient).all()
    assert set(np.flatnonzero(np.abs(gradient).sum(axis=1))) == {0, 1, 3, 4, 5, 7, 8, 12}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, on NumPy 2
@pytest.mark.parametrize("lengths", [None, (2, 1, 5)])
def test_it_is_registered_and_survives_a_save_in_safe_mode(tmp_path: Path, lengths: tuple[int, ...] | None) -> None:
    layer = CategoricalEmbedding(CARDINALITIES, size=5, lengths=lengths)
    assert keras.saving.get_registered_name(CategoricalEmbedding) == "tamiz>CategoricalEmbedding"
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(np.asarray(loaded(IDS)), np.asarray(model(IDS)))


def test_mixed_precision_computes_in_half_and_keeps_the_matrix_whole() -> None:
    layer = CategoricalEmbedding(CARDINALITIES, size=2, dtype="mixed_float16")
    assert layer(IDS).dtype == tf.float16
    assert layer.matrix.dtype == "float32"


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cardinalities are \(\): expected one positive number a column"):
        CategoricalEmbedding((), size=2)
    with pytest.raises(ValueError, match=r"cardinalities are \(3, 0\)"):
        CategoricalEmbedding((3, 0), size=2)
    with pytest.raises(ValueError, match=r"size is 0: expected at least 1"):
        CategoricalEmbedding((3,), size=0)
    for lengths in ((1,), (0, 1), (1, 5)):
        with pytest.raises(ValueError, match=r"lengths are .*: expected one from 1 to 4 for each of 2 columns"):
            CategoricalEmbedding((3, 3), size=4, lengths=lengths)
