from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.association import association


def value_of(column: object, target: object, *, numbers: tuple[bool, bool]) -> float | None:
    found = association(
        pa.array(column), pa.array(target), column_is_number=numbers[0], target_is_number=numbers[1]
    )
    return None if found is None else found.value


RNG = np.random.default_rng(0)
X = RNG.normal(size=2_000)
GROUP = np.where(X > 0, "high", "low")
NOISE = RNG.normal(size=2_000)
NAMES = RNG.choice(["a", "b", "c"], 2_000)


@pytest.mark.parametrize(
    ("column", "target", "numbers"),
    [(X, X**3, (True, True)), (X, -X, (True, True)), (GROUP, GROUP, (False, False))],
)
def test_what_says_all_is_one(column: np.ndarray, target: np.ndarray, numbers: tuple[bool, bool]) -> None:
    assert value_of(column, target, numbers=numbers) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("column", "target", "numbers"),
    [
        (NOISE, X, (True, True)),
        (NOISE, GROUP, (True, False)),
        (NAMES, X, (False, True)),
        (NAMES, GROUP, (False, False)),
    ],
)
def test_noise_is_near_nothing(column: np.ndarray, target: np.ndarray, numbers: tuple[bool, bool]) -> None:
    found = value_of(column, target, numbers=numbers)
    assert found is not None
    assert found < 0.06


def test_numbers_and_categories_are_alike_from_both_sides() -> None:
    forth = value_of(X, GROUP, numbers=(True, False))
    assert forth == value_of(GROUP, X, numbers=(False, True))
    assert forth is not None
    assert 0.8 < forth < 0.95


def test_where_nothing_can_be_said() -> None:
    assert value_of([1.0] * 20, X[:20], numbers=(True, True)) is None
    assert value_of([f"{row}" for row in range(20)], X[:20], numbers=(False, True)) is None
    assert value_of([None] * 15 + [1.0] * 5, X[:20], numbers=(True, True)) is None
    assert value_of(["a"] * 20, GROUP[:20], numbers=(False, False)) is None
