"""A KerasTuner space as data: its parameters with their conditions, for a coordinator that never builds a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as kt

from app.search.space import Boolean, Categorical, Condition, Float, Int, Parameter, Scale, Space
from app.search.space import Value as ParameterValue
from search_spaces.catalogue import SpaceError

Conditions = Mapping[str, Mapping[str, tuple[ParameterValue, ...]]]
"""Child -> parent -> values of the parent under which the child exists."""

MAX_WALKED_VALUES = 24
"""Values of a parameter that are tried one by one to find what each of them reveals."""


def declare(space: keras_tuner.HyperModel) -> Space:
    """Returns the parameters of `space`.

    `declare_hyperparameters` is asked first. A plain build function reveals the parameters of a Python ``if`` only
    when a trial takes that branch, so every value of every discrete parameter is walked, and a parameter that
    appears under some of its values only becomes conditional on them.

    Args:
        space: The space; its ``build`` runs only if it declares nothing.

    Raises:
        SpaceError: It has no parameters, or has one that cannot be searched.
    """
    hp = keras_tuner.HyperParameters()
    try:
        space.declare_hyperparameters(hp)
        declared, conditions = (list(hp.space), {}) if hp.space else _walk(space)
    except SpaceError:
        raise
    except Exception as error:
        raise SpaceError(f"the space could not be declared: {type(error).__name__}: {error}") from error
    if not declared:
        raise SpaceError("the space has no hyperparameters: expected build(hp) to ask hp for at least one")
    try:
        return Space(_merged(declared, conditions))
    except ValueError as error:
        raise SpaceError(f"the space cannot be searched: {error}") from error


def revealed(hp: keras_tuner.HyperParameters, known: Space) -> tuple[Parameter, ...]:
    """Returns the parameters that a build asked for and that `known` does not have."""
    new = [found for found in hp.space if found.name not in known.names]
    return tuple(_merged(new, {}))


def hyperparameters(values: Mapping[str, ParameterValue]) -> keras_tuner.HyperParameters:
    """Returns `values` as KerasTuner's object, which a build function asks."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


def _walk(space: keras_tuner.HyperModel) -> tuple[list[Any], Conditions]:
    """Builds with every value of every discrete parameter, breadth first, and collects what appears.

    Returns:
        The parameters in order of appearance, and the conditions that a Python ``if`` put on some of them.
    """
    found: dict[str, Any] = {parameter.name: parameter for parameter in _probe(space, {}).space}
    conditions: dict[str, dict[str, tuple[ParameterValue, ...]]] = {}
    waiting: list[tuple[str, dict[str, ParameterValue]]] = [(name, {}) for name in found]
    while waiting:
        name, fixed = waiting.pop(0)
        values = _discrete_values(found[name])
        if not 1 < len(values) <= MAX_WALKED_VALUES:
            continue
        probes = [(value, _probe(space, {**fixed, name: value})) for value in values]
        for parameter in [parameter for _, probe in probes for parameter in probe.space]:
            holders = tuple(value for value, probe in probes if parameter.name in probe)
            is_new = parameter.name not in found
            if is_new:
                found[parameter.name] = parameter
                waiting.append((parameter.name, {**fixed, name: holders[0]}))
            # An explicit conditional scope says itself what it depends on.
            if not parameter.conditions and len(holders) < len(values):
                known = conditions.setdefault(parameter.name, {})
                if is_new or (name not in known and not fixed):
                    known[name] = holders
    return list(found.values()), conditions


def _probe(space: keras_tuner.HyperModel, values: Mapping[str, ParameterValue]) -> keras_tuner.HyperParameters:
    hp = hyperparameters(values)
    space.build(hp)
    return hp


def _discrete_values(parameter: Any) -> list[ParameterValue]:
    if isinstance(parameter, (kt.Choice, kt.Boolean)):
        return list(parameter.values)
    if isinstance(parameter, kt.Int):
        step = parameter.step or 1
        if parameter.sampling == "linear" and (parameter.max_value - parameter.min_value) // step < MAX_WALKED_VALUES:
            return list(range(parameter.min_value, parameter.max_value + 1, step))
    return []


def _merged(declared: Sequence[Any], conditions: Conditions) -> list[Parameter]:
    """Converts; a name that is declared twice keeps its first declaration."""
    merged: dict[str, Parameter] = {}
    for parameter in declared:
        if parameter.name not in merged:
            merged[parameter.name] = _convert(parameter, conditions.get(parameter.name, {}))
    return list(merged.values())


def _convert(parameter: Any, found_conditions: Mapping[str, tuple[ParameterValue, ...]]) -> Parameter:
    conditions = (
        *(Condition(c.name, tuple(c.values)) for c in parameter.conditions),
        *(Condition(parent, values) for parent, values in found_conditions.items()),
    )
    match parameter:
        case kt.Float():
            return Float(
                parameter.name,
                parameter.min_value,
                parameter.max_value,
                scale=_scale(parameter),
                step=parameter.step if parameter.sampling == "linear" else None,
                default=parameter.default,
                conditions=conditions,
            )
        case kt.Int():
            return Int(
                parameter.name,
                parameter.min_value,
                parameter.max_value,
                step=(parameter.step or 1) if parameter.sampling == "linear" else 1,
                scale=_scale(parameter),
                default=parameter.default,
                conditions=conditions,
            )
        case kt.Boolean():
            return Boolean(parameter.name, default=parameter.default, conditions=conditions)
        case kt.Choice():
            return Categorical(
                parameter.name,
                tuple(parameter.values),
                ordered=bool(parameter.ordered) and len(parameter.values) > 2,
                default=parameter.default,
                conditions=conditions,
            )
        case kt.Fixed():
            return Categorical(parameter.name, (parameter.value,), conditions=conditions)
    raise SpaceError(
        f"parameter {parameter.name!r} is a {type(parameter).__name__}: expected Float, Int, Choice, Boolean or Fixed"
    )


def _scale(parameter: Any) -> Scale:
    return Scale.LINEAR if parameter.sampling == "linear" else Scale.LOG
