from __future__ import annotations

import itertools

import pytest

from app.search.warm_start import filled
from app.training.declaration import declare
from pipelines.schema import Task
from search_spaces.catalogue import FAMILY
from search_spaces.context import TableContext
from search_spaces.network_size import (
    FIRST_LAYER,
    TABM_MEMBERS,
    TABM_WIDTHS,
    epoch_seconds,
    tabm_sizes,
    usual_tabm_size,
)
from search_spaces.pack_shapes import pack_limit, pack_shape
from search_spaces.portfolio import FAMILY_RECIPES, portfolio_of
from search_spaces.user_space import load_space

SPACES_WITH_ONE = (*FAMILY_RECIPES, "tabular")


def table(*, rows: int = 4_000, numeric: int = 3, cardinalities: tuple[int, ...] = (4, 60)) -> TableContext:
    return TableContext(Task.MULTICLASS, 3, numeric, cardinalities, num_training_rows=rows, max_epochs=50)


@pytest.mark.parametrize("name", SPACES_WITH_ONE)
@pytest.mark.parametrize(
    "context",
    [table(rows=rows) for rows in (40, 2_000, 28_000, 300_000)] + [table(numeric=0), table(cardinalities=())],
)
def test_a_portfolio_is_of_its_space_on_any_table(name: str, context: TableContext) -> None:
    space = declare(load_space(name, context))
    found = [filled(recipe, space=space) for recipe in portfolio_of(name, context, seconds=60)]
    assert found
    assert all(left != right for left, right in itertools.combinations(found, 2)) or not context.num_numeric


def test_the_small_networks_train_as_one_pack() -> None:
    for name in ("mlp", "tabular"):
        small = [recipe for recipe in portfolio_of(name, table(), seconds=60) if recipe.get(FAMILY, "mlp") == "mlp"]
        shapes = {pack_shape(name, recipe) for recipe in small}
        assert len(shapes) == 1
        assert len(small) <= pack_limit(shapes.pop())


def test_the_space_over_all_families_begins_with_the_papers_defaults() -> None:
    found = portfolio_of("tabular", table(rows=8_000), seconds=0)
    for recipe, family in zip(found, ("realmlp", "tabm"), strict=False):
        assert recipe == {FAMILY: family, "batch_size": 256, f"{family}/epoch_share": 1.0}


def test_where_rows_are_few_the_pack_of_small_networks_comes_between_them() -> None:
    families = [recipe[FAMILY] for recipe in portfolio_of("tabular", table(rows=3_000), seconds=60)]
    assert families[:12] == ["realmlp", "additive", "additive", *["mlp"] * 8, "tabm"]
    many = [recipe[FAMILY] for recipe in portfolio_of("tabular", table(rows=8_000), seconds=60)]
    assert sorted(families) == sorted([*many, "additive"])


def test_small_recipes_differ_and_every_level_occurs_equally_often() -> None:
    found = portfolio_of("mlp", table(), seconds=60)
    assert {recipe["batch_size"] for recipe in found} == {64}
    assert all(left != right for left, right in itertools.combinations(found, 2))
    for name in ("learning_rate", "depth", "normalisation", "dropout"):
        values = [recipe[name] for recipe in found]
        assert {values.count(value) for value in values} == {len(found) // 2}


def test_schedules_are_shorter_where_there_is_less_time() -> None:
    shares = [portfolio_of("realmlp", table(rows=30_000), seconds=s)[0]["epoch_share"] for s in (1, 60, 600, 0)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.125, 1.0)


def test_a_wide_table_begins_with_what_its_time_allows() -> None:
    def begins(numeric: int, *, seconds: float) -> list[object]:
        found = portfolio_of("tabular", table(rows=3_500, numeric=numeric), seconds=seconds)
        assert len(found) == len(portfolio_of("tabular", table(rows=3_500), seconds=0))
        return [recipe[FAMILY] for recipe in found]

    # On a thousand columns a TabM takes half a minute for the least of its schedules.
    assert begins(1_000, seconds=180)[-4:] == ["tabm", "tabm-mini", "tabm", "tabm-mini"]
    assert begins(1_000, seconds=180)[0] == "realmlp"
    assert begins(1_000, seconds=3_600) == begins(3, seconds=180) == begins(3, seconds=0)
    shares = [
        portfolio_of("realmlp", table(rows=3_500, numeric=numeric), seconds=90)[0]["epoch_share"]
        for numeric in (3, 15, 1_000)
    ]
    assert shares[0] == shares[1] == 1.0 > shares[2]


def test_the_usual_size_of_tabm_falls_with_the_rows() -> None:
    sizes = [usual_tabm_size(rows) for rows in (500, 5_000, 15_000, 10**6)]
    assert sizes == sorted(sizes, reverse=True)
    assert epoch_seconds("tabm", 5_000) > epoch_seconds("tabm-mini", 5_000) > epoch_seconds("realmlp", 1)


@pytest.mark.parametrize("shared_layers", [False, True])
def test_tabm_is_smaller_where_a_table_is_very_wide(shared_layers: bool) -> None:
    sizes = [tabm_sizes(inputs, shared_layers=shared_layers) for inputs in (1_000, 16_000, 10**6)]
    assert sizes[0] == (list(TABM_MEMBERS), list(TABM_WIDTHS))
    products = [members[-1] * (256 if shared_layers else widths[-1]) for members, widths in sizes]
    assert products == sorted(products, reverse=True)
    assert 16_000 * products[1] <= FIRST_LAYER < 2 * 16_000 * products[1]
    name = "tabm-mini" if shared_layers else "tabm"
    declared = declare(load_space(name, table(numeric=1_000)))
    assert declared.default()["members"] in sizes[1][0]
    assert declared.default()["width"] in sizes[1][1]


def test_a_space_of_ones_own_has_none() -> None:
    assert portfolio_of("my_module:build", table(), seconds=60) == ()
