"""What every layer of `search_spaces.layers` has to do; a new one joins by a line in `LAYERS`."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf

import search_spaces.layers
from search_spaces.layers.batch_ensemble import BatchEnsembleDense, MemberAverage, MemberDense, MemberScaling
from search_spaces.layers.categorical_embedding import CategoricalEmbedding
from search_spaces.layers.fading_dropout import FadingDropout
from search_spaces.layers.feature_scale import FeatureScale
from search_spaces.layers.learned import LearnedLayer
from search_spaces.layers.ntk_dense import NtkDense
from search_spaces.layers.one_hot import OneHotColumns
from search_spaces.layers.parametric_activation import ParametricActivation
from search_spaces.layers.periodic_embedding import PeriodicEmbedding
from search_spaces.layers.piecewise_linear_embedding import PiecewiseLinearEmbedding
from search_spaces.layers.quantile_normal import QuantileNormal
from search_spaces.layers.robust_scale_smooth_clip import RobustScaleSmoothClip
from search_spaces.layers.selected_columns import SelectedColumns
from search_spaces.layers.stochastic_depth import StochasticDepth
from search_spaces.layers.target_range import TargetRange
from search_spaces.layers.term_sum import TermSum
from search_spaces.layers.token_attention import GatedLinearUnit, TokenAttention
from search_spaces.layers.tokens import ClassToken, FeatureBias, LinearEmbedding

# Keras' own, on newer versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUM_ROWS = 40
RNG = np.random.default_rng(6)
NUMBERS = RNG.normal(size=(NUM_ROWS, 4)).astype(np.float32)
# As the encoder delivers them: a column of two values, a constant, and values at the ends of the range.
NUMBERS[:, 1], NUMBERS[:, 2] = RNG.integers(0, 2, NUM_ROWS), 0.0
NUMBERS[:2, 0] = -10.0, 10.0
IDS = RNG.integers(0, (4, 2, 7), (NUM_ROWS, 3)).astype(np.int32)
TOKENS = RNG.normal(size=(NUM_ROWS, 5, 8)).astype(np.float32)
TARGET = (NUMBERS[:, :1] + RNG.normal(size=(NUM_ROWS, 1)) > 0).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A layer and what it is called on.

    Attributes:
        make: Builds it; its arguments are those of every layer, such as ``dtype``.
        rows: What it is called on.
        rounded: Whether its output follows the policy; ids and answers do not.
        takes_missing: Whether NaN is a missing value to it, so that its answer stays finite.
        xla_tolerance: How far XLA's answer may be off; XLA rounds functions of its own otherwise.
    """

    make: Callable[..., keras.layers.Layer]
    rows: np.ndarray
    rounded: bool = True
    takes_missing: bool = False
    xla_tolerance: float = 1e-5


LAYERS: dict[str, Case] = {
    "batch_ensemble": Case(make=lambda **k: BatchEnsembleDense(6, num_members=5, **k), rows=TOKENS),
    "categorical_embedding": Case(make=lambda **k: CategoricalEmbedding((4, 2, 7), size=5, **k), rows=IDS),
    "class_token": Case(make=ClassToken, rows=TOKENS),
    "fading_dropout": Case(make=lambda **k: FadingDropout(0.2, total_steps=9, seed=1, **k), rows=NUMBERS),
    "feature_bias": Case(make=FeatureBias, rows=TOKENS),
    "feature_scale": Case(make=FeatureScale, rows=NUMBERS),
    "gated_linear_unit": Case(make=lambda **k: GatedLinearUnit("gelu", **k), rows=TOKENS),
    "linear_embedding": Case(make=lambda **k: LinearEmbedding(3, **k), rows=NUMBERS, takes_missing=True),
    "member_average": Case(make=lambda **k: MemberAverage("softmax", **k), rows=TOKENS),
    "member_dense": Case(make=lambda **k: MemberDense(3, **k), rows=TOKENS),
    "member_scaling": Case(make=lambda **k: MemberScaling(5, **k), rows=NUMBERS),
    "ntk_dense": Case(make=lambda **k: NtkDense(6, seed=1, **k), rows=NUMBERS),
    "one_hot": Case(make=lambda **k: OneHotColumns((4, 2, 7), signed=True, **k), rows=IDS),
    "parametric_activation": Case(make=lambda **k: ParametricActivation("selu", **k), rows=NUMBERS),
    "pbld": Case(
        make=lambda **k: PeriodicEmbedding(4, form="pbld", num_frequencies=16, frequency_scale=0.1, **k),
        rows=NUMBERS,
        takes_missing=True,
    ),
    "pl": Case(make=lambda **k: PeriodicEmbedding(5, form="pl", **k), rows=NUMBERS, takes_missing=True),
    "plr": Case(make=lambda **k: PeriodicEmbedding(5, lite=True, **k), rows=NUMBERS, takes_missing=True),
    "piecewise_quantiles": Case(make=lambda **k: PiecewiseLinearEmbedding(5, **k), rows=NUMBERS, takes_missing=True),
    "piecewise_target": Case(
        make=lambda **k: PiecewiseLinearEmbedding(
            5, num_bins=6, rule="target", linear=False, activation="relu", **k
        ),
        rows=NUMBERS,
        takes_missing=True,
    ),
    "quantile_normal": Case(
        make=lambda **k: QuantileNormal(30, **k), rows=NUMBERS, takes_missing=True, xla_tolerance=0.03
    ),
    "robust_scale": Case(make=RobustScaleSmoothClip, rows=NUMBERS, takes_missing=True),
    "selected_columns": Case(make=lambda **k: SelectedColumns((2, 0), **k), rows=IDS, rounded=False),
    "stochastic_depth": Case(make=lambda **k: StochasticDepth(0.3, seed=1, **k), rows=TOKENS),
    "target_range": Case(make=TargetRange, rows=NUMBERS[:, :1], rounded=False),
    "term_sum": Case(make=lambda **k: TermSum(2, **k), rows=NUMBERS),
    "token_attention": Case(make=lambda **k: TokenAttention(2, dropout=0.1, seed=1, **k), rows=TOKENS),
    "token_attention_first": Case(make=lambda **k: TokenAttention(4, queries="first", **k), rows=TOKENS),
}

every_layer = pytest.mark.parametrize("name", sorted(LAYERS))


def made(which: str, **arguments: Any) -> keras.layers.Layer:
    """Returns a built layer that has learned what it learns."""
    case = LAYERS[which]
    layer = case.make(**arguments)
    if isinstance(layer, LearnedLayer):
        layer.adapt(tf.data.Dataset.from_tensor_slices((case.rows, TARGET)).batch(16))
    layer(case.rows)
    return layer


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """All layers side by side in one model, so that it is saved, exported and compiled once."""
    inputs = {
        name: keras.Input(case.rows.shape[1:], name=name, dtype=case.rows.dtype.name) for name, case in LAYERS.items()
    }
    keras.utils.set_random_seed(3)
    return keras.Model(inputs, {name: made(name, name=f"{name}_layer")(tensor) for name, tensor in inputs.items()})


@pytest.fixture(scope="module")
def rows() -> dict[str, tf.Tensor]:
    return {name: tf.constant(case.rows) for name, case in LAYERS.items()}


@pytest.fixture(scope="module")
def expected(network: keras.Model, rows: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: np.asarray(output) for name, output in network(rows, training=False).items()}


@pytest.fixture(scope="module")
def loaded(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> keras.Model:
    path = tmp_path_factory.mktemp("layers") / "model.keras"
    network.save(path)
    return keras.models.load_model(path, safe_mode=True)


@pytest.fixture(scope="module")
def exported(
    network: keras.Model, rows: dict[str, tf.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """What the SavedModel answers, for batches of any length."""
    specs = {name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for name, tensor in rows.items()}
    module = tf.Module()
    module.network = network
    module.answer = tf.function(lambda batch: network(batch, training=False), input_signature=[specs], autograph=False)
    path = str(tmp_path_factory.mktemp("layers") / "saved_model")
    tf.saved_model.save(module, path)
    restored = tf.saved_model.load(path)
    return {name: output.numpy() for name, output in restored.answer(rows).items()}


@pytest.fixture(scope="module")
def compiled(network: keras.Model, rows: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """What XLA answers."""
    answer = tf.function(lambda batch: network(batch, training=False), jit_compile=True, autograph=False)
    return {name: output.numpy() for name, output in answer(rows).items()}


def test_every_layer_is_held_to_this_and_registered_under_a_name_of_tamiz() -> None:
    found = set()
    for module in pkgutil.iter_modules(search_spaces.layers.__path__):
        members = vars(importlib.import_module(f"search_spaces.layers.{module.name}")).values()
        classes = [member for member in members if inspect.isclass(member) and issubclass(member, keras.layers.Layer)]
        found |= {c for c in classes if c.__module__.startswith("search_spaces.") and not inspect.isabstract(c)}
    assert found == {type(case.make()) for case in LAYERS.values()}
    for layer in found:
        assert keras.saving.get_registered_name(layer) == f"tamiz>{layer.__name__}"
        assert "Shapes:" in (layer.__doc__ or "")


@every_layer
def test_the_output_has_the_shape_and_type_that_was_announced(name: str, expected: dict[str, np.ndarray]) -> None:
    case, layer = LAYERS[name], made(name)
    assert expected[name].shape == (NUM_ROWS, *layer.compute_output_shape((None, *case.rows.shape[1:]))[1:])
    assert layer.compute_output_shape(case.rows.shape) == expected[name].shape
    assert expected[name].dtype == (np.float32 if case.rounded else case.rows.dtype)
    assert np.isfinite(expected[name]).all()


@every_layer
def test_the_same_configuration_builds_the_same_shapes(name: str) -> None:
    layer = made(name)
    again = type(layer).from_config(layer.get_config())
    again.build(LAYERS[name].rows.shape)
    assert again.get_config() == layer.get_config()
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(np.asarray(again(LAYERS[name].rows)), np.asarray(layer(LAYERS[name].rows)))


@every_layer
def test_a_model_in_a_file_comes_back_the_same_in_safe_mode(
    name: str, loaded: keras.Model, rows: dict[str, tf.Tensor], expected: dict[str, np.ndarray]
) -> None:
    np.testing.assert_array_equal(np.asarray(loaded(rows, training=False)[name]), expected[name])


@every_layer
def test_the_saved_model_answers_as_keras(
    name: str, exported: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> None:
    np.testing.assert_allclose(exported[name], expected[name], atol=1e-5, rtol=1e-5)


@every_layer
def test_xla_answers_as_keras(name: str, compiled: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    tolerance = LAYERS[name].xla_tolerance
    np.testing.assert_allclose(compiled[name], expected[name], atol=tolerance, rtol=tolerance)


@every_layer
def test_half_precision_rounds_the_output_and_keeps_the_weights(name: str) -> None:
    case = LAYERS[name]
    keras.utils.set_random_seed(5)
    whole = made(name)
    half = made(name, dtype="mixed_float16")
    half.set_weights(whole.get_weights())
    output = np.asarray(half(case.rows))
    assert output.dtype == (np.float16 if case.rounded else case.rows.dtype)
    assert {weight.dtype for weight in half.weights if "seed" not in weight.path} <= {"float32"}
    np.testing.assert_allclose(output.astype(np.float32), np.asarray(whole(case.rows)), atol=0.05, rtol=0.02)


@every_layer
def test_gradients_are_finite_and_reach_every_trained_weight(name: str) -> None:
    case, layer = LAYERS[name], made(name)
    rows = tf.constant(case.rows)
    if case.takes_missing:
        rows = tf.tensor_scatter_nd_update(rows, [[0, 0]], [np.nan])
    floating = case.rows.dtype == np.float32
    variables = [weight.value for weight in layer.trainable_weights] + [rows] * floating
    with tf.GradientTape() as tape:
        tape.watch(variables)
        output = tf.cast(layer(rows, training=True), tf.float32)
        loss = tf.reduce_sum(tf.square(output - 1.0))
    gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
    assert np.isfinite(output.numpy()).all()
    for variable, gradient in zip(variables, gradients, strict=True):
        assert np.isfinite(tf.convert_to_tensor(gradient).numpy()).all()
        assert variable is rows or tf.reduce_any(tf.convert_to_tensor(gradient) != 0)


@pytest.mark.parametrize("name", ["piecewise_quantiles", "quantile_normal", "robust_scale", "target_range"])
def test_other_rows_are_learned_as_if_there_had_been_none_before(name: str) -> None:
    case, layer = LAYERS[name], made(name)
    rows, target = 2.0 * case.rows[::-1] + 1.0, TARGET[::-1] + 3
    fresh = case.make()
    fresh.build(rows.shape)
    before = [np.asarray(weight) for weight in layer.non_trainable_weights]
    for learner in (layer, fresh):
        learner.learn(rows, target)
    found, expected = ([np.asarray(weight) for weight in each.non_trainable_weights] for each in (layer, fresh))
    assert all((one == two).all() for one, two in zip(found, expected, strict=True))
    assert any((one != two).any() for one, two in zip(found, before, strict=True))
