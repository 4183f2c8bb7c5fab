"""All cells of `search_spaces.cell` in one network with shared weights: a supernet.

Every edge has all operations, and a step of the training goes along one path, an operation an edge (single path
one-shot; Guo et al., ECCV 2020). Paths come in rounds in which every operation of every edge is taken once (Chu et al.,
FairNAS, ICCV 2021, section 3.2, strict fairness). Departures: the paths of a round are trained one after the other, a
batch each, instead of on one batch with one update, which costs a short training too many of its updates; and a round
with a path that does not lead to the last node is drawn again.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from keras import initializers, layers, ops
from numpy.typing import NDArray

from search_spaces.cell import EDGES, NUM_NODES, CellSpace, Operation, operations_of, stacked
from search_spaces.context import TrainingContext
from search_spaces.image import ImageSpace
from search_spaces.tabular import HyperParameters

OPERATIONS = tuple(Operation)
"""In the order of their numbers in a path; the first is none."""

_KERNELS: Mapping[str, int] = {Operation.CONVOLUTION_1.value: 1, Operation.CONVOLUTION_3.value: 3}
"""Operations with weights, and the pixels a side of their kernels."""

MOMENTUM, EPSILON = 0.9, 1e-5
"""Those of the norms of `search_spaces.cnn_blocks`."""

NUM_ROUNDS = 2_000
"""Rounds of paths that are drawn; longer trainings begin again with the first."""

Path = Sequence[int] | NDArray[np.int32]


@final
class SupernetSpace(ImageSpace):
    """Builds the supernet of a cell space for one width, depth and recipe.

    Args:
        context: The images and the task.
        seed: Chooses the paths.
    """

    def __init__(self, context: TrainingContext, *, seed: int) -> None:
        super().__init__(context)
        self._seed = seed

    def declare(self, hp: HyperParameters) -> None:
        """Declares what a cell space declares; the edges are taken as they come."""
        CellSpace(self.context).declare(hp)

    def features(self, pixels: Any, hp: HyperParameters) -> Any:
        """Returns the pooled map of the last cell, along the path of this step."""
        path = FairPaths(self._seed)(pixels)
        return stacked(pixels, hp, self.context, cell=lambda x, _: SharedCell()(x, path))


@final
class FairPaths(layers.Layer):
    """The path of a step: the next of its round while training, or one that was fixed.

    Call arguments:
        x: Anything; it is not looked at.
        training: Whether the next step gets another path.

    Output:
        (num_edges,) int32: the number of an operation for each edge, 0 for edges that are not on a way to the end.

    Args:
        seed: Chooses the paths.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(name="paths")
        drawn = fair_paths(seed=seed, num_rounds=NUM_ROUNDS)
        self._drawn = np.stack(live([drawn[:, number] for number in range(len(EDGES))]), axis=1)

    def build(self, x_shape: Any) -> None:
        """Creates the counter of steps; -1 while a path is fixed."""
        del x_shape
        whole: Any = {"dtype": "int32", "initializer": "zeros", "trainable": False, "autocast": False}
        self.step = self.add_weight(name="step", shape=(), **whole)
        self.fixed = self.add_weight(name="fixed", shape=(len(EDGES),), **whole)

    def fix(self, path: Path) -> None:
        """Lets every later call go along one path, as `path_of` returns it."""
        self.fixed.assign(np.asarray(path, np.int32))
        self.step.assign(-1)

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns the path."""
        del x
        step = ops.convert_to_tensor(self.step)
        is_fixed = step < 0
        drawn = ops.take(ops.convert_to_tensor(self._drawn), ops.mod(step, len(self._drawn)), axis=0)
        if training:
            self.step.assign(ops.where(is_fixed, step, step + 1))
        return ops.where(is_fixed, ops.convert_to_tensor(self.fixed), drawn)


@final
class SharedCell(layers.Layer):
    """A cell with all operations on every edge, of which a path chooses.

    An edge is one convolution, whose kernel is that of the chosen operation (of one pixel, with zeros around it, or of
    nine), beside what needs no weights; edges that begin at the same node are one convolution together, and a weight of
    all edges is one variable. So the network is a small graph without branches: with a branch for each operation and
    variables of each edge, its first step takes ten times as long.

    Call arguments:
        x: (batch, height, width, channels).
        path: (num_edges,) int32, the number of an operation for each edge, as `live` returns it.

    Output:
        As ``x``.

    Attributes:
        kernels: Name of a convolution -> its kernels, (num_edges, size, size, channels, channels).
        momentum: Of the statistics, as of Keras' batch normalisation.
    """

    def __init__(self) -> None:
        # Means and variances of batches are none in half precision.
        super().__init__(dtype="float32")
        self.momentum = MOMENTUM

    def build(self, x_shape: Any, path_shape: Any) -> None:
        """Creates the convolutions, each with what a batch normalisation has."""
        del path_shape
        self._channels = channels = x_shape[-1]
        self.kernels = {
            name: self.add_weight(
                name=f"{name}_kernels", shape=(len(EDGES), size, size, channels, channels), initializer=_each_he_normal
            )
            for name, size in _KERNELS.items()
        }
        # Of one dimension, so that weight decay knows them for scales and shifts.
        shape = (len(EDGES) * len(_KERNELS) * channels,)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.moving_mean = self.add_weight(name="moving_mean", shape=shape, initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False
        )

    def compute_output_shape(self, x_shape: Any, path_shape: Any) -> Any:
        """Returns the shape of ``x``."""
        del path_shape
        return x_shape

    def by_edge(self, variable: Any) -> Any:
        """Returns a weight of the norms as (num_edges, num_convolutions, channels), in the order of `kernels`."""
        return ops.reshape(ops.convert_to_tensor(variable), (len(EDGES), len(_KERNELS), self._channels))

    def call(self, x: Any, path: Any, training: bool = False) -> Any:
        """Returns the last node; nothing of what is not chosen is in it, and no gradient goes there."""
        chosen = ops.one_hot(path, len(OPERATIONS), dtype="float32")
        share = ops.stack([chosen[:, OPERATIONS.index(Operation(name))] for name in self.kernels], axis=1)
        kernels = sum(
            share[:, number, None, None, None, None] * _padded(kernel)
            for number, kernel in enumerate(self.kernels.values())
        )
        scale, shift = (ops.sum(share[..., None] * self.by_edge(one), axis=1) for one in (self.gamma, self.beta))
        known = [ops.sum(share[..., None] * self.by_edge(one), axis=1) for one in self._statistics]
        nodes: list[Any] = [x, *([0.0] * (NUM_NODES - 1))]
        measured = []
        for source in range(NUM_NODES - 1):
            numbers = [number for number, edge in enumerate(EDGES) if edge[0] == source]
            of = slice(numbers[0], numbers[-1] + 1)
            y = self._convolved(nodes[source], kernels[of])
            mean, variance = (
                ops.moments(y, axes=(0, 1, 2)) if training else (ops.reshape(one[of], (-1,)) for one in known)
            )
            measured.append((mean, variance))
            y = (y - mean) * ops.rsqrt(variance + EPSILON) * _flat(scale[of]) + _flat(shift[of])
            average = ops.average_pool(nodes[source], 3, strides=1, padding="same")
            for place, number in enumerate(numbers):
                # A kernel of zeros brings nothing.
                brought = y[..., place * self._channels : (place + 1) * self._channels]
                brought += chosen[number, OPERATIONS.index(Operation.SKIP)] * nodes[source]
                brought += chosen[number, OPERATIONS.index(Operation.AVERAGE)] * average
                nodes[EDGES[number][1]] += brought
        if training:
            self._learn(measured, share)
        return nodes[-1]

    @property
    def _statistics(self) -> tuple[Any, Any]:
        return self.moving_mean, self.moving_variance

    def _convolved(self, x: Any, kernels: Any) -> Any:
        """Returns (batch, height, width, num_edges * channels) for kernels (num_edges, 3, 3, channels, channels)."""
        joined = ops.reshape(ops.transpose(kernels, (1, 2, 3, 0, 4)), (3, 3, self._channels, -1))
        return ops.conv(ops.relu(x), joined, padding="same")

    def _learn(self, measured: Sequence[tuple[Any, Any]], share: Any) -> None:
        """Takes the statistics of a batch, source by source, into those of the convolutions that were chosen."""
        for own, parts in zip(self._statistics, zip(*measured, strict=True), strict=True):
            found = ops.reshape(ops.stop_gradient(ops.concatenate(parts)), (len(EDGES), 1, self._channels))
            own.assign_add(_flat(share[..., None] * (1.0 - self.momentum) * (found - self.by_edge(own))))


def _each_he_normal(shape: Any, dtype: Any = None) -> Any:
    """Returns kernels of which each is drawn as if it were the only one."""
    # An initializer returns the same numbers at every call.
    return ops.stack([initializers.HeNormal()(tuple(shape[1:]), dtype) for _ in range(shape[0])])


def _padded(kernels: Any) -> Any:
    """Returns kernels (num_edges, size, size, channels, channels) at three pixels a side."""
    edge = (3 - kernels.shape[1]) // 2
    return ops.pad(ops.convert_to_tensor(kernels), [(0, 0), (edge, edge), (edge, edge), (0, 0), (0, 0)])


def _flat(array: Any) -> Any:
    return ops.reshape(array, (-1,))


def path_of(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the path of a configuration; two that compute the same in all their edges on a way have the same.

    Args:
        values: Has the operation of every edge by its name.
    """
    operations = operations_of(values)
    return tuple(int(chosen) for chosen in live([OPERATIONS.index(operations[edge]) for edge in EDGES]))


def live(path: Sequence[Any]) -> list[Any]:
    """Returns a path without the operations of edges that no image comes to, or that lead nowhere.

    A cell by itself leaves these out; in a supernet, a norm would make something of nothing.

    Args:
        path: Numbers of operations, one an edge, as integers or as arrays of many paths.
    """
    taken = {edge: path[number] != 0 for number, edge in enumerate(EDGES)}
    reached: dict[int, Any] = {0: path[0] >= 0}
    leads: dict[int, Any] = {NUM_NODES - 1: reached[0]}
    for node in range(1, NUM_NODES):
        reached[node] = _any([reached[source] & taken[source, node] for source in range(node)])
    for node in reversed(range(NUM_NODES - 1)):
        leads[node] = _any([leads[target] & taken[node, target] for target in range(node + 1, NUM_NODES)])
    return [path[number] * (reached[source] & leads[target]) for number, (source, target) in enumerate(EDGES)]


def _any(ways: Sequence[Any]) -> Any:
    return functools.reduce(operator.or_, ways)


def fair_paths(*, seed: int, num_rounds: int) -> NDArray[np.int32]:
    """Returns paths of which every five, a round, take every operation of every edge once, and all lead to the end.

    Args:
        seed: Chooses them.
        num_rounds: Number of rounds, at least 1.

    Returns:
        (num_rounds * num_operations, num_edges) int32.
    """
    rng = np.random.default_rng(seed)
    every = np.arange(len(OPERATIONS), dtype=np.int32)[:, None]
    found = np.zeros((0, len(OPERATIONS), len(EDGES)), np.int32)
    while len(found) < num_rounds:
        drawn = rng.permuted(np.broadcast_to(every, (num_rounds, len(OPERATIONS), len(EDGES))), axis=1)
        columns = live([drawn[..., number] for number in range(len(EDGES))])
        found = np.concatenate([found, drawn[np.any(np.stack(columns), axis=0).all(axis=1)]])
    return found[:num_rounds].reshape(-1, len(EDGES))
