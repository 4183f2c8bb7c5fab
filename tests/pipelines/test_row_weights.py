from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.row_weights import check_fold_weights, check_split_weights, row_weights


def weights_of(values: list[object]) -> list[float]:
    found: list[float] = row_weights(pa.table({"w": values}), "w").tolist()
    return found


def test_weights_are_numbers_however_they_are_written() -> None:
    assert weights_of([1, 0, 3]) == [1.0, 0.0, 3.0]
    assert weights_of(["0.5", "2"]) == [0.5, 2.0]
    assert weights_of([True, False]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, -2.0, -3.0], r"weights of at least 0 of the column 'w', but there are 2 of 3 below 0, the first -2\.0"),
        ([0.0, 0.0], r"above 0 in the column 'w', but all 2 are 0, so that no row would count; give another column"),
        ([1.0, None], r"a weight in every row of the column 'w', but there are 1 of 2 that hold none, .* in row 2;"),
        ([1.0, float("nan")], r"1 of 2 that hold none, the first None in row 2; mend them or drop these rows"),
        ([1.0, float("inf")], r"finite weights of the column 'w', but there are 1 of 2 that are infinite"),
        (["1", "much"], r"but there are 1 of 2 that hold none, the first 'much' in row 2"),
        ([None, None], r"2 of 2 that hold none"),
    ],
)
def test_what_is_no_weight_is_refused(values: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        weights_of(values)


def test_dates_and_absent_columns_are_refused() -> None:
    with pytest.raises(DataError, match=r"Expected numbers in the weight column 'w', received timestamp"):
        row_weights(pa.table({"w": pa.array([0], pa.timestamp("us"))}), "w")
    with pytest.raises(DataError, match=r"no weight column 'weigth'.*did you mean 'weight'|no weight column 'weigth'"):
        row_weights(pa.table({"weight": [1.0]}), "weigth")


def test_a_split_in_which_no_row_counts_is_refused() -> None:
    splits = np.array([0, 0, 1, 2], np.int8)
    check_split_weights(np.array([0.0, 1.0, 1.0, 1.0]), splits, "w")
    with pytest.raises(DataError, match=r"all weights 'w' of the validation rows are 0; weigh more rows"):
        check_split_weights(np.array([1.0, 1.0, 0.0, 1.0]), splits, "w")


def test_a_fold_that_holds_out_no_row_that_counts_is_refused() -> None:
    folds = np.array([0, 0, 1, 1, -1], np.int8)
    check_fold_weights(np.array([0.0, 1.0, 1.0, 0.0, 0.0]), folds, "w")
    with pytest.raises(DataError, match=r"in each of 2 folds, but all weights 'w' of fold 2 are 0; ask"):
        check_fold_weights(np.array([0.0, 1.0, 0.0, 0.0, 9.0]), folds, "w")
