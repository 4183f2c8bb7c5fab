from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.raw_columns import encode_target
from pipelines.schema import TargetSpec, Task
from pipelines.target_inference import drop_rows_without_target, infer_target


def _infer(values: object, task: Task | None = None) -> TargetSpec:
    return infer_target(pa.table({"y": values}), "y", task=task)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["no", "yes"] * 20, Task.BINARY, ("no", "yes")),
        ([True, False] * 20, Task.BINARY, ("false", "true")),
        ([3, 1] * 20, Task.BINARY, ("1", "3")),
        ([0.5, 1.0] * 20, Task.BINARY, ("0.5", "1")),
        (["b", "a", "c"] * 20, Task.MULTICLASS, ("a", "b", "c")),
        ([9, 10, 100] * 20, Task.MULTICLASS, ("9", "10", "100")),
        ([1.0, 2.0, 3.0, None] * 20, Task.MULTICLASS, ("1", "2", "3")),
        (["9", "10", "11"] * 20, Task.MULTICLASS, ("9", "10", "11")),
        (["01", "02", "03"] * 20, Task.MULTICLASS, ("01", "02", "03")),
        ([0.5, 1.0, 1.5] * 20, Task.REGRESSION, ()),
        (list(range(60)), Task.REGRESSION, ()),
        (list(range(15)) * 4, Task.REGRESSION, ()),
        (list(range(21)) * 10, Task.REGRESSION, ()),
        (["1.5", "2.5", "3.5"] * 20, Task.REGRESSION, ()),
    ],
)
def test_task_and_classes_are_guessed(values: list[object], task: Task, classes: tuple[str, ...]) -> None:
    target = _infer(values)
    assert (target.task, target.classes) == (task, classes)
    assert target.reason


def test_class_ids_follow_the_order_of_the_classes() -> None:
    table = pa.table({"y": [10, 9, 100] * 20})
    np.testing.assert_array_equal(encode_target(table, infer_target(table, "y"))[:3], [1, 0, 2])


def test_task_can_be_stated() -> None:
    stated = _infer([1, 2, 3] * 20, Task.REGRESSION)
    assert (stated.task, stated.classes) == (Task.REGRESSION, ())
    assert "the user chose regression (the values alone suggest multiclass: whole numbers, 3 distinct" in stated.reason
    assert _infer(list(range(10)) * 4, Task.MULTICLASS).classes == tuple(map(str, range(10)))
    assert _infer(["a", "b"] * 20, Task.MULTICLASS).task is Task.MULTICLASS
    assert _infer(["01", "02"] * 20, Task.REGRESSION).task is Task.REGRESSION


def test_rows_without_target_are_dropped_with_a_note() -> None:
    table = pa.table({"x": [1, 2, 3], "y": ["a", None, "b"]})
    kept, note = drop_rows_without_target(table, "y")
    assert kept.column("x").to_pylist() == [1, 3]
    assert note == "1 of 3 rows have no 'y' and were left out."
    assert drop_rows_without_target(kept, "y") == (kept, None)


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([1, 2] * 9 + [None] * 9, None, "Expected at least 20 rows with a value of 'y', received 18; give more data"),
        ([None] * 40, None, "The target 'y' is missing in all 40 rows; give another target"),
        (["a"] * 40, None, "Expected at least two different values of the target 'y', received 'a' in all 40 rows"),
        ([7.0] * 40 + [None], None, "received '7' in all 40 rows"),
        (["a"] * 40 + ["b"], None, "but class 'b' of 'y' has a single row; add rows of it"),
        (["a"] * 40 + ["b"] * 2, None, "Expected at least 3 rows of every class, .* but class 'b' of 'y' has 2 rows"),
        ([1, 2] * 40 + [3], None, "class '3' of 'y' has a single row; .*, or use --task regression"),
        (
            [f"t{i % 1001}" for i in range(5000)],
            None,
            "at most 1,000 classes .*, received 1,001 distinct text",
        ),
        (
            list(range(2000)),
            Task.MULTICLASS,
            "received 2,000 distinct number values.* --task regression",
        ),
        (
            ["1"] * 50 + ["2"] * 49 + ["x"],
            None,
            "but 1 of 100 .* none, the first 'x' in row 100; .*--task multic",
        ),
        (["a", "b"] * 20, Task.REGRESSION, "Expected numbers in the target 'y', but 40 of 40 values are none"),
        ([1, 2, 3] * 20, Task.BINARY, "Expected 2 classes in the target 'y' for a binary task, received 3"),
        (
            [1, 2, 3] * 20,
            Task.FORECAST,
            "one of binary, multiclass, regression as the task of a table",
        ),
        (
            [1.5, float("inf")] * 20,
            None,
            "finite numbers in the target 'y', but 20 are infinite, the first in row 2",
        ),
        (
            [datetime.date(2020, 1, 1)] * 40,
            None,
            "numbers, text or booleans in the target 'y', received dates",
        ),
        ([[1]] * 40, None, "Expected numbers, text or booleans in the target 'y', received list"),
    ],
)
def test_unfit_targets_are_refused(values: list[object], task: Task | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _infer(values, task)


def test_unknown_target_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"The data has no target column 'Y'\. Did you mean 'y'\?"):
        infer_target(pa.table({"y": [1, 2]}), "Y")


def test_row_numbers_count_rows_without_target() -> None:
    with pytest.raises(DataError, match="the first 'x' in row 101"):
        _infer([*[None, *(["1", "2"] * 49), "1", "2", "x"][:100], "x"], Task.REGRESSION)
