from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from search_spaces.optimizers import FusedAdamW, FusedRMSprop, FusedSGD

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
