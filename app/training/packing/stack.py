"""Members side by side: the arrays of several networks as blocks with a leading member dimension, and back.

A narrower network is padded with zeros to the width of the widest. Zero weights beside zero activations have zero
gradients, so the padding stays zero by itself, whatever the optimizer; only layer normalisation has to know the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.training.packing.plan import (
    BETA,
    BIAS,
    EMBEDDING,
    GAMMA,
    HEAD,
    HEAD_BIAS,
    KERNEL,
    MEAN,
    VARIANCE,
    Array,
    MemberPlan,
    Named,
    variables_of,
)
from search_spaces.context import TableContext

VECTORS = (BIAS, GAMMA, BETA)

Blocks = dict[str, Array]
"""Block -> array with a leading dimension of members."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Who is in a pack, and where.

    Attributes:
        plans: The members.
        context: The table.
        max_depth: Hidden layers of the graph.
    """

    plans: tuple[MemberPlan, ...]
    context: TableContext
    max_depth: int

    @property
    def width(self) -> int:
        """Width that all members are padded to."""
        return max(plan.width for plan in self.plans)

    @property
    def embedding_size(self) -> int:
        """Length that the vectors of categories are padded to."""
        return max(plan.embedding_size for plan in self.plans)

    def active(self, layer: int) -> list[int]:
        """Members that have hidden layer `layer` (from 0)."""
        return [index for index, plan in enumerate(self.plans) if plan.depth > layer]

    def batch_normalised(self, layer: int) -> list[int]:
        """Members that have hidden layer `layer` with batch normalisation."""
        return [index for index in self.active(layer) if self.plans[index].normalisation == "batch"]

    def stacked(self, members: Sequence[Named]) -> Blocks:
        """Returns the trainable arrays of all members as blocks; what a member does not have is zero."""
        num, width, size = len(self.plans), self.width, self.embedding_size
        numeric, columns = self.context.num_numeric, len(self.context.cardinalities)
        outputs = self.context.num_outputs
        blocks: Blocks = {"head": _zeros(num, width, outputs), "head_bias": _zeros(num, outputs)}
        blocks["vectors"] = _zeros(num, 3 * self.max_depth, width)
        if numeric:
            blocks["numeric"] = _zeros(num, numeric, width)
        if columns:
            blocks["embedding"] = _zeros(num, sum(self.context.cardinalities), size)
            blocks["embedded"] = _zeros(num, columns * size, width)
        for layer in range(1, self.max_depth):
            blocks[f"hidden{layer}"] = _zeros(len(self.active(layer)), width, width)
        for index, (plan, named) in enumerate(zip(self.plans, members, strict=True)):
            for name, view in self._views(blocks, index, plan).items():
                view[...] = named[name].reshape(view.shape)
        return blocks

    def member(self, blocks: Blocks, index: int) -> Named:
        """Returns copies of one member's trainable arrays."""
        plan = self.plans[index]
        shapes = {variable.name: variable.shape for variable in variables_of(plan, self.context)}
        views = self._views(blocks, index, plan)
        named = {}
        for name, view in views.items():
            named[name] = np.array(view).reshape(shapes.get(name, view.shape))
        if plan.embedding_size or self.context.num_numeric:
            parts = [named.pop(part) for part in ("numeric", "embedded") if part in named]
            named[f"{KERNEL}0"] = np.concatenate([part.reshape(-1, plan.width) for part in parts])
        return named

    def stacked_statistics(self, members: Sequence[Named]) -> Blocks:
        """Returns the moving statistics of batch-normalised members, (num_members, 2, width) for every layer."""
        blocks = {}
        for layer in range(self.max_depth):
            found = self.batch_normalised(layer)
            blocks[f"statistics{layer}"] = block = _zeros(len(found), 2, self.width)
            for position, index in enumerate(found):
                width = self.plans[index].width
                for row, name in enumerate((MEAN, VARIANCE)):
                    block[position, row, :width] = members[index][f"{name}{layer}"]
        return blocks

    def member_statistics(self, blocks: Blocks, index: int) -> Named:
        """Returns copies of one member's moving statistics; nothing for one that has none."""
        plan = self.plans[index]
        named: Named = {}
        if plan.normalisation != "batch":
            return named
        for layer in range(plan.depth):
            block = blocks[f"statistics{layer}"][self.batch_normalised(layer).index(index)]
            for row, name in enumerate((MEAN, VARIANCE)):
                named[f"{name}{layer}"] = np.array(block[row, : plan.width])
        return named

    def _views(self, blocks: Blocks, index: int, plan: MemberPlan) -> Named:
        """Returns where in `blocks` the arrays of a member lie; its first kernel in two parts."""
        width, size = plan.width, plan.embedding_size
        views = {
            HEAD: blocks["head"][index, :width],
            HEAD_BIAS: blocks["head_bias"][index],
        }
        if "numeric" in blocks:
            views["numeric"] = blocks["numeric"][index, :, :width]
        if size:
            columns = len(self.context.cardinalities)
            views[EMBEDDING] = blocks["embedding"][index, :, :size]
            rows = blocks["embedded"][index].reshape(columns, -1, blocks["embedded"].shape[-1])
            views["embedded"] = rows[:, :size, :width]
        present = {variable.name for variable in variables_of(plan, self.context)}
        for layer in range(plan.depth):
            if layer:
                position = self.active(layer).index(index)
                views[f"{KERNEL}{layer}"] = blocks[f"hidden{layer}"][position, :width, :width]
            for row, name in enumerate(VECTORS):
                if f"{name}{layer}" in present:
                    views[f"{name}{layer}"] = blocks["vectors"][index, 3 * layer + row, :width]
        return views


def split_first_kernel(named: Named, context: TableContext) -> Named:
    """Returns a member's arrays with its first kernel in the two parts that a stack keeps."""
    parts = dict(named)
    kernel = parts.pop(f"{KERNEL}0")
    if context.num_numeric:
        parts["numeric"] = kernel[: context.num_numeric]
    if context.cardinalities:
        parts["embedded"] = kernel[context.num_numeric :]
    return parts


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)
