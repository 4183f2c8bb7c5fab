from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.cell_graph import CellGraph, columns
from app.search.space import Categorical, Condition, Configuration, Float, Space

OPERATIONS = ("none", "skip", "convolution_1", "convolution_3", "average")
EDGES = tuple(itertools.combinations(range(4), 2))
EDGE_PARAMETERS = tuple(Categorical(f"edge_{source}_{target}", OPERATIONS) for source, target in EDGES)
SPACE = Space([*EDGE_PARAMETERS, Float("learning_rate", 0.0, 1.0)])


def configuration(edges: dict[tuple[int, int], str], rate: float = 0.5) -> Configuration:
    operations = {f"edge_{a}_{b}": edges.get((a, b), "none") for a, b in EDGES}
    return {**operations, "learning_rate": rate}


def features(edges: dict[tuple[int, int], str]) -> np.ndarray:
    graph = CellGraph.of(SPACE)
    assert graph is not None
    return graph.features(SPACE.units(configuration(edges))[None, :])[0]


cells = st.fixed_dictionaries({edge: st.sampled_from(OPERATIONS) for edge in EDGES})


@given(cells)
def test_two_nodes_that_change_places_are_the_same_graph(edges: dict[tuple[int, int], str]) -> None:
    edges[1, 2] = "none"
    turned = {(0, 1): (0, 2), (0, 2): (0, 1), (1, 3): (2, 3), (2, 3): (1, 3)}
    np.testing.assert_array_equal(features({turned.get(e, e): name for e, name in edges.items()}), features(edges))


@given(cells, st.sampled_from(OPERATIONS))
def test_what_leads_nowhere_does_not_count(edges: dict[tuple[int, int], str], operation: str) -> None:
    # Nothing reaches node 1, so whatever leaves it is dead.
    edges[0, 1] = "none"
    changed = {**edges, (1, 2): operation, (1, 3): operation}
    np.testing.assert_array_equal(features(changed), features(edges))


@given(cells)
def test_features_are_finite_and_in_the_range_of_columns(edges: dict[tuple[int, int], str]) -> None:
    graph = CellGraph.of(SPACE)
    assert graph is not None
    found = features(edges)
    assert found.shape == (graph.num_features,) == (1 + 3 + 9 + 27 + 4,)
    assert np.all((found >= 0.0) & (found <= 1.0))


def test_a_skip_is_no_operation_and_another_order_is_another_kind_of_path() -> None:
    one, other = {(0, 1): "convolution_3", (1, 3): "skip"}, {(0, 2): "skip", (2, 3): "convolution_3"}
    np.testing.assert_array_equal(features(one), features(other))
    first = {(0, 1): "convolution_1", (1, 3): "convolution_3"}
    second = {(0, 1): "convolution_3", (1, 3): "convolution_1"}
    assert (features(first) != features(second)).any()


def test_a_model_sees_the_cell_and_the_other_parameters() -> None:
    graph = CellGraph.of(SPACE)
    assert graph is not None
    rows = np.array([SPACE.units(configuration({(0, 3): "skip"}, rate)) for rate in (0.0, 1.0)])
    seen = columns(SPACE, rows, graph)
    assert seen.shape == (2, 1 + graph.num_features)
    np.testing.assert_array_equal(seen[0, 1:], seen[1, 1:])
    assert seen[0, 0] != seen[1, 0]
    np.testing.assert_array_equal(columns(SPACE, rows, None), SPACE.columns(rows))


def test_a_cell_that_does_not_exist_has_no_paths() -> None:
    under = tuple(
        Categorical(edge.name, OPERATIONS, conditions=(Condition("block", ("cell",)),)) for edge in EDGE_PARAMETERS
    )
    space = Space([Categorical("block", ("cell", "plain")), *under])
    graph = CellGraph.of(space)
    assert graph is not None
    assert not graph.features(space.units({"block": "plain"})[None, :]).any()


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param(EDGE_PARAMETERS[:-1], id="an edge is missing"),
        pytest.param([*EDGE_PARAMETERS[:-1], Categorical("edge_2_3", ("none", "skip", "other"))], id="operations"),
        pytest.param([*EDGE_PARAMETERS[:-1], Categorical("b/edge_2_3", OPERATIONS)], id="two cells"),
        pytest.param([Float("learning_rate", 0.0, 1.0)], id="no edges"),
    ],
)
def test_what_is_no_whole_cell_is_seen_as_it_is_written(parameters: list[Categorical]) -> None:
    assert CellGraph.of(Space(parameters)) is None
