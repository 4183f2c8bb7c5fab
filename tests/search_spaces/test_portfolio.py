from __future__ import annotations

import itertools

import keras_tuner
import pytest

from pipelines.schema import Task
from search_spaces.catalogue import SPACES
from search_spaces.context import TableContext
from search_spaces.pack_shapes import pack_limit, pack_shape
from search_spaces.portfolio import PORTFOLIOS, portfolio_of


@pytest.mark.parametrize("rows", [40, 2_000, 28_000, 300_000])
def test_a_portfolio_is_of_its_space_and_trains_as_one_pack(rows: int) -> None:
    context = TableContext(Task.MULTICLASS, 3, 3, (4,), num_training_rows=rows, max_epochs=9, num_replicas=1)
    for name in PORTFOLIOS:
        hp = keras_tuner.HyperParameters()
        SPACES[name](context).declare_hyperparameters(hp)
        choices = {parameter.name: parameter for parameter in hp.space}
        found = portfolio_of(name, batch_sizes=context.batch_sizes())
        shapes = {pack_shape(name, recipe) for recipe in found}
        assert len(shapes) == 1
        assert len(found) <= pack_limit(shapes.pop())
        for recipe, (key, value) in ((r, item) for r in found for item in r.items()):
            parameter = choices[key]
            values = getattr(parameter, "values", None)
            assert value in values if values else parameter.min_value <= value <= parameter.max_value, recipe


def test_recipes_differ_and_every_level_occurs_equally_often() -> None:
    found = portfolio_of("mlp", batch_sizes=[16, 32, 64, 128])
    assert {recipe["batch_size"] for recipe in found} == {64}
    assert all(left != right for left, right in itertools.combinations(found, 2))
    for name in ("learning_rate", "depth", "normalisation", "dropout"):
        values = [recipe[name] for recipe in found]
        assert {values.count(value) for value in values} == {len(found) // 2}


def test_a_space_of_ones_own_has_none() -> None:
    assert portfolio_of("my_module:build", batch_sizes=[32]) == ()
