"""Networks of one cell, repeated: the space of NAS-Bench-201 (Dong and Yang, ICLR 2020) at widths for two cores.

A cell has four nodes. Every edge from a lower to a higher node has one of five operations, and a node is the sum of
what its edges bring. Stages of equal cells are joined by residual blocks that halve the image and double the width.
The edges are parameters ``edge_<from>_<to>``: by that name the Gaussian process of the search knows a graph
(`app.search.cell_graph`), and regularised evolution changes one edge at a time, as in the paper of that space.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, final

from keras import layers

from search_spaces.catalogue import SpaceError
from search_spaces.cnn import MIN_MAP
from search_spaces.cnn_blocks import BlockShape, activated, convolution, normalised, residual_block
from search_spaces.image import ImageSpace, declare_resolution, resized
from search_spaces.image_context import ImageContext
from search_spaces.tabular import HyperParameters

NUM_NODES = 4
NUM_STAGES = 3

EDGES = tuple(itertools.combinations(range(NUM_NODES), 2))
"""From a lower to a higher node."""


class Operation(StrEnum):
    """What an edge makes of its node."""

    NONE = "none"
    SKIP = "skip"
    CONVOLUTION_1 = "convolution_1x1"
    CONVOLUTION_3 = "convolution_3x3"
    AVERAGE = "average_3x3"


_DEFAULT: Mapping[tuple[int, int], Operation] = {
    (0, 1): Operation.CONVOLUTION_3,
    (0, 2): Operation.SKIP,
    (0, 3): Operation.SKIP,
    (1, 2): Operation.CONVOLUTION_3,
    (1, 3): Operation.SKIP,
    (2, 3): Operation.CONVOLUTION_3,
}
"""A residual cell of three convolutions."""


@final
class CellSpace(ImageSpace):
    """Stem, three stages of equal cells with reductions between them, pooling."""

    def declare(self, hp: HyperParameters) -> None:
        """Declares the operations of the cell, how often it is repeated, its width and dropout."""
        declare_resolution(hp, self.context)
        for source, target in EDGES:
            default = _DEFAULT[source, target].value
            hp.Choice(edge_name((source, target)), [operation.value for operation in Operation], default=default)
        hp.Int("cells_per_stage", 1, 5, default=1)
        hp.Choice("width", [8, 16, 24, 32], default=16, ordered=True)
        hp.Float("dropout", 0.0, 0.5, default=0.1)

    def features(self, pixels: Any, hp: HyperParameters) -> Any:
        """Returns the pooled map of the last cell.

        Raises:
            SpaceError: No path of the cell leads from its first node to its last.
        """
        operations = operations_of(hp.values)
        if not reaches_the_end(operations):
            raise SpaceError(
                "no path leads from the first node of the cell to its last: expected at least one way along edges "
                "whose operation is not 'none'; the network would answer the same for every image"
            )
        return stacked(pixels, hp, self.context, cell=lambda x, shape: _cell(x, operations, shape))


def stacked(pixels: Any, hp: HyperParameters, context: ImageContext, *, cell: Callable[[Any, BlockShape], Any]) -> Any:
    """Returns the pooled map of the last of many cells, (batch, num_features).

    Args:
        pixels: (batch, height, width, channels).
        hp: Has what `CellSpace.declare` declared, the edges aside.
        context: The images.
        cell: Puts a cell on top of a map.
    """
    shape = BlockShape(width=hp.get("width"), kernel=3, activation="relu", normalisation="batch")
    x = normalised(convolution(resized(pixels, hp, context), shape.width, kernel=3), shape)
    for stage in range(NUM_STAGES):
        if stage:
            stride = 2 if min(x.shape[1:3]) >= MIN_MAP else 1
            x = residual_block(x, shape.at(width=shape.width * 2**stage, stride=stride, drop_rate=0.0))
        for _ in range(hp.get("cells_per_stage")):
            x = cell(x, shape)
    x = layers.GlobalAveragePooling2D()(activated(normalised(x, shape), shape))
    return layers.Dropout(hp.get("dropout"))(x) if hp.get("dropout") > 0 else x


def edge_name(edge: tuple[int, int]) -> str:
    """Returns the name of the parameter with the operation of an edge."""
    return f"edge_{edge[0]}_{edge[1]}"


def operations_of(values: Mapping[str, Any]) -> dict[tuple[int, int], Operation]:
    """Returns the operation of every edge of a configuration."""
    return {edge: Operation(values[edge_name(edge)]) for edge in EDGES}


def reaches_the_end(operations: Mapping[tuple[int, int], Operation]) -> bool:
    """Returns whether a path of edges with an operation leads from the first node to the last.

    Args:
        operations: Operation of every edge.
    """
    reached = {0}
    for source, target in sorted(operations, key=lambda edge: edge[1]):
        if source in reached and operations[source, target] is not Operation.NONE:
            reached.add(target)
    return NUM_NODES - 1 in reached


def _cell(x: Any, operations: Mapping[tuple[int, int], Operation], shape: BlockShape) -> Any:
    """Returns the last node; nodes that nothing reaches are left out, and so is what leads nowhere."""
    nodes: dict[int, Any] = {0: x}
    for target in range(1, NUM_NODES):
        parts = [
            _operated(nodes[source], operations[source, target], shape)
            for source in range(target)
            if source in nodes
            and operations[source, target] is not Operation.NONE
            and (target == NUM_NODES - 1 or _leads_on(target, operations))
        ]
        if parts:
            nodes[target] = parts[0] if len(parts) == 1 else layers.Add()(parts)
    return nodes[NUM_NODES - 1]


def _leads_on(node: int, operations: Mapping[tuple[int, int], Operation]) -> bool:
    """Returns whether a path leads from a node to the last one."""
    further = [target for target in range(node + 1, NUM_NODES) if operations[node, target] is not Operation.NONE]
    return any(target == NUM_NODES - 1 or _leads_on(target, operations) for target in further)


def _operated(x: Any, operation: Operation, shape: BlockShape) -> Any:
    """Returns what an edge brings; convolutions are activated before and normalised after."""
    if operation is Operation.SKIP:
        return x
    if operation is Operation.AVERAGE:
        return layers.AveragePooling2D(3, strides=1, padding="same")(x)
    kernel = 1 if operation is Operation.CONVOLUTION_1 else 3
    return normalised(convolution(activated(x, shape), x.shape[-1], kernel=kernel), shape)
