from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras_tuner
import numpy as np
import pytest

from app.training.declaration import declare
from pipelines.schema import Task
from search_spaces.additive import AdditiveSpace
from search_spaces.context import TableContext, TableSample

NUM_ROWS = 400
RNG = np.random.default_rng(3)
FEATURES: dict[str, Any] = {
    "numeric": RNG.normal(size=(NUM_ROWS, 2)).astype(np.float32),
    "categorical": RNG.integers(1, 5, (NUM_ROWS, 1)).astype(np.int32),
}
TARGET = np.abs(FEATURES["numeric"][:, :1]) + FEATURES["categorical"] / 2.0
SAMPLE = TableSample(**FEATURES, target=TARGET.astype(np.float32))
CONTEXT = TableContext(Task.REGRESSION, 0, 2, (5,), num_training_rows=NUM_ROWS, max_epochs=20, sample=SAMPLE)


def build(context: TableContext, **values: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.values = {"batch_size": 32} | values
    return AdditiveSpace(context).build(hp)


def answers(model: Any, **features: Any) -> np.ndarray:
    return np.asarray(model({**FEATURES, **features}, training=False)).astype(np.float64)


def test_it_learns_curves_and_values_that_add_up() -> None:
    model = build(CONTEXT)
    before = np.mean((answers(model) - TARGET) ** 2)
    model.fit(FEATURES, TARGET, batch_size=32, epochs=20, verbose=0)
    assert np.mean((answers(model) - TARGET) ** 2) < 0.02 * before


def test_what_a_column_says_does_not_depend_on_the_others() -> None:
    model = build(CONTEXT)
    for variable in model.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape))
    model.get_layer("range").low.assign([-1e9])
    model.get_layer("range").high.assign([1e9])
    other = FEATURES["numeric"].copy()
    other[:, 1] += 0.7
    change = answers(model, numeric=other) - answers(model)
    shifted = FEATURES["categorical"] % 4 + 1
    again = answers(model, numeric=other, categorical=shifted) - answers(model, categorical=shifted)
    np.testing.assert_allclose(change, again, atol=1e-4)


def test_terms_start_with_nothing_to_say() -> None:
    classes = replace(CONTEXT, task=Task.MULTICLASS, num_classes=3)
    np.testing.assert_array_equal(answers(build(classes)), np.zeros((NUM_ROWS, 3)))


def test_the_penalty_is_on_terms_and_not_on_constants() -> None:
    model = build(CONTEXT, penalty=0.05)
    penalised = {variable.path for variable in model.trainable_variables if variable.regularizer is not None}
    assert penalised == {"curves/kernel", "curves/weight", "values/matrix"}
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    sizes = [int(np.prod(v.shape)) for v in model.trainable_variables if v.path in penalised]
    assert float(sum(model.losses)) == pytest.approx(0.05 * sum(sizes), rel=1e-5)


@pytest.mark.parametrize(("rows", "penalty"), [(20, 0.1), (1_000, 0.005), (10**8, 1e-6)])
def test_the_usual_penalty_weighs_as_much_as_a_few_rows(rows: int, penalty: float) -> None:
    space = declare(AdditiveSpace(replace(CONTEXT, num_training_rows=rows, sample=None)))
    assert space["penalty"].fallback == pytest.approx(penalty)
