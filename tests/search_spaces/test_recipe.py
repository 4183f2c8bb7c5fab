from __future__ import annotations

import math
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from pipelines.schema import Task
from search_spaces.context import TableContext
from search_spaces.layers.piecewise_linear_embedding import PiecewiseLinearEmbedding
from search_spaces.recipe import (
    CLIP_NORM,
    build_optimizer,
    compile_model,
    declare_batch_size,
    declare_recipe,
    learning_rate_factor,
    learning_rate_schedule,
)


def context(*, task: Task = Task.BINARY, replicas: int = 1, rows: int = 640) -> TableContext:
    return TableContext(task, 2, 4, (), num_training_rows=rows, max_epochs=10, num_replicas=replicas)


def recipe(table: TableContext | None = None, **values: Any) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    declare_batch_size(hp, table or context())
    declare_recipe(hp, table or context())
    return hp


def rate(schedule: Any, step: int) -> float:
    return float(np.asarray(schedule(step)))


def test_the_schedule_rises_to_its_peak_and_falls_to_zero() -> None:
    schedule = learning_rate_schedule(recipe(schedule="cosine", warmup_share=0.2), 0.01, 100)
    assert rate(schedule, 0) == pytest.approx(0.01 / 20)
    assert rate(schedule, 10) == pytest.approx((0.01 + 0.01 / 20) / 2, rel=1e-5)
    assert rate(schedule, 20) == pytest.approx(0.01)
    assert rate(schedule, 60) == pytest.approx(0.005, rel=1e-5)
    assert rate(schedule, 100) == rate(schedule, 200) == pytest.approx(0.0, abs=1e-9)


def test_a_schedule_without_warm_up_starts_at_its_peak() -> None:
    schedule = learning_rate_schedule(recipe(schedule="cosine", warmup_share=0.0), 0.01, 50)
    assert rate(schedule, 0) == pytest.approx(0.01)
    assert rate(schedule, 50) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_schedule_of_very_few_steps_is_possible(total: int) -> None:
    schedule = learning_rate_schedule(recipe(schedule="cosine", warmup_share=0.2), 0.01, total)
    rates = [rate(schedule, step) for step in range(total + 1)]
    assert all(0.0 <= value <= 0.01 + 1e-9 for value in rates)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_constant_schedule_is_the_rate_itself() -> None:
    assert learning_rate_schedule(recipe(schedule="constant"), 0.01, 100) == 0.01


def test_each_optimizer_has_the_rate_decay_and_clipping_asked_for() -> None:
    common = {"schedule": "constant", "weight_decay": 0.02, "batch_size": 64}
    adamw = build_optimizer(recipe(optimizer="adamw", learning_rate=3e-3, **common), context())
    rmsprop = build_optimizer(recipe(optimizer="rmsprop", learning_rate=3e-3, **common), context())
    sgd = build_optimizer(recipe(optimizer="sgd", sgd_learning_rate=3e-3, momentum=0.85, **common), context())
    assert [type(o).__name__ for o in (adamw, rmsprop, sgd)] == ["FusedAdamW", "FusedRMSprop", "FusedSGD"]
    for optimizer in (adamw, rmsprop, sgd):
        assert float(np.asarray(optimizer.learning_rate)) == pytest.approx(3e-3)
        assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.02, CLIP_NORM)
    assert (sgd.momentum, sgd.nesterov) == (0.85, True)
    assert adamw.epsilon == 1e-8


def test_parameters_of_one_choice_are_absent_under_another() -> None:
    sgd = recipe(optimizer="sgd", schedule="constant")
    assert {"sgd_learning_rate", "momentum"} <= sgd.values.keys()
    assert not {"learning_rate", "warmup_share"} & sgd.values.keys()
    adamw = recipe(optimizer="adamw", schedule="cosine")
    assert {"learning_rate", "warmup_share"} <= adamw.values.keys()
    assert not {"sgd_learning_rate", "momentum"} & adamw.values.keys()


def test_labels_are_smoothed_in_classification_only() -> None:
    assert "label_smoothing" in recipe(context()).values
    assert "label_smoothing" not in recipe(context(task=Task.REGRESSION)).values


def test_decay_leaves_biases_and_norms_alone() -> None:
    def network() -> keras.Model:
        layers = keras.layers
        norms = [layers.BatchNormalization(), layers.LayerNormalization()]
        numbers = [PiecewiseLinearEmbedding(3, num_bins=2), layers.Flatten()]
        return keras.Sequential([keras.Input((4,)), *numbers, layers.Dense(8), *norms, layers.Dense(1)])

    hp = recipe(optimizer="sgd", sgd_learning_rate=0.1, momentum=0.8, schedule="constant", weight_decay=0.1)
    model = compile_model(network(), hp, context())
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    # With gradients of zero, whatever moves is moved by decay.
    model.optimizer.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables], model.trainable_variables)
    for variable in model.trainable_variables:
        moved = 1.0 - 0.1 * 0.1 if variable.name in ("kernel", "weight") else 1.0
        np.testing.assert_allclose(np.asarray(variable), moved, rtol=1e-6)


def test_the_learning_rate_grows_with_a_batch_that_replicas_forced() -> None:
    def factor(batch_size: int, *, adaptive: bool, replicas: int = 4) -> float:
        return learning_rate_factor(recipe(batch_size=batch_size), context(replicas=replicas), adaptive=adaptive)

    assert factor(16, adaptive=True, replicas=1) == factor(16, adaptive=False, replicas=1) == 1.0
    # Four replicas of at least 16 rows each: 64 instead of 16.
    assert factor(16, adaptive=True) == pytest.approx(math.sqrt(4))
    assert factor(16, adaptive=False) == pytest.approx(4)
    assert factor(64, adaptive=False) == 1.0
    small = recipe(optimizer="sgd", batch_size=16, sgd_learning_rate=0.01, schedule="constant")
    grown = build_optimizer(small, context(replicas=4))
    assert float(np.asarray(grown.learning_rate)) == pytest.approx(0.04)


def test_a_batch_smaller_than_searched_does_not_shrink_the_rate() -> None:
    assert learning_rate_factor(recipe(batch_size=16), context(rows=14), adaptive=False) == 1.0


def test_an_unknown_optimizer_is_refused() -> None:
    hp = recipe()
    hp.values["optimizer"] = "lion"
    with pytest.raises(ValueError, match=r"optimizer is 'lion': expected adamw, rmsprop or sgd"):
        build_optimizer(hp, context())
