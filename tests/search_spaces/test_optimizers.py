from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from search_spaces.optimizers import FusedAdamW, FusedRMSprop, FusedSGD, GroupedAdamW
from search_spaces.schedules import FlatCosine

SCHEDULE = keras.optimizers.schedules.CosineDecay(0.05, 20, warmup_target=0.1, warmup_steps=3)

PAIRS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "adamw": (FusedAdamW, keras.optimizers.AdamW, {"weight_decay": 0.1, "epsilon": 1e-8, "global_clipnorm": 1.0}),
    "rmsprop": (FusedRMSprop, keras.optimizers.RMSprop, {"rho": 0.9, "weight_decay": 0.1, "global_clipnorm": 1.0}),
    "rmsprop with momentum": (FusedRMSprop, keras.optimizers.RMSprop, {"momentum": 0.5}),
    "centered rmsprop": (FusedRMSprop, keras.optimizers.RMSprop, {"centered": True}),
    "nesterov": (FusedSGD, keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "momentum": (FusedSGD, keras.optimizers.SGD, {"momentum": 0.9}),
    "plain sgd": (FusedSGD, keras.optimizers.SGD, {}),
}


def trained(optimizer: Any, *, num_steps: int = 8) -> list[np.ndarray[Any, Any]]:
    """Variables after steps on fixed gradients, the last ones through an embedding's sparse gradient."""
    rng = np.random.default_rng(0)
    matrix = keras.Variable(rng.normal(size=(4, 3)).astype("float32"), name="matrix")
    bias = keras.Variable(rng.normal(size=3).astype("float32"), name="bias")
    optimizer.build([matrix, bias])
    optimizer.exclude_from_weight_decay(var_list=[bias])
    gradients = [(rng.normal(size=(2, 3)), rng.normal(size=3)) for _ in range(num_steps)]

    @tf.function
    def step(rows: tf.Tensor, shift: tf.Tensor) -> None:
        sparse = tf.IndexedSlices(rows, tf.constant([0, 2]), tf.constant([4, 3]))
        optimizer.apply([sparse, shift], [matrix, bias])

    for rows, shift in gradients:
        step(tf.constant(rows, tf.float32), tf.constant(shift, tf.float32))
    return [variable.value.numpy() for variable in (matrix, bias)]


@pytest.mark.parametrize("name", PAIRS)
def test_fused_update_equals_the_parents(name: str) -> None:
    fused, parent, arguments = PAIRS[name]
    ours = trained(fused(SCHEDULE, **arguments))
    theirs = trained(parent(SCHEDULE, **arguments))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", [FusedAdamW, FusedRMSprop, FusedSGD])
def test_optimizer_is_registered_and_comes_back_from_its_configuration(kind: type[Any]) -> None:
    optimizer = kind(0.01, weight_decay=0.1)
    assert keras.saving.get_registered_name(kind) == f"tamiz>{kind.__name__}"
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is kind
    assert again.get_config() == optimizer.get_config()


def test_without_groups_the_update_is_that_of_adamw() -> None:
    arguments = {"weight_decay": 0.1, "epsilon": 1e-8, "global_clipnorm": 1.0, "beta_2": 0.95}
    ours = trained(GroupedAdamW(SCHEDULE, **arguments))
    theirs = trained(keras.optimizers.AdamW(SCHEDULE, **arguments))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-6)


def test_a_group_has_a_factor_on_its_rate_and_its_square_on_its_decay() -> None:
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 2, 3)).astype(np.float32)
    variables = [keras.Variable(np.ones(3, np.float32), name=name) for name in ("front_scale", "kernel")]
    optimizer = GroupedAdamW(
        0.05,
        factors={"front": 6.0},
        weight_decay=0.1,
        decay_schedule=FlatCosine(1.0, total_steps=4),
        beta_2=0.95,
        epsilon=1e-8,
    )
    optimizer.build(variables)
    for gradient in gradients:
        optimizer.apply(list(gradient), variables)
    expected = np.ones((2, 3))
    first, second = np.zeros((2, 3)), np.zeros((2, 3))
    factors = np.array([[6.0], [1.0]])
    for step, gradient in enumerate(gradients):
        decay = 0.1 * 0.5 * (1.0 + np.cos(np.pi * np.clip(2.0 * step / 4 - 1.0, 0.0, 1.0)))
        expected = expected * (1.0 - 0.05 * factors**2 * decay)
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        update = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.95 ** (step + 1))) + 1e-8)
        expected = expected - 0.05 * factors * update
    for variable, values in zip(variables, expected, strict=True):
        np.testing.assert_allclose(np.asarray(variable), values, rtol=1e-4, atol=1e-5)


def test_groups_come_back_from_their_configuration() -> None:
    optimizer = GroupedAdamW(0.1, factors={"scale": 6.0}, decay_schedule=FlatCosine(1.0, total_steps=4))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert again.decay_schedule.total_steps == 4
