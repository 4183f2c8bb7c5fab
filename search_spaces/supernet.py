"""All cells of `search_spaces.cell` in one network with shared weights: a supernet.

Every edge has all operations, and a step of the training goes along one path, an operation an edge (single path
one-shot; Guo et al., ECCV 2020). Paths come in rounds in which every operation of every edge is taken once (Chu et al.,
FairNAS, ICCV 2021, section 3.2, strict fairness). Departures: the paths of a round are trained one after the other, a
batch each, instead of on one batch with one update, which costs a short training too many of its updates; and a round
with a path that does not lead to the last node is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from keras import layers, ops
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
        self._drawn = fair_paths(seed=seed, num_rounds=NUM_ROUNDS)

    def build(self, x_shape: Any) -> None:
        """Creates the counter of steps; -1 while a path is fixed."""
        del x_shape
        whole: Any = {"dtype": "int32", "initializer": "zeros", "trainable": False, "autocast": False}
        self.step = self.add_weight(name="step", shape=(), **whole)
        self.fixed = self.add_weight(name="fixed", shape=(len(EDGES),), **whole)

    def fix(self, path: Path) -> None:
        """Lets every later call go along one path."""
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
        path = ops.where(is_fixed, ops.convert_to_tensor(self.fixed), drawn)
        return ops.stack(live([path[number] for number in range(len(EDGES))]))


@final
class SharedCell(layers.Layer):
    """A cell with all operations on every edge, of which a path chooses.

    An edge is one convolution, whose kernel is that of the chosen operation (of one pixel, with zeros around it, or of
    nine), beside what needs no weights: the network is one graph without branches, which is traced in a tenth of the
    time that a branch for each operation takes.

    Call arguments:
        x: (batch, height, width, channels).
        path: (num_edges,) int32, the number of an operation for each edge, as `live` returns it.

    Output:
        As ``x``.
    """

    def __init__(self) -> None:
        # Means and variances of batches are none in half precision.
        super().__init__(dtype="float32")

    def build(self, x_shape: Any, path_shape: Any) -> None:
        """Creates the convolutions; the weights of each edge are its own."""
        del path_shape
        channels = x_shape[-1]
        self.convolutions = [
            {name: SharedConvolution(size, channels, name=f"edge_{number}_{name}") for name, size in _KERNELS.items()}
            for number in range(len(EDGES))
        ]
        for edge in self.convolutions:
            for convolution in edge.values():
                convolution.build(x_shape)

    def compute_output_shape(self, x_shape: Any, path_shape: Any) -> Any:
        """Returns the shape of ``x``."""
        del path_shape
        return x_shape

    def call(self, x: Any, path: Any, training: bool = False) -> Any:
        """Returns the last node."""
        nodes = [x]
        for target in range(1, NUM_NODES):
            parts = [
                self._edge(number, nodes[source], path[number], training)
                for number, (source, end) in enumerate(EDGES)
                if end == target
            ]
            nodes.append(sum(parts[1:], parts[0]))
        return nodes[-1]

    def _edge(self, number: int, x: Any, chosen: Any, training: bool) -> Any:
        """Returns what an edge brings; nothing of what is not chosen is in it, and no gradient goes there."""
        is_chosen = {one: ops.cast(ops.equal(chosen, OPERATIONS.index(one)), "float32") for one in OPERATIONS}
        made = [(is_chosen[Operation(name)], one) for name, one in self.convolutions[number].items()]
        kernel = sum(share * one.padded_kernel() for share, one in made)
        y = ops.conv(ops.relu(x), kernel, padding="same")
        if training:
            mean, variance = ops.moments(y, axes=(0, 1, 2))
            for share, one in made:
                one.learn(mean, variance, share)
        else:
            mean = sum(share * ops.convert_to_tensor(one.moving_mean) for share, one in made)
            variance = sum(share * ops.convert_to_tensor(one.moving_variance) for share, one in made)
        scale = sum(share * ops.convert_to_tensor(one.gamma) for share, one in made)
        shift = sum(share * ops.convert_to_tensor(one.beta) for share, one in made)
        y = (y - mean) * ops.rsqrt(variance + EPSILON) * scale + shift
        average = ops.average_pool(x, 3, strides=1, padding="same")
        weighed = sum(share for share, _ in made)
        return weighed * y + is_chosen[Operation.SKIP] * x + is_chosen[Operation.AVERAGE] * average


@final
class SharedConvolution(layers.Layer):
    """The weights of one convolution with its norm; `SharedCell` computes with them.

    Args:
        kernel_size: Pixels a side, 1 or 3.
        channels: Channels of input and output.
        name: Name of the layer.

    Attributes:
        momentum: Of the statistics, as of Keras' batch normalisation.
    """

    def __init__(self, kernel_size: int, channels: int, *, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.momentum = MOMENTUM
        self._size, self._channels = kernel_size, channels

    def build(self, x_shape: Any) -> None:
        """Creates the kernel and what a batch normalisation has."""
        del x_shape
        size, channels = self._size, self._channels
        self.kernel = self.add_weight(
            name="kernel", shape=(size, size, channels, channels), initializer="he_normal"
        )
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")
        still: Any = {"shape": (channels,), "trainable": False}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **still)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **still)

    def padded_kernel(self) -> Any:
        """Returns the kernel at three pixels a side."""
        edge = (3 - self._size) // 2
        return ops.pad(ops.convert_to_tensor(self.kernel), [(edge, edge), (edge, edge), (0, 0), (0, 0)])

    def learn(self, mean: Any, variance: Any, share: Any) -> None:
        """Takes the statistics of a batch into its own; `share` is 1 where it was chosen, 0 otherwise."""
        for own, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            own.assign_add(share * (1.0 - self.momentum) * (ops.stop_gradient(found) - ops.convert_to_tensor(own)))


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
        path: Numbers of operations, one an edge, as integers, arrays or tensors.
    """
    taken = {edge: path[number] != 0 for number, edge in enumerate(EDGES)}
    reached: dict[int, Any] = {0: path[0] >= 0}
    leads: dict[int, Any] = {NUM_NODES - 1: reached[0]}
    for node in range(1, NUM_NODES):
        ways = [reached[source] & taken[source, node] for source in range(node)]
        reached[node] = _any(ways)
    for node in reversed(range(NUM_NODES - 1)):
        ways = [leads[target] & taken[node, target] for target in range(node + 1, NUM_NODES)]
        leads[node] = _any(ways)
    return [
        path[number] * _whole(reached[source] & leads[target]) for number, (source, target) in enumerate(EDGES)
    ]


def _any(ways: Sequence[Any]) -> Any:
    found = ways[0]
    for way in ways[1:]:
        found = found | way
    return found


def _whole(truth: Any) -> Any:
    """Returns 1 for true and 0 for false."""
    return truth * 1 if isinstance(truth, (bool, np.bool_, np.ndarray)) else ops.cast(truth, "int32")


def fair_paths(*, seed: int, num_rounds: int) -> NDArray[np.int32]:
    """Returns paths of which every five, a round, take every operation of every edge once, and all lead to the end.

    Args:
        seed: Chooses them.
        num_rounds: Number of rounds, at least 1.

    Returns:
        (num_rounds * num_operations, num_edges) int32.
    """
    rng = np.random.default_rng(seed)
    every = np.arange(len(OPERATIONS), dtype=np.int32)
    rounds: list[NDArray[np.int32]] = []
    while len(rounds) < num_rounds:
        drawn = np.stack([rng.permutation(every) for _ in EDGES], axis=1)
        columns = live([drawn[:, number] for number in range(len(EDGES))])
        if np.any(np.stack(columns), axis=0).all():
            rounds.append(drawn)
    return np.concatenate(rounds)
