"""A search space: its parameters in order, and the one converter between configurations and numbers.

Notation: P parameters; n configurations. A configuration has three forms:
    mapping  name -> value, inactive parameters absent (what a trial trains with);
    units    (P,) canonical coordinates in [0, 1], `INACTIVE` for inactive parameters (sampling, mutation, identity);
    columns  (dimension,) in [0, 1], categories one-hot, `NEUTRAL` for inactive parameters (what a model sees).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.search.counting import Counter
from app.search.parameter_json import parameter_from_json, parameter_to_json
from app.search.parameters import (
    NEUTRAL,
    Array,
    Boolean,
    Categorical,
    Condition,
    Float,
    Int,
    Parameter,
    Scale,
    Value,
    same_value,
)

__all__ = [
    "INACTIVE", "Boolean", "Categorical", "Condition", "Configuration", "Float", "Int", "Parameter", "Scale", "Space",
    "Value",
]  # fmt: skip

Configuration = Mapping[str, Value]

INACTIVE = -1.0


class Space:
    """An ordered set of parameters, some of which exist only under conditions on others.

    Args:
        parameters: in any order; parents are moved before their children, otherwise the order is kept.

    Raises:
        ValueError: no parameters, a duplicate name, an unknown parent, a condition that can never hold, a cycle.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters: tuple[Parameter, ...] = _parents_first(parameters)
        self.names: tuple[str, ...] = tuple(parameter.name for parameter in self.parameters)
        self.dimension: int = sum(parameter.width for parameter in self.parameters)
        self._index = {name: index for index, name in enumerate(self.names)}
        # For each parameter: (index of the parent, canonical coordinates that make the child exist).
        self._conditions: tuple[tuple[tuple[int, tuple[float, ...]], ...], ...] = tuple(
            tuple((self._index[c.parent], self._units_of_values(c)) for c in parameter.conditions)
            for parameter in self.parameters
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash(self.parameters)

    def __repr__(self) -> str:
        return f"Space({list(self.parameters)!r})"

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __getitem__(self, name: str) -> Parameter:
        return self.parameters[self._index[name]]

    def _units_of_values(self, condition: Condition) -> tuple[float, ...]:
        parent = self[condition.parent]
        return tuple(parent.unit_of(value) for value in condition.values)

    # Configurations as mappings

    def is_active(self, name: str, configuration: Configuration) -> bool:
        """Whether the parameter exists under the values of `configuration`."""
        for condition in self[name].conditions:
            if not self.is_active(condition.parent, configuration):
                return False
            value = configuration.get(condition.parent, self[condition.parent].fallback)
            if not any(same_value(value, wanted) for wanted in condition.values):
                return False
        return True

    def validate(self, configuration: Configuration) -> None:
        """Raise ValueError naming the key and its range unless `configuration` is a point of this space."""
        for name in configuration:
            if name not in self._index:
                near = get_close_matches(str(name), self.names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(self.names)}."
                raise ValueError(f"The space has no parameter {name!r}; {hint}")
        for parameter in self.parameters:
            name = parameter.name
            if self.is_active(name, configuration):
                if name not in configuration:
                    raise ValueError(f"Parameter {name!r} is missing; it is active here and needs a value.")
                parameter.check(configuration[name])
            elif name in configuration:
                rules = " and ".join(f"{c.parent} in {list(c.values)!r}" for c in parameter.conditions)
                raise ValueError(f"Parameter {name!r} is set but not active; it exists only when {rules}.")

    def default(self) -> Configuration:
        """The configuration of every active parameter's default."""
        return self.from_units(np.array([parameter.unit_of(parameter.fallback) for parameter in self.parameters]))

    def sample(self, rng: np.random.Generator) -> Configuration:
        """A configuration drawn uniformly (on each parameter's own scale)."""
        return self.from_units(rng.random(len(self.parameters)))

    def mutate(self, configuration: Configuration, *, rng: np.random.Generator, num_changes: int = 1) -> Configuration:
        """A configuration that differs in up to `num_changes` active parameters (children of those follow)."""
        units = self.units(configuration)[None, :]
        return self.from_units(self.mutate_units(units, rng=rng, num_changes=np.array([num_changes]))[0])

    def key(self, configuration: Configuration) -> Hashable:
        """An identity: equal for equal configurations, whatever their order or numeric type."""
        return self.keys(self.units(configuration)[None, :])[0]

    # Units: (P,) or (n, P) coordinates, one a parameter

    def units(self, configuration: Configuration) -> Array:
        """Canonical coordinates (P,); an active parameter that is missing takes its default.

        Missing values occur when the space has grown since the configuration was tried: KerasTuner's own rule is
        that such a trial ran with the default.
        """
        # Plain numbers, not arrays: this runs for every trial at every suggestion.
        row: list[float] = []
        for parameter, conditions in zip(self.parameters, self._conditions, strict=True):
            if all(any(abs(row[parent] - unit) < 1e-9 for unit in wanted) for parent, wanted in conditions):
                row.append(parameter.unit_of(configuration.get(parameter.name, parameter.fallback)))
            else:
                row.append(INACTIVE)
        return np.array(row)

    def from_units(self, row: Array) -> Configuration:
        """The configuration at coordinates (P,) in [0, 1]; those of inactive parameters do not matter."""
        units = self.canonical(row[None, :])[0]
        return {
            parameter.name: parameter.value_at(float(unit))
            for parameter, unit in zip(self.parameters, units, strict=True)
            if unit != INACTIVE
        }

    def canonical(self, units: Array) -> Array:
        """Coordinates (n, P) moved to the middle of their cells, `INACTIVE` where a parameter does not exist."""
        rows = np.empty_like(units)
        for index, parameter in enumerate(self.parameters):
            rows[:, index] = parameter.snap(units[:, index])
            for parent, wanted in self._conditions[index]:
                holds = np.any(np.abs(rows[:, parent, None] - np.array(wanted)) < 1e-9, axis=1)
                rows[~holds, index] = INACTIVE
        return rows

    def mutate_units(self, units: Array, *, rng: np.random.Generator, num_changes: NDArray[np.intp]) -> Array:
        """Change `num_changes` (n,) active parameters in each canonical row (n, P); the result is canonical.

        Half of the numeric changes are small steps (a tenth of the range), half are fresh draws: small steps refine,
        fresh draws leave a local optimum. A category always changes to another one.
        """
        num_rows, num_parameters = units.shape
        changeable = (units != INACTIVE) & np.array([parameter.num_values != 1 for parameter in self.parameters])
        # Numbers of equal cells; 0 for a parameter that is treated as continuous.
        counts = np.array([num_equal_cells(parameter) for parameter in self.parameters])
        order = np.where(changeable, rng.random(units.shape), 2.0).argsort(axis=1).argsort(axis=1)
        chosen = (order < num_changes[:, None]) & changeable
        fresh = rng.random(units.shape)
        steps = units + 0.1 * rng.standard_normal(units.shape)
        # A countable parameter moves by whole cells, at least one, and wraps around when it must.
        hops = np.maximum(1, np.rint(np.abs(steps - units) * counts)) * np.where(steps < units, -1, 1)
        jumps = 1 + np.floor(fresh * np.maximum(counts - 1, 1))
        small = rng.random(units.shape) < 0.5
        unordered = np.array(
            [isinstance(parameter, Categorical) and not parameter.ordered for parameter in self.parameters]
        )
        cells = np.floor(units * counts) + np.where(small & ~unordered, hops, jumps)
        countable = (np.mod(cells, np.maximum(counts, 1)) + 0.5) / np.maximum(counts, 1)
        # Reflect at the ends rather than clip, which would pile the mutants up there.
        smooth = 1.0 - np.abs(1.0 - np.mod(np.where(small, steps, fresh), 2.0))
        moved = np.where(counts == 0, smooth, countable)
        filled = np.where(units == INACTIVE, rng.random((num_rows, num_parameters)), units)
        return self.canonical(np.asarray(np.where(chosen, moved, filled), dtype=np.float64))

    def keys(self, canonical: Array) -> list[bytes]:
        """Identities of canonical rows (n, P)."""
        rows = np.ascontiguousarray(np.round(canonical, 14) + 0.0)
        return [row.tobytes() for row in rows]

    # Columns: (dimension,) or (n, dimension), what models see

    def columns(self, canonical: Array) -> Array:
        """Model columns (n, dimension) of canonical rows (n, P)."""
        parts = []
        for index, parameter in enumerate(self.parameters):
            active = canonical[:, index] != INACTIVE
            part = _to_columns(parameter, np.where(active, canonical[:, index], NEUTRAL))
            part[~active] = 1.0 / parameter.width if parameter.width > 1 else NEUTRAL
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def encode(self, configuration: Configuration) -> Array:
        """Model columns (dimension,) in [0, 1]; inactive parameters take a fixed neutral value."""
        columns: Array = self.columns(self.units(configuration)[None, :])[0]
        return columns

    def decode(self, columns: Array) -> Configuration:
        """The configuration that columns (dimension,) stand for; inactive parameters are absent."""
        if columns.shape != (self.dimension,):
            raise ValueError(f"Columns of shape {columns.shape}; expected ({self.dimension},) for this space.")
        row, start = np.empty(len(self.parameters)), 0
        for index, parameter in enumerate(self.parameters):
            row[index] = _unit_from_columns(parameter, columns[start : start + parameter.width])
            start += parameter.width
        return self.from_units(row)

    # Counting

    @cached_property
    def _counter(self) -> Counter | None:
        return Counter.of(self.parameters)

    @property
    def num_configurations(self) -> int | None:
        """How many configurations there are; None when infinite (or too entangled to count)."""
        return None if self._counter is None else self._counter.total

    def configuration_at(self, index: int) -> Configuration:
        """The `index`-th configuration of a finite space, 0 <= index < num_configurations."""
        if self._counter is None:
            raise ValueError("The space is infinite: it has a real-valued parameter without a step.")
        cells = self._counter.cells_at(index)
        return {name: self[name].nth(cells[name]) for name in self.names if name in cells}

    def enumerate(self) -> Iterator[Configuration]:
        """Every configuration of a finite space, each once; raises ValueError for an infinite one."""
        if self._counter is None:
            raise ValueError("The space is infinite: it has a real-valued parameter without a step.")
        return (self.configuration_at(index) for index in range(self._counter.total))

    # Growth and JSON

    def merged(self, more_parameters: Sequence[Parameter]) -> Space:
        """This space with further parameters; one known already must be the same.

        Raises:
            ValueError: a known name comes with another definition.
        """
        fresh = []
        for parameter in more_parameters:
            if parameter.name not in self._index:
                fresh.append(parameter)
            elif parameter != self[parameter.name]:
                raise ValueError(
                    f"Parameter {parameter.name!r} is declared twice: {self[parameter.name]!r} and {parameter!r}. "
                    "Give one of them another name."
                )
        return Space([*self.parameters, *fresh])

    def to_json(self) -> dict[str, object]:
        """A JSON object that `from_json` turns back into an equal space."""
        return {"parameters": [parameter_to_json(parameter) for parameter in self.parameters]}

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Space:
        """The space described by `to_json`."""
        parameters = record.get("parameters")
        if not isinstance(parameters, list):
            raise ValueError(f"A space's JSON holds {parameters!r}; expected a list under 'parameters'.")
        return cls([parameter_from_json(item) for item in parameters])


def _to_columns(parameter: Parameter, units: Array) -> Array:
    """Model columns (n, width) in [0, 1] of canonical coordinates (n,)."""
    if parameter.width > 1:
        cells = np.minimum((units * parameter.width).astype(np.intp), parameter.width - 1)
        return np.eye(parameter.width)[cells]
    return units[:, None][:, : parameter.width]


def _unit_from_columns(parameter: Parameter, columns: Array) -> float:
    """The coordinate that model columns (width,) stand for; the largest wins among one-hot columns."""
    if parameter.width > 1:
        return (int(np.argmax(columns)) + 0.5) / parameter.width
    return min(max(float(columns[0]), 0.0), 1.0) if parameter.width else NEUTRAL


def num_equal_cells(parameter: Parameter) -> int:
    if isinstance(parameter, Int) and parameter.scale is Scale.LOG and parameter.step == 1:
        return 0
    return parameter.num_values or 0


def _parents_first(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    if not parameters:
        raise ValueError("The space has no parameters; expected at least one.")
    by_name: dict[str, Parameter] = {}
    for parameter in parameters:
        if parameter.name in by_name:
            raise ValueError(f"Two parameters are named {parameter.name!r}; expected unique names.")
        by_name[parameter.name] = parameter
    for parameter in parameters:
        for condition in parameter.conditions:
            _check_condition(parameter, condition, by_name)
    ordered: dict[str, Parameter] = {}
    waiting = list(parameters)
    while waiting:
        ready = next((p for p in waiting if all(c.parent in ordered for c in p.conditions)), None)
        if ready is None:
            names = ", ".join(repr(parameter.name) for parameter in waiting)
            raise ValueError(f"The conditions of {names} form a cycle; a parameter cannot depend on itself.")
        ordered[ready.name] = ready
        waiting.remove(ready)
    return tuple(ordered.values())


def _check_condition(parameter: Parameter, condition: Condition, by_name: Mapping[str, Parameter]) -> None:
    if condition.parent not in by_name:
        near = get_close_matches(condition.parent, by_name, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Parameter {parameter.name!r} depends on {condition.parent!r}, which is not there.{hint}")
    for value in condition.values:
        try:
            by_name[condition.parent].check(value)
        except ValueError as error:
            raise ValueError(f"The condition of {parameter.name!r} can never hold: {error}") from error
