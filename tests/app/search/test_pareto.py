from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.search.pareto import distance_to_front, hypervolume, is_undominated

POINTS = st.integers(1, 3).flatmap(
    lambda m: st.integers(0, 7).flatmap(lambda n: arrays(np.float64, (n, m), elements=st.integers(0, 4).map(float)))
)


def test_undominated_points_keep_equal_ones() -> None:
    points = np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [1.0, 3.0], [3.0, 1.0]])
    assert is_undominated(points).tolist() == [True, True, False, True, True]


def test_hypervolume_of_known_fronts() -> None:
    staircase = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert hypervolume(staircase, np.array([4.0, 4.0])) == 6.0
    assert hypervolume(staircase[:1], np.array([1.0, 4.0])) == 0.0
    assert hypervolume(np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]]), np.array([3.0, 3.0, 3.0])) == 8.0 + 3.0 - 2.0
    assert hypervolume(np.array([[2.0]]), np.array([5.0])) == 3.0


@settings(deadline=None, max_examples=60)
@given(POINTS)
def test_hypervolume_is_the_number_of_dominated_unit_cells(points: np.ndarray) -> None:
    num_objectives = points.shape[1]
    cells = np.stack(np.meshgrid(*[np.arange(5)] * num_objectives, indexing="ij"), axis=-1).reshape(-1, num_objectives)
    dominated = np.zeros(len(cells), dtype=bool)
    for point in points:
        dominated |= np.all(point <= cells, axis=1)
    assert hypervolume(points, np.full(num_objectives, 5.0)) == pytest.approx(float(dominated.sum()))


@settings(deadline=None, max_examples=60)
@given(POINTS)
def test_dominated_points_add_no_volume(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], 6.0)
    assert hypervolume(points[is_undominated(points)], reference) == pytest.approx(hypervolume(points, reference))


def test_distance_says_by_how_much_a_point_is_behind_the_front() -> None:
    front = np.array([[0.0, 1.0], [1.0, 0.0]])
    points = np.array([[0.5, 1.5], [0.0, 1.0], [0.4, 0.4], [2.0, 2.0]])
    assert distance_to_front(points, front) == pytest.approx([0.5, 0.0, -0.6, 1.0])
