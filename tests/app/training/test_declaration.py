from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_tuner
import pytest

from app.search.space import Boolean, Categorical, Condition, Float, Int, Scale
from app.training.declaration import MAX_PROBES, declare, hyperparameters, revealed
from pipelines.schema import Task
from search_spaces.catalogue import IMAGE_SPACES, SPACES, SpaceError
from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext
from search_spaces.user_space import UserSpace, load_space

Declare = Callable[[keras_tuner.HyperParameters], None]


def own(declares: Declare) -> UserSpace:
    """A space of one's own that asks for parameters and builds a network without weights."""

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        declares(hp)
        return keras.Sequential()

    return UserSpace(build, reference="test:build")


CONTEXT = TableContext(Task.BINARY, 2, 3, (4,), 1000, 10)
IMAGES = ImageContext(
    Task.MULTICLASS, num_classes=3, num_training_rows=100, max_epochs=10, height=16, width=16, channels=3
)


def conditions(declares: Declare) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Every parameter's conditions, parent -> values."""
    space = declare(own(declares))
    return {p.name: {c.parent: c.values for c in p.conditions} for p in space.parameters}


@pytest.mark.parametrize("name", sorted(SPACES.keys() - {"pretrained"}))  # that one needs files of weights
def test_our_spaces_declare_without_building(name: str) -> None:
    space = declare(load_space(name, IMAGES if name in IMAGE_SPACES else CONTEXT))
    assert len(space.names) > 5
    assert space.validate(space.default()) is None


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_ranges_and_conditions_are_those_that_a_space_declares(name: str) -> None:
    space = declare(load_space(name, CONTEXT))
    assert space["learning_rate"] == Float(
        "learning_rate",
        1e-4,
        1e-2,
        scale=Scale.LOG,
        default=1e-3,
        conditions=(Condition("optimizer", ("adamw", "rmsprop")),),
    )
    assert {c.parent for c in space["momentum"].conditions} == {"optimizer"}


def test_every_kind_of_parameter_is_converted() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        hp.Float("rate", 0.001, 1.0, sampling="log", step=10)
        hp.Float("drop", 0.0, 0.5, step=0.25, default=0.3)
        hp.Float("late", 0.1, 1.0, sampling="reverse_log")
        hp.Int("units", 8, 128, sampling="log", step=2, default=100)
        hp.Int("depth", 1, 7, step=2)
        hp.Choice("size", [8, 16, 32])
        hp.Choice("act", ["relu", "gelu", "tanh"], default="gelu")
        hp.Boolean("bias", default=True)
        hp.Fixed("version", 3)

    assert declare(own(declares)).parameters == (
        Float("rate", 0.001, 1.0, scale=Scale.LOG, step=10, default=0.001),
        # A default off the steps is no point of the space.
        Float("drop", 0.0, 0.5, step=0.25),
        Float("late", 0.1, 1.0, default=0.1),
        Int("units", 8, 128, step=2, scale=Scale.LOG),
        Int("depth", 1, 7, step=2, default=1),
        Categorical("size", (8, 16, 32), ordered=True, default=8),
        Categorical("act", ("relu", "gelu", "tanh"), default="gelu"),
        Boolean("bias", default=True),
        Categorical("version", (3,)),
    )


def test_a_conditional_scope_becomes_a_condition() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("inner", 1, 3)

    assert conditions(declares) == {"kind": {}, "inner": {"kind": ("b",)}}


def test_one_parameter_in_two_scopes_is_active_in_both() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        hp.Choice("kind", ["a", "b", "c"])
        with hp.conditional_scope("kind", ["a"]):
            hp.Int("units", 1, 3)
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("units", 1, 3)

    assert conditions(declares) == {"kind": {}, "units": {"kind": ("a", "b")}}


def test_one_name_with_two_ranges_in_two_scopes_is_refused() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["a"]):
            hp.Int("units", 1, 3)
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("units", 10, 30)

    with pytest.raises(SpaceError, match=r"'units' is declared in two conditional scopes with different ranges"):
        declare(own(declares))


def test_a_plain_if_becomes_a_condition() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        hp.Int("units", 8, 64, step=8)
        if hp.Choice("optimizer", ["adam", "sgd", "rmsprop"]) == "sgd":
            hp.Float("momentum", 0.0, 0.9)

    assert conditions(declares) == {"units": {}, "optimizer": {}, "momentum": {"optimizer": ("sgd",)}}


def test_a_plain_if_that_holds_by_default_becomes_a_condition() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        if hp.Boolean("drop", default=True):
            hp.Float("rate", 0.1, 0.5)

    assert conditions(declares) == {"drop": {}, "rate": {"drop": (True,)}}


def test_a_loop_over_a_number_of_layers_becomes_conditions() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        for layer in range(hp.Int("layers", 1, 4)):
            hp.Int(f"units_{layer}", 8, 32, step=8)

    assert conditions(declares) == {
        "layers": {},
        "units_0": {},
        "units_1": {"layers": (2, 3, 4)},
        "units_2": {"layers": (3, 4)},
        "units_3": {"layers": (4,)},
    }


def test_nested_ifs_become_a_chain_of_conditions() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        if hp.Choice("kind", ["plain", "deep"]) == "deep" and hp.Choice("norm", ["none", "batch"]) == "batch":
            hp.Float("decay", 0.9, 0.99)

    assert conditions(declares) == {"kind": {}, "norm": {"kind": ("deep",)}, "decay": {"norm": ("batch",)}}


def test_two_ifs_that_both_have_to_hold_become_two_conditions() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        wide, deep = hp.Boolean("wide", default=True), hp.Boolean("deep", default=True)
        if wide and deep:
            hp.Int("both", 1, 3)

    assert conditions(declares)["both"] == {"wide": (True,), "deep": (True,)}


def test_a_parameter_of_either_of_two_branches_is_always_searched() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        wide, deep = hp.Boolean("wide"), hp.Boolean("deep")
        if wide or deep:
            hp.Int("either", 1, 3)

    assert conditions(declares)["either"] == {}


def test_a_large_space_is_declared_with_a_bounded_number_of_builds() -> None:
    builds = 0

    def declares(hp: keras_tuner.HyperParameters) -> None:
        nonlocal builds
        builds += 1
        for number in range(60):
            hp.Choice(f"choice_{number}", list(range(20)))

    assert len(declare(own(declares)).names) == 60
    assert builds <= MAX_PROBES + 20


def test_a_space_without_parameters_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"no hyperparameters: expected build\(hp\) to ask hp for at least one"):
        declare(own(lambda _: None))


def test_a_build_that_returns_no_model_is_refused() -> None:
    space = UserSpace(lambda hp: hp.Int("units", 1, 3), reference="test:build")
    with pytest.raises(SpaceError, match=r"the space returned int: expected"):
        declare(space)


def test_a_build_that_raises_is_refused_with_its_error() -> None:
    def broken(_: keras_tuner.HyperParameters) -> None:
        raise ZeroDivisionError("no units")

    with pytest.raises(SpaceError, match=r"could not be declared: ZeroDivisionError: no units"):
        declare(UserSpace(broken, reference="test:build"))


def test_a_parameter_that_cannot_be_searched_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"the space cannot be searched: .*lists the choice"):
        declare(own(lambda hp: hp.Choice("kind", ["a", "a"])))


@pytest.mark.parametrize(
    ("declares", "message"),
    [
        (lambda hp: hp.Int("units", 1, 8, default=20), r"default of 'units' is 20, outside its own range; .*1 and 8"),
        (lambda hp: hp.Float("rate", 0.1, 0.9, default=0.0), r"default of 'rate' is 0.0, outside .*0.1 and 0.9"),
        (lambda hp: hp.Choice("kind", ["a", "b"], default="c"), r"should be one of the choices.*default=c"),
        (lambda hp: hp.Int("units", 8, 1), r"'units'\), min_value 8 is greater than the max_value 1"),
    ],
)
def test_a_value_outside_its_own_range_is_refused(declares: Declare, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        declare(own(declares))


def test_revealed_gives_only_what_the_space_does_not_know() -> None:
    def declares(hp: keras_tuner.HyperParameters) -> None:
        if hp.Float("rate", 0.0, 1.0) > 0.5:
            hp.Int("late", 1, 9, default=4)

    space = own(declares)
    known = declare(space)
    assert known.names == ("rate",)
    hp = hyperparameters({"rate": 0.75})
    space.build(hp)
    assert revealed(hp, known) == (Int("late", 1, 9, default=4),)
    grown = known.merged(revealed(hp, known))
    assert revealed(hp, grown) == ()
