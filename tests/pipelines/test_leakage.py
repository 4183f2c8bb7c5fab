from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from pipelines.inference import infer_features
from pipelines.leakage import find_leaks
from pipelines.splits import assign_splits
from pipelines.target_inference import infer_target

NUM_ROWS = 1_000
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=NUM_ROWS)
CLASS = RNG.integers(0, 3, NUM_ROWS)
VALUE = RNG.lognormal(0, 1, NUM_ROWS)


def _leaks(x: object, y: object, *, num_rows: int = NUM_ROWS) -> list[str]:
    table = pa.table({"x": x, "noise": NOISE, "y": y}).slice(0, num_rows)
    target = infer_target(table, "y")
    splits = assign_splits(table, target, seed=0)
    return [leak.column for leak in find_leaks(table, infer_features(table, target, rows=splits == 0), splits)]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.array(["p", "q", "r"])[CLASS], np.array(["a", "b", "c"])[CLASS]),
        (CLASS + NOISE * 0.01, np.array(["a", "b", "c"])[CLASS]),
        (NOISE, NOISE > 0.3),
        (np.where(NOISE > 0, "up", "down"), NOISE > 0),
        (pa.array(NOISE, mask=NOISE > 0.3), NOISE > 0.3),
        (VALUE * 3 + 2, VALUE),
        (np.log(VALUE), VALUE),
        (pa.array([datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=float(v)) for v in VALUE]), VALUE),
    ],
    ids=["category", "number", "threshold", "binary category", "missingness", "linear", "monotone", "date"],
)
def test_a_column_that_knows_the_target_is_found(x: object, y: object) -> None:
    assert "x" in _leaks(x, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (NOISE, np.array(["a", "b", "c"])[CLASS]),
        (NOISE + RNG.normal(size=NUM_ROWS), NOISE > 0),
        (VALUE + RNG.normal(size=NUM_ROWS), VALUE),
        ([f"k{i % 400}" for i in range(NUM_ROWS)], np.array(["a", "b"])[CLASS % 2]),
    ],
    ids=["noise", "informative", "informative number", "memorised category"],
)
def test_a_column_that_merely_informs_or_memorises_is_not_accused(x: object, y: object) -> None:
    assert "x" not in _leaks(x, y)


def test_nothing_is_told_from_few_rows_or_a_rare_class() -> None:
    assert _leaks(NOISE, NOISE > 0.3, num_rows=100) == []
    assert _leaks(NOISE, np.sort(NOISE)[-10] < NOISE) == []
