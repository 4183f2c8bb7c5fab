from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.search.parameters import Parameter
from app.search.space import Boolean, Categorical, Condition, Float, Int, Scale, Space

QUICK = settings(max_examples=60, deadline=None)

NETWORK = Space(
    [
        Int("layers", 1, 3),
        Categorical("optimizer", ("adam", "sgd", "rmsprop")),
        Float("momentum", 0.0, 0.9, step=0.3, conditions=(Condition("optimizer", ("sgd",)),)),
        Boolean("nesterov", conditions=(Condition("momentum", (0.3, 0.6)),)),
        Int("width", 8, 64, step=2, scale=Scale.LOG, conditions=(Condition("layers", (2, 3)),)),
    ]
)


@st.composite
def parameters(draw: st.DrawFn, name: str = "p") -> Parameter:
    kind = draw(st.sampled_from(["float", "int", "categorical", "boolean"]))
    scale = draw(st.sampled_from(list(Scale)))
    if kind == "float":
        low = draw(st.floats(1e-6, 1e3))
        high = low * (1.0 + draw(st.floats(0.0, 1e3)))
        step = draw(st.none() | st.floats(1.5, 4.0))
        return Float(name, low, high, scale=scale, step=step)
    if kind == "int":
        low_int = draw(st.integers(1, 50))
        return Int(name, low_int, low_int + draw(st.integers(0, 500)), step=draw(st.integers(1, 4)), scale=scale)
    if kind == "boolean":
        return Boolean(name)
    choices = draw(st.lists(st.text(max_size=3) | st.integers(), min_size=1, max_size=6, unique_by=repr))
    return Categorical(name, tuple(choices), ordered=draw(st.booleans()))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    gate = Categorical("gate", ("a", "b", "c"))
    first, second = draw(parameters("first")), draw(parameters("second"))
    child = draw(parameters("child"))
    values = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    conditional = replace(child, conditions=(Condition("gate", tuple(values)),))
    return Space([conditional, first, gate, second])


def same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    return left == right


@QUICK
@given(space=spaces(), seed=st.integers(0, 2**32))
def test_encoding_round_trip_keeps_every_kind_of_value(space: Space, seed: int) -> None:
    configuration = space.sample(np.random.default_rng(seed))
    columns = space.encode(configuration)
    assert columns.shape == (space.dimension,)
    assert np.all((columns >= 0.0) & (columns <= 1.0))
    decoded = space.decode(columns)
    assert decoded.keys() == configuration.keys()
    assert all(same(decoded[name], configuration[name]) for name in configuration)


@QUICK
@given(space=spaces(), seed=st.integers(0, 2**32), num_changes=st.integers(1, 3))
def test_samples_mutants_and_any_decoded_point_are_valid(space: Space, seed: int, num_changes: int) -> None:
    rng = np.random.default_rng(seed)
    configuration = space.sample(rng)
    space.validate(configuration)
    space.validate(space.mutate(configuration, rng=rng, num_changes=num_changes))
    space.validate(space.decode(rng.random(space.dimension)))
    space.validate(space.default())


@QUICK
@given(space=spaces())
def test_json_round_trip_is_exact(space: Space) -> None:
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


@QUICK
@given(space=spaces(), seed=st.integers(0, 2**32))
def test_finite_space_is_counted_and_listed_without_repetition(space: Space, seed: int) -> None:
    count = space.num_configurations
    if count is None:
        assert any(parameter.num_values is None for parameter in space.parameters)
        return
    if count > 3000:
        index = int(np.random.default_rng(seed).integers(count))
        space.validate(space.configuration_at(index))
        return
    listed = list(space.enumerate())
    assert len(listed) == count == len({space.key(configuration) for configuration in listed})
    for configuration in listed[:50]:
        space.validate(configuration)


def test_conditional_space_is_counted_exactly() -> None:
    # momentum exists for one optimizer in three and has 4 values; nesterov for 2 of these.
    optimizers = 2 + (2 + 2 * 2)
    layers = 1 + 2 * 4
    assert NETWORK.num_configurations == optimizers * layers
    assert len(list(NETWORK.enumerate())) == optimizers * layers


def test_parents_come_before_children() -> None:
    child = Int("child", 1, 2, conditions=(Condition("parent", (True,)),))
    assert Space([child, Int("other", 0, 1), Boolean("parent")]).names == ("other", "parent", "child")


def test_inactive_parents_make_inactive_children() -> None:
    assert NETWORK.is_active("nesterov", {"layers": 1, "optimizer": "sgd", "momentum": 0.3})
    assert not NETWORK.is_active("nesterov", {"layers": 1, "optimizer": "adam", "momentum": 0.3})


def test_true_and_one_are_different_choices() -> None:
    space = Space([Categorical("mixed", (1, True, "1"))])
    assert len({space.key({"mixed": choice}) for choice in (1, True, "1")}) == 3
    assert space.decode(space.encode({"mixed": True}))["mixed"] is True


def test_key_ignores_order_and_numeric_type() -> None:
    space = Space([Float("a", 0.0, 10.0), Int("b", 1, 3)])
    assert space.key({"a": 1, "b": 2}) == space.key({"b": 2, "a": 1.0})
    assert space.key({"a": 1, "b": 2}) != space.key({"a": 1, "b": 3})


def test_inactive_parameters_take_a_neutral_column() -> None:
    columns = NETWORK.encode({"layers": 1, "optimizer": "adam"})
    assert columns.tolist() == [1 / 6, 1.0, 0.0, 0.0, 0.5, 0.5, 0.5]


def test_parameter_of_one_value_takes_no_column() -> None:
    space = Space([Int("a", 3, 3), Float("b", 0.5, 0.5), Categorical("c", ("x",)), Boolean("d")])
    assert space.dimension == 1
    assert space.decode(np.array([1.0])) == {"a": 3, "b": 0.5, "c": "x", "d": True}


def test_values_are_plain_python_numbers() -> None:
    space = Space(
        [Float("a", 0.0, 1.0), Int("b", 1, 300, scale=Scale.LOG), Boolean("c"), Float("d", 0.1, 0.9, step=0.1)]
    )
    configuration = space.sample(np.random.default_rng(0))
    assert [type(value) for value in configuration.values()] == [float, int, bool, float]


def test_steps_give_clean_numbers() -> None:
    parameter = Float("rate", 0.1, 0.5, step=0.1)
    assert [parameter.nth(index) for index in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    factors = Float("decay", 1e-4, 1e-1, scale=Scale.LOG, step=10)
    assert [factors.nth(index) for index in range(4)] == [1e-4, 1e-3, 1e-2, 1e-1]
    powers = Int("width", 16, 100, step=2, scale=Scale.LOG)
    assert [powers.nth(index) for index in range(powers.num_values)] == [16, 32, 64]


def test_uniform_draws_reach_every_value_about_equally() -> None:
    space = Space([Categorical("c", tuple("abcd")), Int("i", 1, 4)])
    rng = np.random.default_rng(0)
    draws = [space.sample(rng) for _ in range(4000)]
    for name in space.names:
        counts = np.unique([str(draw[name]) for draw in draws], return_counts=True)[1]
        assert counts.min() > 850


def test_missing_value_of_a_grown_space_is_its_default() -> None:
    space = Space([Int("a", 1, 3)]).merged([Float("b", 0.0, 1.0, default=0.25), Int("a", 1, 3)])
    assert space.names == ("a", "b")
    assert space.key({"a": 2}) == space.key({"a": 2, "b": 0.25})


def test_default_takes_defaults_then_low_ends() -> None:
    space = Space(
        [Int("a", 1, 3, default=2), Float("b", 0.5, 1.0), Boolean("c"), Categorical("d", ("x", "y"), default="y")]
    )
    assert space.default() == {"a": 2, "b": 0.5, "c": False, "d": "y"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Space([]), "no parameters"),
        (lambda: Space([Boolean("a"), Int("a", 1, 2)]), "Two parameters are named 'a'"),
        (lambda: Space([Int("a", 1, 2, conditions=(Condition("lyers", (1,)),)), Int("layers", 1, 2)]), "'layers'"),
        (lambda: Space([Int("a", 1, 2, conditions=(Condition("b", (7,)),)), Int("b", 1, 2)]), "can never hold"),
        (
            lambda: Space(
                [
                    Boolean("a", conditions=(Condition("b", (True,)),)),
                    Boolean("b", conditions=(Condition("a", (True,)),)),
                ]
            ),
            "'a', 'b' form a cycle",
        ),
        (lambda: Condition("a", ()), "lists no values"),
        (lambda: Float("a", 2.0, 1.0), "goes from 2.0 to 1.0; expected low <= high"),
        (lambda: Float("a", 0.0, 1.0, scale=Scale.LOG), "log scale from 0.0; expected low > 0"),
        (lambda: Float("a", 0.0, math.inf), "high is inf; expected a finite number"),
        (lambda: Float("a", 0.0, 1.0, step=-1.0), "step -1.0; expected a step above 0"),
        (lambda: Float("a", 0.1, 1.0, step=0.5, scale=Scale.LOG), "expected a factor above 1"),
        (lambda: Float("a", 0.0, 1.0, default=2.0), "'a' is 2.0; expected a number between 0.0 and 1.0"),
        (lambda: Int("a", 1, 2.5), "high is 2.5; expected a whole number"),  # type: ignore[arg-type]
        (lambda: Int("a", 1, 9, step=2, default=4), "between 1 and 9 in steps of 2"),
        (lambda: Categorical("a", ()), "has no choices"),
        (lambda: Categorical("a", ("x", "x")), "lists the choice 'x' twice"),
        (lambda: Categorical("a", (None,)), "is a NoneType"),  # type: ignore[arg-type]
        (lambda: Categorical("a", ("x",), default="y"), "'a' is 'y'; expected one of 'x'"),
        (lambda: Boolean("a", default=1), "expected True or False"),  # type: ignore[arg-type]
        (lambda: Boolean(""), "not empty"),
        (lambda: Space.from_json({"parameters": [{"kind": "complex"}]}), "kind 'complex'"),
        (lambda: Space.from_json({"parameters": [{"kind": "boolean", "name": "a", "low": 1}]}), "no field 'low'"),
        (lambda: Space.from_json({}), "expected a list"),
        (lambda: Space([Int("a", 1, 2)]).merged([Int("a", 1, 3)]), "declared twice"),
        (lambda: Space([Float("a", 0, 1)]).enumerate(), "infinite"),
        (lambda: Space([Float("a", 0, 1)]).configuration_at(0), "infinite"),
        (lambda: Space([Int("a", 1, 3)]).configuration_at(3), "expected 0 to 2"),
        (lambda: Space([Int("a", 1, 3)]).decode(np.zeros(2)), r"expected \(1,\)"),
    ],
)
def test_impossible_declarations_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"layers": 4, "optimizer": "adam"}, "'layers' is 4; expected a whole number between 1 and 3"),
        ({"layers": True, "optimizer": "adam"}, "'layers' is True"),
        ({"layers": 1}, "'optimizer' is missing"),
        ({"layers": 1, "optimiser": "adam"}, "no parameter 'optimiser'; did you mean 'optimizer'"),
        ({"layers": 1, "zzz": 1}, "no parameter 'zzz'; expected layers"),
        (
            {"layers": 1, "optimizer": "adam", "width": 8},
            "'width' is set but not active; it exists only when layers in",
        ),
        ({"layers": 2, "optimizer": "adam", "width": 24}, "between 8 and 64 in factors of 2"),
        ({"layers": 1, "optimizer": "sgd", "momentum": 0.4}, "in steps of 0.3"),
        ({"layers": 1, "optimizer": "sgd", "momentum": math.nan}, "'momentum' is nan"),
        ({"layers": 1, "optimizer": 3}, "expected one of 'adam', 'sgd', 'rmsprop'"),
    ],
)
def test_configuration_that_does_not_fit_is_refused_by_name_and_range(
    configuration: dict[str, bool | int | float | str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        NETWORK.validate(configuration)
