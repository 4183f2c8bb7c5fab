from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import pytest

from app.search.cell_graph import CellGraph
from app.training.declaration import declare, hyperparameters
from pipelines.schema import Task
from search_spaces.catalogue import SpaceError
from search_spaces.cell import EDGES, CellSpace, Operation, reaches_the_end
from search_spaces.image_context import ImageContext

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

SPACE = CellSpace(ImageContext(Task.BINARY, 2, 8, 8, 1, num_training_rows=64, max_epochs=3))
NOTHING = dict.fromkeys(EDGES, Operation.NONE)


def built(operations: dict[tuple[int, int], Operation]) -> keras.Model:
    values = {f"edge_{source}_{target}": operation.value for (source, target), operation in operations.items()}
    return SPACE.build(hyperparameters({**values, "width": 8}))


def test_the_search_knows_the_declared_space_as_a_graph() -> None:
    graph = CellGraph.of(declare(SPACE))
    assert graph is not None
    assert graph.operations == (-1, 0, 1, 2, 3)


def test_a_cell_without_a_way_through_is_refused_before_it_is_built() -> None:
    dead = NOTHING | {(0, 1): Operation.SKIP, (2, 3): Operation.CONVOLUTION_3}
    assert not reaches_the_end(dead)
    with pytest.raises(SpaceError, match=r"no path leads from the first node of the cell to its last: expected at"):
        built(dead)


def test_what_leads_nowhere_has_no_weights() -> None:
    through = NOTHING | {(0, 3): Operation.CONVOLUTION_3}
    ends = through | {(0, 1): Operation.CONVOLUTION_3, (0, 2): Operation.CONVOLUTION_1}
    assert built(ends).count_params() == built(through).count_params()


def test_an_edge_brings_what_its_operation_makes() -> None:
    skip, one, three = (
        built(NOTHING | {(0, 3): operation}).count_params()
        for operation in (Operation.SKIP, Operation.CONVOLUTION_1, Operation.CONVOLUTION_3)
    )
    # Three stages of widths 8, 16 and 32, each with one cell; a norm has four numbers a channel.
    channels = (8, 16, 32)
    assert one - skip == sum(width * width + 4 * width for width in channels)
    assert three - skip == sum(9 * width * width + 4 * width for width in channels)
