"""A KerasTuner space as data: its parameters with their conditions, for a coordinator that never builds a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine import hyperparameters as kt

from app.search.space import Boolean, Categorical, Condition, Float, Int, Parameter, Scale, Space
from app.search.space import Value as ParameterValue
from search_spaces.catalogue import SpaceError

Conditions = Mapping[str, Mapping[str, tuple[ParameterValue, ...]]]
"""Child -> parent -> values of the parent under which the child exists."""

MAX_WALKED_VALUES = 24
"""Values of a parameter that are tried one by one to find what each of them reveals."""

MAX_PROBES = 200
"""Networks built to declare a space; what they do not reveal, the trials of the search do."""


def declare(space: keras_tuner.HyperModel) -> Space:
    """Returns the parameters of `space`.

    `declare_hyperparameters` is asked first. A plain build function reveals the parameters of a Python ``if`` only
    when a trial takes that branch, so the values of every discrete parameter are walked, and a parameter that
    appears under some of them only becomes conditional on them.

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
    for parameter in declared:
        _check_default(parameter)
    try:
        return Space(_merged(declared, conditions))
    except ValueError as error:
        raise SpaceError(f"the space cannot be searched: {error}") from error


def revealed(hp: keras_tuner.HyperParameters, known: Space) -> tuple[Parameter, ...]:
    """Returns the parameters that a build asked for and that `known` does not have."""
    new = [found for found in hp.space if found.name not in known.names]
    return tuple(_merged(new, {}))


def parameters_of(hp: keras_tuner.HyperParameters) -> dict[Parameter, str]:
    """Returns everything that `hp` knows as parameters of a space, each with its name in `hp`; {} when it is empty.

    In KerasTuner one name may stand for other ranges in other conditional scopes. Those are parameters of their own
    here, with names of their own.

    Raises:
        SpaceError: A parameter cannot be searched.
    """
    variants: dict[str, list[Parameter]] = {}
    for declared in hp.space:
        try:
            parameter = _convert(declared, {})
        except ValueError as error:
            raise SpaceError(f"the space cannot be searched: {error}") from error
        known = variants.setdefault(declared.name, [])
        parameter = replace(parameter, conditions=_in_variants(parameter.conditions, variants))
        same = [other for other in known if _range_of(other) == _range_of(replace(parameter, name=other.name))]
        if not same:
            name = f"{declared.name} ({len(known) + 1})" if known else declared.name
            known.append(replace(parameter, name=name))
        elif same[0].conditions != parameter.conditions:
            either = replace(same[0], conditions=_either(same[0].conditions, parameter.conditions))
            known[known.index(same[0])] = either
    return {parameter: name for name, group in variants.items() for parameter in group}


def _range_of(parameter: Parameter) -> Parameter:
    return replace(parameter, conditions=())


def _in_variants(conditions: tuple[Condition, ...], variants: Mapping[str, list[Parameter]]) -> tuple[Condition, ...]:
    """Returns conditions on the variant of each parent that exists in the same scope."""
    found: list[Condition] = []
    for condition in conditions:
        parents = [parent for parent in variants.get(condition.parent, []) if set(parent.conditions) <= set(found)]
        # The most conditional one is the one declared in the nearest scope.
        parent = max(parents, key=lambda parent: len(parent.conditions), default=None)
        found.append(condition if parent is None else Condition(parent.name, condition.values))
    return tuple(found)


def hyperparameters(values: Mapping[str, ParameterValue]) -> keras_tuner.HyperParameters:
    """Returns `values` as KerasTuner's object, which a build function asks."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


@dataclass(frozen=True, slots=True)
class _Probe:
    """One build: the values it was asked with, defaults included, and the parameters it asked for."""

    values: Mapping[str, ParameterValue]
    space: tuple[Any, ...]

    @classmethod
    def of(cls, space: keras_tuner.HyperModel, values: Mapping[str, ParameterValue]) -> _Probe:
        """Builds with `values` and defaults for the rest.

        Raises:
            SpaceError: What came back is no model.
        """
        hp = hyperparameters(values)
        built = space.build(hp)
        if not isinstance(built, keras.Model):
            raise SpaceError(f"the space returned {type(built).__name__}: expected build(hp) to return a keras.Model")
        asked = {parameter.name for parameter in hp.space}
        return cls({name: value for name, value in hp.values.items() if name in asked}, tuple(hp.space))


def _walk(space: keras_tuner.HyperModel) -> tuple[list[Any], Conditions]:
    """Builds with the values of every discrete parameter, breadth first, and collects what appears.

    Returns:
        The parameters in order of appearance, and the conditions that a Python ``if`` put on some of them.
    """
    probes = [_Probe.of(space, {})]
    found: dict[str, Any] = {}
    waiting: list[tuple[str, dict[str, ParameterValue]]] = []
    suspects: dict[str, set[str]] = {}
    fixed: dict[str, ParameterValue] = {}
    _collect(probes, found=found, fixed=fixed, waiting=waiting)
    while waiting and len(probes) < MAX_PROBES:
        name, fixed = waiting.pop(0)
        walked = _walked(space, found[name], fixed)
        probes += walked
        _collect(walked, found=found, fixed=fixed, waiting=waiting, parent=name)
        for child in found:
            if 0 < sum(child in probe.values for probe in walked) < len(walked):
                suspects.setdefault(child, set()).add(name)
    explicit = {parameter.name for parameter in found.values() if parameter.conditions}
    conditions = {
        child: _conditions_on(child, parents, found=found, probes=probes)
        for child, parents in suspects.items()
        # An explicit conditional scope says itself what it depends on.
        if child not in explicit
    }
    return [parameter for probe in probes for parameter in probe.space], conditions


def _collect(
    probes: Sequence[_Probe],
    *,
    found: dict[str, Any],
    fixed: Mapping[str, ParameterValue],
    waiting: list[tuple[str, dict[str, ParameterValue]]],
    parent: str | None = None,
) -> None:
    """Notes the parameters that appear in `probes` for the first time, to be walked under the values they need."""
    for probe in probes:
        under = dict(fixed)
        if parent is not None and parent in probe.values:
            under[parent] = probe.values[parent]
        for parameter in probe.space:
            if parameter.name not in found:
                found[parameter.name] = parameter
                scopes = {condition.name: condition.values[0] for condition in parameter.conditions}
                waiting.append((parameter.name, under | scopes))


def _walked(space: keras_tuner.HyperModel, parameter: Any, fixed: Mapping[str, ParameterValue]) -> list[_Probe]:
    """Builds with every value of `parameter`, or with its ends alone where these reveal the same parameters."""
    values = _discrete_values(parameter)
    if not 1 < len(values) <= MAX_WALKED_VALUES:
        return []
    first, last = (_Probe.of(space, {**fixed, parameter.name: value}) for value in (values[0], values[-1]))
    # A width or a rate rarely decides which other parameters exist, and every value costs a build.
    if isinstance(parameter, kt.Int) and first.values.keys() == last.values.keys():
        return [first, last]
    between = [_Probe.of(space, {**fixed, parameter.name: value}) for value in values[1:-1]]
    return [first, *between, last]


def _conditions_on(
    child: str, parents: set[str], *, found: Mapping[str, Any], probes: Sequence[_Probe]
) -> dict[str, tuple[ParameterValue, ...]]:
    """Returns under which values of `parents` the child exists, as far as every build agrees.

    Conditions are a conjunction. A child of ``if a or b`` was seen without ``a`` and without ``b``, so neither is a
    condition, and it is searched always; its value is not asked for where it does not exist.
    """
    holders = [probe for probe in probes if child in probe.values]
    conditions: dict[str, tuple[ParameterValue, ...]] = {}
    for parent in [name for name in found if name in parents]:
        if all(parent in probe.values for probe in holders):
            seen = {probe.values[parent] for probe in holders}
            values = tuple(value for value in _discrete_values(found[parent]) if value in seen)
            if len(values) < len(_discrete_values(found[parent])):
                conditions[parent] = values
    return conditions


def _discrete_values(parameter: Any) -> list[ParameterValue]:
    if isinstance(parameter, (kt.Choice, kt.Boolean)):
        return list(parameter.values)
    if isinstance(parameter, kt.Int):
        step = parameter.step or 1
        if parameter.sampling == "linear" and (parameter.max_value - parameter.min_value) // step < MAX_WALKED_VALUES:
            return list(range(parameter.min_value, parameter.max_value + 1, step))
    return []


def _merged(declared: Sequence[Any], conditions: Conditions) -> list[Parameter]:
    """Converts; as in KerasTuner, the first declaration of a name holds, and one in another scope is a second one.

    Raises:
        SpaceError: One name stands for two ranges, each in a scope of its own.
    """
    merged: dict[str, Parameter] = {}
    for parameter in declared:
        name = parameter.name
        converted = _convert(parameter, conditions.get(name, {}))
        known = merged.setdefault(name, converted)
        if known.conditions == converted.conditions:
            continue
        if replace(known, conditions=()) != replace(converted, conditions=()):
            raise SpaceError(
                f"parameter {name!r} is declared in two conditional scopes with different ranges: give each of the "
                f"two a name of its own"
            )
        merged[name] = replace(known, conditions=_either(known.conditions, converted.conditions))
    return list(merged.values())


def _either(one: tuple[Condition, ...], other: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Returns conditions that hold wherever `one` or `other` does, as tight as a conjunction can be."""
    values = {condition.parent: condition.values for condition in other}
    return tuple(
        Condition(condition.parent, tuple(dict.fromkeys([*condition.values, *values[condition.parent]])))
        for condition in one
        if condition.parent in values
    )


def _convert(parameter: Any, found_conditions: Mapping[str, tuple[ParameterValue, ...]]) -> Parameter:
    conditions = (
        *(Condition(c.name, tuple(c.values)) for c in parameter.conditions),
        *(Condition(parent, values) for parent, values in found_conditions.items()),
    )
    match parameter:
        case kt.Float():
            number: Float | Int = Float(
                parameter.name,
                parameter.min_value,
                parameter.max_value,
                scale=_scale(parameter),
                step=None if parameter.sampling == "reverse_log" else parameter.step,
                conditions=conditions,
            )
            return _with_default(number, parameter.default)
        case kt.Int():
            number = Int(
                parameter.name,
                parameter.min_value,
                parameter.max_value,
                step=1 if parameter.sampling == "reverse_log" else parameter.step or 1,
                scale=_scale(parameter),
                conditions=conditions,
            )
            return _with_default(number, parameter.default)
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


def _check_default(parameter: Any) -> None:
    """Refuses a default out of the range, which KerasTuner would train; to its oracle it means no more than none."""
    if not isinstance(parameter, kt.Float | kt.Int) or parameter.default is None:
        return
    low, high, default = parameter.min_value, parameter.max_value, parameter.default
    if not low <= default <= high:
        raise SpaceError(
            f"the space cannot be searched: the default of {parameter.name!r} is {default!r}, outside its own range; "
            f"expected a number between {low!r} and {high!r}"
        )


def _with_default(parameter: Float | Int, default: Any) -> Parameter:
    """KerasTuner lets a default lie off the steps or out of the range; such a one is no point of the space."""
    try:
        parameter.check(default)
    except ValueError:
        return parameter
    return replace(parameter, default=default)


def _scale(parameter: Any) -> Scale:
    # There is no reverse logarithmic scale; a logarithmic one would prefer the wrong end.
    return Scale.LOG if parameter.sampling == "log" else Scale.LINEAR
