"""What a member of a pack is: its hyperparameters resolved, its variables by name, and their start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras_tuner
import numpy as np
from numpy.typing import NDArray

from search_spaces.context import TableContext
from search_spaces.embedding_rule import embedding_lengths, start_scale
from search_spaces.recipe import learning_rate_factor

Array = NDArray[Any]
Named = dict[str, Array]
"""Arrays of one member by the name of their variable, in no particular order."""

EMBEDDING, HEAD, HEAD_BIAS = "embedding", "head_kernel", "head_bias"
KERNEL, BIAS, GAMMA, BETA, MEAN, VARIANCE = "kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"

_TRUNCATED_STDDEV = 0.87962566103423978
"""Standard deviation of a standard normal cut at two (`keras.initializers.VarianceScaling` divides by it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPlan:
    """A network of `search_spaces.tabular.MLPSpace` and its training, as numbers.

    Attributes:
        embedding_size: Length of the longest vector of a category; 0 for a table without categories.
        depth: Hidden layers.
        width: Units of a hidden layer.
        activation: ``relu``, ``leaky_relu`` or ``gelu``.
        normalisation: ``none``, ``batch`` or ``layer``.
        dropout: Share of units dropped, in [0, 1).
        residual: Whether hidden layers after the first add their input.
        optimizer: ``adamw``, ``rmsprop`` or ``sgd``.
        peak: Largest learning rate.
        momentum: Of sgd.
        decay: Decoupled weight decay.
        smoothing: Label smoothing, in [0, 1).
        cosine: Whether the rate falls along half a cosine.
        warmup_steps: Steps of the warm-up.
        total_steps: Steps that the schedule is laid out for.
        batch_size: Rows of a step.
    """

    embedding_size: int
    depth: int
    width: int
    activation: str
    normalisation: str
    dropout: float
    residual: bool
    optimizer: str
    peak: float
    momentum: float
    decay: float
    smoothing: float
    cosine: bool
    warmup_steps: int
    total_steps: int
    batch_size: int

    @classmethod
    def of(cls, hp: keras_tuner.HyperParameters, context: TableContext) -> MemberPlan:
        """Reads declared hyperparameters as `search_spaces.tabular` and `search_spaces.recipe` do."""
        size, sgd, depth = int(hp.get("batch_size")), hp.get("optimizer") == "sgd", int(hp.get("depth"))
        total, cosine = context.total_steps(size), hp.get("schedule") == "cosine"
        peak = float(hp.get("sgd_learning_rate" if sgd else "learning_rate"))
        peak *= learning_rate_factor(hp, context, adaptive=not sgd)
        return cls(
            embedding_size=int(hp.get("embedding_size")) if context.cardinalities else 0,
            depth=depth,
            width=int(hp.get("width")),
            activation=hp.get("activation"),
            normalisation=hp.get("normalisation"),
            dropout=float(hp.get("dropout")),
            residual=depth > 1 and bool(hp.get("residual")),
            optimizer=hp.get("optimizer"),
            peak=peak,
            momentum=float(hp.get("momentum")) if sgd else 0.0,
            decay=float(hp.get("weight_decay")),
            smoothing=float(hp.get("label_smoothing")) if context.task.is_classification else 0.0,
            cosine=cosine,
            warmup_steps=min(round(hp.get("warmup_share") * total), total - 1) if cosine else 0,
            total_steps=total,
            batch_size=context.global_batch(size),
        )


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a member.

    Attributes:
        name: Its name in `Named`.
        shape: Its shape.
        trainable: Whether the optimizer updates it.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool = True


def variables_of(plan: MemberPlan, context: TableContext) -> list[Variable]:
    """Returns a member's variables in the order of ``model.variables``, seed generators (shape (2,)) included."""
    inputs = context.num_numeric + plan.embedding_size * len(context.cardinalities)
    found = [Variable(EMBEDDING, (sum(context.cardinalities), plan.embedding_size))] if plan.embedding_size else []
    vector = (plan.width,)
    for layer in range(plan.depth):
        found.append(Variable(f"{KERNEL}{layer}", (plan.width if layer else inputs, plan.width)))
        if plan.normalisation != "batch":
            found.append(Variable(f"{BIAS}{layer}", vector))
        if plan.normalisation != "none":
            found += [Variable(f"{GAMMA}{layer}", vector), Variable(f"{BETA}{layer}", vector)]
        if plan.normalisation == "batch":
            found.append(Variable(f"{MEAN}{layer}", vector, trainable=False))
            found.append(Variable(f"{VARIANCE}{layer}", vector, trainable=False))
        if plan.dropout > 0:
            found.append(Variable(f"seed{layer}", (2,), trainable=False))
    outputs = context.num_outputs
    return [*found, Variable(HEAD, (plan.width, outputs)), Variable(HEAD_BIAS, (outputs,))]


def num_parameters(plan: MemberPlan, context: TableContext) -> int:
    """Returns the weights of a member, trainable or not, as ``model.count_params()`` counts them."""
    counted = [v for v in variables_of(plan, context) if not v.name.startswith("seed")]
    return sum(int(np.prod(variable.shape)) for variable in counted)


def initial_weights(plan: MemberPlan, context: TableContext, *, seed: int) -> Named:
    """Returns a member's variables before training: the distributions of its Keras layers, drawn from `seed`."""
    rng = np.random.default_rng(seed)
    weights: Named = {}
    for variable in variables_of(plan, context):
        name, shape = variable.name, variable.shape
        if name == EMBEDDING:
            weights[name] = _embedding(shape, context, rng)
        elif name == HEAD:
            limit = np.sqrt(6.0 / sum(shape))
            weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
        elif name.startswith(KERNEL):
            # All three activations of the space are of the ReLU family, which wants He's variance.
            scale = np.sqrt(2.0 / shape[0]) / _TRUNCATED_STDDEV
            weights[name] = (scale * _truncated_normal(shape, rng)).astype(np.float32)
        elif name.startswith("seed"):
            weights[name] = np.array([rng.integers(2**31), 0], np.int64)
        else:
            ones = name.startswith((GAMMA, VARIANCE))
            weights[name] = np.full(shape, 1.0 if ones else 0.0, np.float32)
    return weights


def optimizer_arrays(
    plan: MemberPlan, context: TableContext, *, steps: int, slots: Mapping[str, Named]
) -> list[Array]:
    """Returns what ``model.optimizer.variables`` of the member would hold after `steps` steps.

    Args:
        plan: The member.
        context: The table.
        steps: Steps trained.
        slots: ``first`` and ``second`` moments (the momentum of sgd is a first one) of every trainable variable.
    """
    arrays: list[Array] = [np.asarray(steps, np.int64)]
    if not plan.cosine:
        arrays.append(np.asarray(plan.peak, np.float32))
    names = [variable.name for variable in variables_of(plan, context) if variable.trainable]
    first, second = ([slots[kind][name] for name in names] for kind in ("first", "second"))
    match plan.optimizer:
        case "adamw":
            return arrays + [array for pair in zip(first, second, strict=True) for array in pair]
        case "rmsprop":
            # The momentum slot exists for the kernel's sake; without momentum nobody reads it.
            return arrays + second + [np.zeros_like(array) for array in second]
        case _:
            return arrays + first


def optimizer_slots(plan: MemberPlan, context: TableContext, arrays: list[Array]) -> tuple[int, dict[str, Named]]:
    """Returns the steps trained and the moments that `optimizer_arrays` laid out, or Keras saved."""
    variables = [variable for variable in variables_of(plan, context) if variable.trainable]
    names = [variable.name for variable in variables]
    zeros = {variable.name: np.zeros(variable.shape, np.float32) for variable in variables}
    rest = arrays[1 if plan.cosine else 2 :]
    first, second = dict(zeros), dict(zeros)
    match plan.optimizer:
        case "adamw":
            first, second = dict(zip(names, rest[::2], strict=True)), dict(zip(names, rest[1::2], strict=True))
        case "rmsprop":
            second = dict(zip(names, rest[: len(names)], strict=True))
        case _:
            first = dict(zip(names, rest, strict=True))
    return int(arrays[0]), {"first": first, "second": second}


def _truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def _embedding(shape: tuple[int, ...], context: TableContext, rng: np.random.Generator) -> Array:
    lengths = embedding_lengths(context.cardinalities, size=shape[1])
    scale = start_scale(context.cardinalities, lengths, size=shape[1])
    started: Array = (scale * rng.standard_normal(shape)).astype(np.float32)
    return started
