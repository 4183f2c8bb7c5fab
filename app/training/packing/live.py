"""Members in training: their arrays as TensorFlow's, and back (TensorFlow)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf

from app.evaluation.predictions import Predictions
from app.search.space import Space
from app.search.space import Value as ParameterValue
from app.training.epochs import EpochResult
from app.training.packing.graph import PackGraph, TableTensors, Tensors
from app.training.packing.layers import ACTIVATIONS, NORMALISATIONS
from app.training.packing.plan import BIAS, Array, MemberPlan, Named, variables_of
from app.training.packing.stack import VECTORS, Stack, split_first_kernel
from app.training.trainer import End
from search_spaces.context import TableContext

EVALUATED_AT_ONCE = 1 << 20
"""Activations of a layer, over all members, that a validation batch may have; more than the cache holds is slower."""

@dataclass(frozen=True, slots=True, kw_only=True)
class PackMember:
    """A trial that joins a pack.

    Attributes:
        number: The trial.
        values: Active hyperparameters.
        known: The space as the coordinator knows it.
        budget: Epochs to reach.
        seed: Seed of its weights.
        state: Folder of its state.
    """

    number: int
    values: Mapping[str, ParameterValue]
    known: Space
    budget: int
    seed: int
    state: Path


@dataclass(slots=True, kw_only=True)
class Member:
    """A trial between two stacks, and what is known of its training.

    Attributes:
        trial: The trial.
        plan: Its hyperparameters resolved.
        hp: Its hyperparameters as a build is asked.
        weights: Its variables by name.
        slots: Its optimizer's ``first`` and ``second`` moments.
        steps: Steps trained.
        curve: Epochs trained.
        best: The best of them.
        best_weights: Fetches its variables at the best epoch if they are not saved yet.
        best_predictions: What it answered on the validation rows then.
        untold: Epochs that are neither saved nor reported yet.
        seconds: Its share of the time so far.
        end: Why it ended.
        error: Why it failed.
    """

    trial: PackMember
    plan: MemberPlan
    hp: Any
    weights: Named
    slots: dict[str, Named]
    steps: int = 0
    curve: list[EpochResult] = field(default_factory=list)
    best: EpochResult | None = None
    best_weights: Callable[[], Named] | None = None
    best_predictions: Predictions | None = None
    untold: list[EpochResult] = field(default_factory=list)
    seconds: float = 0.0
    end: End | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether it leaves the pack."""
        return self.end is not None or self.error is not None

    def variables(self, context: TableContext, weights: Named | None = None) -> list[Array]:
        """Returns its arrays, or `weights`, in the order of ``model.variables``."""
        # A seed generator has no array in a stack: its key is the member's, its counter the steps.
        seeds = {
            name: np.array([array[0], self.steps], np.int64)
            for name, array in self.weights.items()
            if name.startswith("seed")
        }
        found = (self.weights if weights is None else weights) | seeds
        return [found[variable.name] for variable in variables_of(self.plan, context)]


@final
class LivePack:
    """A stack of members whose arrays are TensorFlow's.

    Args:
        graph: Trains and evaluates.
        members: Who is in it.
        context: The table.
    """

    def __init__(self, graph: PackGraph, members: Sequence[Member], context: TableContext) -> None:
        self.members = members = sorted(members, key=lambda member: kind_order(member.plan))
        self._graph, self._context = graph, context
        self._stack = Stack(tuple(member.plan for member in members), context, graph.max_depth)
        split = [split_first_kernel(member.weights, context) for member in members]
        self._state: dict[str, Tensors] = {
            "weights": _constants(self._stack.stacked(split)),
            "statistics": _constants(self._stack.stacked_statistics(split)),
        }
        for kind in ("first", "second"):
            slots = [split_first_kernel(member.slots[kind], context) for member in members]
            self._state[kind] = _constants(self._stack.stacked(slots))
        self._steps = np.array([member.steps for member in members], np.float32)
        settings = _settings(members) | {"trained": _trained(self._stack.plans, graph.max_depth)}
        self._settings = {name: tf.constant(array) for name, array in settings.items()}
        self._positions = {name: tf.constant(array, tf.int32) for name, array in _positions(self._stack).items()}
        self._begun: tuple[dict[str, Tensors], Any] | None = None

    def train(self, order: Any, seed: list[int]) -> Any:
        """Trains a step for every row of `order`; returns the sums of the losses (num_members,)."""
        state, steps = self._begun or (self._state, self._steps)
        settings = self._settings | {"step": tf.constant(steps)}
        state, losses = self._graph.train(state, settings, self._positions, tf.constant(order), tf.constant(seed))
        self._begun = (state, steps + np.float32(len(order)))
        return losses.numpy()

    def commit(self) -> None:
        """Keeps the steps trained since the last call; without it they count for nothing."""
        if self._begun is not None:
            self._state, self._steps = self._begun
            self._begun = None

    def evaluate(self, rows: TableTensors) -> tuple[dict[str, Any], Any]:
        """Returns the predictions, each (num_members, num_rows, ...), and the mean losses (num_members,)."""
        num_rows, num_members = int(rows.target.shape[0]), len(self.members)
        row_weights = tf.ones((num_rows,)) if rows.weights is None else rows.weights
        size = max(64, EVALUATED_AT_ONCE // (num_members * self._stack.width))
        parts, total = [], 0.0
        settings = self._settings | {"step": tf.constant(self._steps)}
        for start in range(0, num_rows, size):
            features = {name: tensor[start : start + size] for name, tensor in rows.features.items()}
            target, weights = rows.target[start : start + size], row_weights[start : start + size]
            state = self._state["weights"], self._state["statistics"]
            predicted, losses = self._graph.evaluate(*state, settings, self._positions, features, target, weights)
            count = int(target.shape[0])
            arrays = {name: tensor.numpy() for name, tensor in predicted.items()}
            parts.append({name: a.reshape(num_members, count, *a.shape[1:]) for name, a in arrays.items()})
            total = total + losses.numpy() * count
        joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
        return joined, total / float(tf.reduce_sum(row_weights))

    def variables(self, index: int) -> list[Array]:
        """Returns a member's arrays in the order of ``model.variables``, as they were last fetched."""
        return self.members[index].variables(self._context)

    def learning_rates(self) -> Any:
        """Returns the rate of the next step of every member, (num_members,), as a solo training reports it."""
        plans = [member.plan for member in self.members]
        return np.array([_learning_rate(plan, step) for plan, step in zip(plans, self._steps, strict=True)])

    def snapshot(self, index: int) -> Callable[[], Named]:
        """Returns a function that fetches a member's arrays as they are now."""
        weights, statistics, stack = self._state["weights"], self._state["statistics"], self._stack
        return lambda: stack.member(_arrays(weights), index) | stack.member_statistics(_arrays(statistics), index)

    def fetch(self) -> None:
        """Copies everything into the members."""
        arrays = {kind: _arrays(tensors) for kind, tensors in self._state.items()}
        for index, member in enumerate(self.members):
            statistics = self._stack.member_statistics(arrays["statistics"], index)
            seeds = {name: array for name, array in member.weights.items() if name.startswith("seed")}
            member.weights = seeds | self._stack.member(arrays["weights"], index) | statistics
            member.slots = {kind: self._stack.member(arrays[kind], index) for kind in ("first", "second")}
            member.steps = int(self._steps[index])


def _constants(blocks: Mapping[str, Any]) -> Tensors:
    return {name: tf.constant(array) for name, array in blocks.items()}


def _arrays(blocks: Mapping[str, tf.Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in blocks.items()}


def _settings(members: Sequence[Member]) -> dict[str, Any]:
    """Returns what the graph has to know of every member, each (num_members,) float32."""
    plans = [member.plan for member in members]
    columns: dict[str, list[float]] = {
        "step": [member.steps for member in members],
        "peak": [plan.peak for plan in plans],
        "total_steps": [plan.total_steps for plan in plans],
        "warmup_steps": [plan.warmup_steps for plan in plans],
        "cosine": [plan.cosine for plan in plans],
        "decay": [plan.decay for plan in plans],
        "momentum": [plan.momentum for plan in plans],
        "dropout": [plan.dropout for plan in plans],
        "smoothing": [plan.smoothing for plan in plans],
        "residual": [plan.residual for plan in plans],
        "width": [plan.width for plan in plans],
    }
    for name in ("adamw", "rmsprop", "sgd"):
        columns[name] = [plan.optimizer == name for plan in plans]
    return {name: np.asarray(column, np.float32) for name, column in columns.items()}


def _trained(plans: Sequence[MemberPlan], max_depth: int) -> Array:
    """Returns 1 where a member has the bias, scale or shift that a row of its vectors stands for."""
    rows = [
        [plan.depth > layer and (plan.normalisation != "batch" if name == BIAS else plan.normalisation != "none")]
        for plan in plans
        for layer in range(max_depth)
        for name in VECTORS
    ]
    return np.asarray(rows, np.float32).reshape(len(plans), 3 * max_depth)


def _positions(stack: Stack) -> dict[str, Any]:
    """Returns who has which layer and of what kind, and the order in which members finish; see `PackGraph`."""
    positions: dict[str, Any] = {}
    finish: list[int] = []
    for layer in range(stack.max_depth):
        active, further = stack.active(layer), set(stack.active(layer + 1))
        plans = [stack.plans[index] for index in active]
        positions[f"active{layer}"] = active
        positions[f"counts{layer}"] = [
            sum((plan.normalisation, plan.activation) == (normalisation, activation) for plan in plans)
            for normalisation in NORMALISATIONS
            for activation in ACTIVATIONS
        ]
        order = [place for place, index in enumerate(active) if index in further]
        order += [place for place, index in enumerate(active) if index not in further]
        positions[f"order{layer}"], positions[f"inverse{layer}"] = order, np.argsort(order)
        finish += [index for index in active if index not in further]
    return positions | {"finish": finish, "start": np.argsort(finish)}


def kind_order(plan: MemberPlan) -> tuple[int, int]:
    """Returns where a member stands in a stack, which the layers of a pack rely on."""
    return NORMALISATIONS.index(plan.normalisation), ACTIVATIONS.index(plan.activation)


def _learning_rate(plan: MemberPlan, step: float) -> float:
    """`search_spaces.schedules.WarmupCosine`, or the constant peak."""
    if not plan.cosine:
        return plan.peak
    done = min(max((step - plan.warmup_steps) / (plan.total_steps - plan.warmup_steps), 0.0), 1.0)
    rate = 0.5 * plan.peak * (1.0 + math.cos(math.pi * done))
    if not plan.warmup_steps:
        return rate
    start = plan.peak / plan.warmup_steps
    return min(rate, start + (plan.peak - start) * step / plan.warmup_steps)


