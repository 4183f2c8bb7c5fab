from __future__ import annotations

from typing import Any

import keras_tuner
import pytest

from app.training.declaration import declare
from pipelines.schema import Task
from search_spaces.catalogue import FAMILIES, FAMILY
from search_spaces.context import TableContext
from search_spaces.families import FamiliesSpace, own_parameters
from search_spaces.ft_transformer import MAX_FEATURES
from search_spaces.user_space import load_space

CONTEXT = TableContext(Task.BINARY, 2, 3, (4,), num_training_rows=4_000, max_epochs=9)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameters_of_a_family_exist_only_where_it_is_chosen(family: str) -> None:
    space = declare(FamiliesSpace(CONTEXT))
    chosen = {name: space[name].fallback for name in space.names} | {FAMILY: family}
    active = {name for name in space.names if space.is_active(name, chosen)}
    own = declare(load_space(family, CONTEXT))
    alone = {name: own[name].fallback for name in own.names}
    inside = own_parameters({name: chosen[name] for name in active}, family=family)
    assert set(inside.values) == {name for name in own.names if own.is_active(name, alone)}
    assert {name: value for name, value in inside.values.items() if name != "batch_size"} == {
        name: alone[name] for name in inside.values if name != "batch_size"
    }


def test_a_network_is_that_of_the_familys_own_space() -> None:
    hp = keras_tuner.HyperParameters()
    hp.values = {FAMILY: "realmlp", "realmlp/width": 64, "realmlp/depth": 2, "batch_size": 32}
    inside: Any = FamiliesSpace(CONTEXT).build(hp)
    own = keras_tuner.HyperParameters()
    own.values = {"width": 64, "depth": 2, "batch_size": 32}
    alone: Any = load_space("realmlp", CONTEXT).build(own)
    assert [v.shape for v in inside.variables] == [v.shape for v in alone.variables]
    first, second = inside.optimizer.get_config(), alone.optimizer.get_config()
    assert first | {"name": ""} == second | {"name": ""}


def test_a_family_that_does_not_take_the_table_is_left_out() -> None:
    wide = TableContext(Task.BINARY, 2, MAX_FEATURES + 1, (), num_training_rows=500, max_epochs=9)
    space = declare(FamiliesSpace(wide))
    assert space[FAMILY].num_values == len(FAMILIES) - 1
    assert "ft_transformer/width" not in space.names
    assert "realmlp/width" in space.names
