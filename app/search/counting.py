"""Counting and numbering the configurations of a finite conditional space without listing them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from app.search.parameters import Parameter, same_value

# A group of parents with more joint settings than this is treated as infinite: samplers then draw instead of list.
_MAX_SETTINGS = 100_000


@dataclass(frozen=True, slots=True)
class _Setting:
    """One joint choice of all parents in a group, and the childless parameters that exist under it."""

    cells: Mapping[str, int]
    leaves: tuple[tuple[str, int], ...]

    @property
    def count(self) -> int:
        return math.prod(size for _, size in self.leaves)


@dataclass(frozen=True, slots=True)
class Counter:
    """The configurations of a finite space, numbered 0 .. total - 1.

    Parameters linked by conditions form a group. Only the parents of a group are listed; its childless parameters
    multiply. Groups multiply with each other. So the cost depends on the parents alone.
    """

    groups: tuple[tuple[_Setting, ...], ...]
    ends: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, parameters: Sequence[Parameter]) -> Counter | None:
        """The counter of a space (parents before children); None when it is infinite or too entangled."""
        if any(parameter.num_values is None for parameter in parameters):
            return None
        groups = []
        for group in _groups(parameters):
            settings = []
            for setting in _settings(group):
                settings.append(setting)
                if len(settings) > _MAX_SETTINGS:
                    return None
            groups.append(tuple(settings))
        ends = tuple(tuple(accumulate(setting.count for setting in group)) for group in groups)
        return cls(groups=tuple(groups), ends=ends)

    @property
    def total(self) -> int:
        """Number of configurations."""
        return math.prod(ends[-1] for ends in self.ends)

    def cells_at(self, index: int) -> dict[str, int]:
        """The cell number of every active parameter in configuration `index`, 0 <= index < total."""
        if not 0 <= index < self.total:
            raise ValueError(f"Configuration {index} of a space with {self.total}; expected 0 to {self.total - 1}.")
        cells: dict[str, int] = {}
        for group, ends in zip(reversed(self.groups), reversed(self.ends), strict=True):
            index, rest = divmod(index, ends[-1])
            position = bisect_right(ends, rest)
            setting = group[position]
            rest -= ends[position] - setting.count
            cells.update(setting.cells)
            for name, size in reversed(setting.leaves):
                rest, cells[name] = divmod(rest, size)
        return cells


def _groups(parameters: Sequence[Parameter]) -> list[list[Parameter]]:
    group_of: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        merged = [parameter]
        for condition in parameter.conditions:
            other = group_of[condition.parent]
            merged += [member for member in other if member not in merged]
        for member in merged:
            group_of[member.name] = merged
    unique: list[list[Parameter]] = []
    for parameter in parameters:
        group = group_of[parameter.name]
        if not any(group is other for other in unique):
            unique.append(group)
    position = {parameter.name: index for index, parameter in enumerate(parameters)}
    return [sorted(group, key=lambda member: position[member.name]) for group in unique]


def _settings(group: Sequence[Parameter]) -> Iterator[_Setting]:
    parent_names = {condition.parent for parameter in group for condition in parameter.conditions}
    parents = [parameter for parameter in group if parameter.name in parent_names]
    leaves = [parameter for parameter in group if parameter.name not in parent_names]

    def extend(depth: int, cells: dict[str, int], values: dict[str, object]) -> Iterator[_Setting]:
        if depth == len(parents):
            active = [leaf for leaf in leaves if _holds(leaf, values)]
            yield _Setting(cells=dict(cells), leaves=tuple((leaf.name, leaf.num_values or 1) for leaf in active))
            return
        parameter = parents[depth]
        if not _holds(parameter, values):
            yield from extend(depth + 1, cells, values)
            return
        count = parameter.num_values or 1
        for cell in range(count):
            cells[parameter.name] = cell
            values[parameter.name] = parameter.nth(cell)
            yield from extend(depth + 1, cells, values)
        del cells[parameter.name], values[parameter.name]

    return extend(0, {}, {})


def _holds(parameter: Parameter, values: Mapping[str, object]) -> bool:
    return all(
        condition.parent in values and any(same_value(values[condition.parent], wanted) for wanted in condition.values)
        for condition in parameter.conditions
    )
