from __future__ import annotations

import itertools

import pytest

from app.search.warm_start import filled
from app.training.declaration import declare
from pipelines.schema import Task
from search_spaces.context import TableContext
from search_spaces.pack_shapes import pack_limit, pack_shape
from search_spaces.portfolio import PORTFOLIOS, portfolio_of
from search_spaces.user_space import load_space


@pytest.mark.parametrize("rows", [40, 2_000, 28_000, 300_000])
def test_a_portfolio_is_of_its_space_and_trains_as_one_pack(rows: int) -> None:
    context = TableContext(Task.MULTICLASS, 3, 3, (4,), num_training_rows=rows, max_epochs=9, num_replicas=1)
    for name in PORTFOLIOS:
        space = declare(load_space(name, context))
        found = [filled(recipe, space=space) for recipe in portfolio_of(name, batch_sizes=context.batch_sizes())]
        shapes = {pack_shape(name, recipe) for recipe in found}
        assert len(shapes) == 1
        assert len(found) <= pack_limit(shapes.pop())


def test_recipes_differ_and_every_level_occurs_equally_often() -> None:
    found = portfolio_of("mlp", batch_sizes=[16, 32, 64, 128])
    assert {recipe["batch_size"] for recipe in found} == {64}
    assert all(left != right for left, right in itertools.combinations(found, 2))
    for name in ("learning_rate", "depth", "normalisation", "dropout"):
        values = [recipe[name] for recipe in found]
        assert {values.count(value) for value in values} == {len(found) // 2}


def test_a_space_of_ones_own_has_none() -> None:
    assert portfolio_of("my_module:build", batch_sizes=[32]) == ()
