from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.training.declaration import hyperparameters
from pipelines.schema import Task
from search_spaces.cell import EDGES, CellSpace, Operation, edge_name, reaches_the_end
from search_spaces.image_context import ImageContext
from search_spaces.supernet import (
    OPERATIONS,
    FairPaths,
    SharedCell,
    SupernetSpace,
    fair_paths,
    live,
    path_of,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

CONTEXT = ImageContext(Task.MULTICLASS, 3, 8, 8, 1, num_training_rows=64, max_epochs=3)
VALUES = {"width": 8, "cells_per_stage": 1, "dropout": 0.0, "batch_size": 16, "weight_decay": 1e-6}
RNG = np.random.default_rng(6)
IMAGES = tf.constant(RNG.integers(0, 256, (16, 8, 8, 1)).astype(np.uint8))
LABELS = tf.constant(RNG.integers(0, 3, (16, 1)).astype(np.int32))

NONE, SKIP, ONE, THREE, AVERAGE = (OPERATIONS.index(operation) for operation in Operation)
CELLS = {
    # In the order of EDGES: 0-1, 0-2, 0-3, 1-2, 1-3, 2-3.
    "all the same": (THREE,) * 6,
    "one of each kind": (AVERAGE, ONE, SKIP, THREE, NONE, ONE),
    "a node that nothing reaches": (NONE, ONE, AVERAGE, NONE, THREE, THREE),
    "a node that leads nowhere": (ONE, THREE, THREE, AVERAGE, SKIP, NONE),
}


def values_of(path: tuple[int, ...]) -> dict[str, str]:
    return {edge_name(edge): OPERATIONS[number].value for edge, number in zip(EDGES, path, strict=True)}


@pytest.fixture(name="supernet", scope="module")
def supernet_fixture() -> keras.Model:
    """A supernet in which every weight and every statistic is random."""
    model = SupernetSpace(CONTEXT, seed=3).build(hyperparameters(VALUES))
    model({"image": IMAGES}, training=False)
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(RNG.uniform(0.2, 1.0, variable.shape) * 0.4)
    return model


def created(layer: Any) -> int:
    """How many layers of its kind were created before."""
    last = layer.name.rpartition("_")[2]
    return int(last) if last.isdigit() else 0


def ordered(model: keras.Model, kind: type) -> list[Any]:
    """The layers of a kind in the order in which they were created."""
    return sorted((layer for layer in model.layers if isinstance(layer, kind)), key=created)


def norms(cell: SharedCell) -> list[Any]:
    """The weights of a cell's norms in the order in which batch normalisation has its own."""
    return [cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance]


def along(supernet: keras.Model, path: tuple[int, ...], kind: type) -> list[list[np.ndarray]]:
    """The supernet's weights that a path meets, in the order in which a network of that cell has its own."""
    outside = [layer.get_weights() for layer in ordered(supernet, kind)]
    if kind is keras.layers.Dense:
        return outside
    first, last = 1, len(outside) - (kind is keras.layers.BatchNormalization)
    middle = (first + last) // 2
    parts = [outside[:first], outside[first:middle], outside[middle:last], outside[last:]]
    chosen = live(path)
    found: list[list[np.ndarray]] = []
    for part, cell in itertools.zip_longest(parts, ordered(supernet, SharedCell)):
        found += part
        # A cell by itself is built node by node, each with the edges that lead to it.
        for number in sorted(range(len(EDGES)), key=lambda number: EDGES[number][::-1]) if cell else ():
            one = OPERATIONS[chosen[number]].value
            if one in cell.kernels:
                place = number, list(cell.kernels).index(one)
                norm = [np.asarray(cell.by_edge(variable))[place] for variable in norms(cell)]
                found.append([np.asarray(cell.kernels[one])[number]] if kind is keras.layers.Conv2D else norm)
    return found


def alone(supernet: keras.Model, path: tuple[int, ...]) -> keras.Model:
    """A network of one cell with the supernet's weights."""
    model = CellSpace(CONTEXT).build(hyperparameters({**VALUES, **values_of(path)}))
    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Dense):
        for layer, weights in zip(ordered(model, kind), along(supernet, path, kind), strict=True):
            layer.set_weights(weights)
    return model


@pytest.mark.parametrize("cell", CELLS)
def test_a_path_answers_as_its_cell_alone_with_the_same_weights(supernet: keras.Model, cell: str) -> None:
    path = CELLS[cell]
    expected = np.asarray(alone(supernet, path)({"image": IMAGES}, training=False))
    supernet.get_layer("paths").fix(path_of(values_of(path)))
    found = np.asarray(supernet({"image": IMAGES}, training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3


def test_a_step_trains_one_path_and_the_next_takes_another(supernet: keras.Model) -> None:
    paths: FairPaths = supernet.get_layer("paths")
    paths.step.assign(0)
    cell = next(layer for layer in supernet.layers if isinstance(layer, SharedCell))

    def statistics() -> Iterator[tuple[int, int, np.ndarray]]:
        means = np.asarray(cell.by_edge(cell.moving_mean))
        for number, name in itertools.product(range(len(EDGES)), cell.kernels):
            yield number, OPERATIONS.index(Operation(name)), means[number, list(cell.kernels).index(name)]

    for number in range(3):
        path = live(fair_paths(seed=3, num_rounds=1)[number])
        before = list(statistics())
        assert np.isfinite(float(supernet.train_step(({"image": IMAGES}, LABELS))["loss"]))
        for (edge, one, old), (_, _, new) in zip(before, statistics(), strict=True):
            assert (old != new).any() == (path[edge] == one), (number, edge, one)
        assert int(paths.step) == number + 1


def test_every_round_takes_every_operation_of_every_edge_once_and_reaches_the_end() -> None:
    paths = fair_paths(seed=11, num_rounds=40)
    for begin in range(0, len(paths), len(OPERATIONS)):
        taken = paths[begin : begin + len(OPERATIONS)]
        assert (np.sort(taken, axis=0) == np.arange(len(OPERATIONS))[:, None]).all()
    for path in paths:
        assert reaches_the_end({edge: OPERATIONS[one] for edge, one in zip(EDGES, path, strict=True)})
    assert (paths != fair_paths(seed=12, num_rounds=40)).any()


def test_cells_that_compute_the_same_have_one_path() -> None:
    nowhere = values_of((THREE, NONE, SKIP, NONE, NONE, ONE))
    assert path_of(nowhere) == path_of(values_of((NONE, NONE, SKIP, NONE, NONE, NONE))) == (0, 0, SKIP, 0, 0, 0)
    assert path_of(values_of((THREE, NONE, NONE, NONE, NONE, THREE))) == (0,) * 6
