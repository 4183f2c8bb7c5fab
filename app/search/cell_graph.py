"""Cells of neural networks as graphs: features of what a cell computes rather than of how it is written down.

A cell is a graph of nodes 0 ... n - 1 with an operation on every edge from a lower to a higher node, as in
NAS-Bench-201 (Dong and Yang, ICLR 2020). Its parameters are unordered categories with the same values, called
``edge_<from>_<to>`` behind any prefix; the value ``none`` stands for no edge, and one that begins with ``skip`` hands
on what it is given. Written edge by edge, cells that compute the same look far apart, and dead edges count like live
ones. Here a cell is the number of its live paths of every kind, a kind being the operations along it without skips
(the path encoding of White et al., BANANAS, AAAI 2021, with paths counted rather than marked), and the number of live
edges of each operation.

Notation: E edges; p paths; s kinds of paths; o operations that are not ``none``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.search.parameters import Array, Categorical
from app.search.space import INACTIVE, Space

_EDGE = re.compile(r"(?P<prefix>.*?)edge_(?P<source>\d+)_(?P<target>\d+)")
_NO_EDGE, _SKIP = "none", "skip"

_MOST_FEATURES = 300  # beyond, a model of them costs more than it knows


@dataclass(frozen=True, slots=True)
class CellGraph:
    """The cell among a space's parameters.

    Attributes:
        indices: (E,) places of the edges' parameters in the space.
        paths: Edges of every path from the first node to the last, as places in `indices`.
        operations: Number of each operation among those that change what they are given, from 1; 0 for a skip and -1
            for no edge.
    """

    indices: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    operations: tuple[int, ...]

    @classmethod
    def of(cls, space: Space) -> Self | None:
        """The cell of a space; None when it has none, more than one, or one too large to be told by its paths."""
        edges: dict[tuple[int, int], int] = {}
        prefixes: set[str] = set()
        for index, name in enumerate(space.names):
            found = _EDGE.fullmatch(name)
            if found is not None:
                edges[int(found["source"]), int(found["target"])] = index
                prefixes.add(found["prefix"])
        num_nodes = 1 + max((target for _, target in edges), default=0)
        if len(prefixes) != 1 or set(edges) != set(itertools.combinations(range(num_nodes), 2)):
            return None
        operations = _operations(space, list(edges.values()))
        if operations is None:
            return None
        places = {edge: place for place, edge in enumerate(edges)}
        graph = cls(tuple(edges.values()), tuple(_paths(places, num_nodes)), operations)
        return graph if graph.num_features <= _MOST_FEATURES else None

    @property
    def num_features(self) -> int:
        """Columns of `features`."""
        kinds = max(self.operations, default=0)
        return sum(int(kinds**length) for length in range(self._longest + 1)) + self._num_real

    @property
    def _longest(self) -> int:
        return max(len(path) for path in self.paths)

    @property
    def _num_real(self) -> int:
        return sum(operation >= 0 for operation in self.operations)

    def features(self, rows: Array) -> Array:
        """What the cells of canonical rows (n, P) compute, (n, s + o) in [0, 1]; equal for equal graphs.

        A cell that does not exist under a row's other parameters is all zeros.
        """
        units = rows[:, self.indices]
        width = len(self.operations)
        chosen = np.minimum((np.maximum(units, 0.0) * width).astype(np.intp), width - 1)
        absent = np.any(units == INACTIVE, axis=1)
        operations = np.asarray(self.operations)[chosen]
        base = max(self.operations) + 1
        counts = np.zeros((len(rows), base**self._longest))
        live = np.zeros(chosen.shape, dtype=np.bool_)
        for path in self.paths:
            along = operations[:, path]
            alive = np.all(along >= 0, axis=1) & ~absent
            code = np.zeros(len(rows), dtype=np.intp)
            for operation in along.T:
                code = np.where(operation > 0, code * base + operation, code)
            counts[alive, code[alive]] += 1.0
            live[np.ix_(alive, path)] = True
        kinds = counts[:, _codes(base, self._longest)] / max(len(self.paths) / 2.0, 1.0)
        real = [place for place, operation in enumerate(self.operations) if operation >= 0]
        edges = [np.mean(live & (chosen == place), axis=1) for place in real]
        return np.asarray(np.minimum(np.column_stack([kinds, *edges]), 1.0))


def columns(space: Space, rows: Array, graph: CellGraph | None) -> Array:
    """Model columns (n, d) of canonical rows (n, P): those of the space, with a cell told by what it computes."""
    own = space.columns(rows)
    if graph is None:
        return own
    widths = [parameter.width for parameter in space.parameters]
    kept = np.repeat([index not in graph.indices for index in range(len(widths))], widths)
    return np.column_stack([own[:, kept], graph.features(rows)])


def _operations(space: Space, indices: Sequence[int]) -> tuple[int, ...] | None:
    """Numbers of the operations, alike on all edges; None when the parameters are of another kind."""
    first = space.parameters[indices[0]]
    if not isinstance(first, Categorical) or first.ordered or first.width < 3:
        return None
    for index in indices:
        edge = space.parameters[index]
        if not isinstance(edge, Categorical) or edge.ordered or edge.choices != first.choices:
            return None
    numbers = itertools.count(1)
    names = [str(value) for value in first.choices]
    return tuple(-1 if name == _NO_EDGE else 0 if name.startswith(_SKIP) else next(numbers) for name in names)


def _paths(places: dict[tuple[int, int], int], num_nodes: int) -> list[tuple[int, ...]]:
    """Every path through nodes in rising order from the first to the last."""
    found = []
    for length in range(num_nodes - 1):
        for between in itertools.combinations(range(1, num_nodes - 1), length):
            nodes = (0, *between, num_nodes - 1)
            found.append(tuple(places[edge] for edge in itertools.pairwise(nodes)))
    return found


def _codes(base: int, longest: int) -> NDArray[np.intp]:
    """Numbers, in digits of `base`, of every sequence of at most `longest` operations: those without a digit 0."""
    codes = [0]
    for length in range(1, longest + 1):
        for digits in itertools.product(range(1, base), repeat=length):
            code = 0
            for digit in digits:
                code = code * base + digit
            codes.append(code)
    return np.array(codes, dtype=np.intp)
