from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tf_serving.client_errors import InvalidRequestError
from tf_serving.tensor_values import Tensor, answers_frame, input_arrays, numpy_dtype, text_array

INPUTS = {"age": Tensor("DT_FLOAT", (-1,)), "job": Tensor("DT_STRING", (-1,))}
ROWS = [{"age": 39, "job": "clerk"}, {"age": None, "job": None}]


def one(values: Any, dtype: str) -> np.ndarray[Any, Any]:
    return input_arrays({"x": values}, {"x": Tensor(dtype, (-1,))})["x"]


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        {"age": [39, None], "job": ["clerk", None]},
        {"age": np.array([39.0, np.nan]), "job": np.array(["clerk", ""])},
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS).assign(age=pd.array([39, pd.NA], dtype="Int64"), further=1),
        pd.DataFrame(ROWS).assign(job=pd.array(["clerk", pd.NA], dtype="string")),
    ],
)
def test_rows_columns_and_frames_become_the_same_arrays(data: Any) -> None:
    arrays = input_arrays(data, INPUTS)
    assert arrays["age"].dtype == np.float32
    np.testing.assert_array_equal(arrays["age"], np.array([39, np.nan], np.float32))
    assert arrays["job"].tolist() == [b"clerk", b""]


def test_text_of_times_and_numbers_is_that_of_training() -> None:
    times = pd.Series([datetime(2024, 1, 2, 3, 4, 5), pd.NaT])
    assert one(times, "DT_STRING").tolist() == [b"2024-01-02T03:04:05", b""]
    assert one(np.array([7, 8]), "DT_STRING").tolist() == [b"7", b"8"]
    assert one(np.array([7.0, np.nan]), "DT_STRING").tolist() == [b"7", b""]


def test_one_array_serves_a_signature_of_one_input() -> None:
    arrays = input_arrays(np.ones((2, 3)), {"x": Tensor("DT_FLOAT", (-1, 3))})
    assert arrays["x"].shape == (2, 3)
    assert input_arrays([[1, 2]], {"x": Tensor("DT_INT32", None)})["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "dtype", ["DT_INT8", "DT_UINT8", "DT_INT64", "DT_UINT64", "DT_HALF", "DT_BFLOAT16", "DT_DOUBLE"]
)
def test_whole_numbers_fit_every_numeric_type(dtype: str) -> None:
    for values in ([1, 2], [1.0, 2.0], np.array([1, 2], object)):
        array = one(values, dtype)
        assert array.dtype == numpy_dtype(dtype)
        assert array.astype(int).tolist() == [1, 2]


def test_large_integers_keep_every_digit() -> None:
    assert one([2**63 - 1, -(2**63)], "DT_INT64").tolist() == [2**63 - 1, -(2**63)]
    assert one(np.array([2**64 - 1, 0], object), "DT_UINT64").tolist() == [2**64 - 1, 0]


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (["abc"], "DT_FLOAT", "Expected float32 in 'x', received .* such as 'abc'"),
        ([1, "abc"], "DT_FLOAT", "Expected float32 in 'x', received"),
        ([None, 1], "DT_INT32", "Expected int32 in 'x', received None in row 0"),
        ([1.5], "DT_INT32", "Expected int32 in 'x', received 1.5 in row 0"),
        ([0, 300], "DT_UINT8", "Expected uint8 in 'x', received 300 in row 1"),
        ([2**70], "DT_INT64", "received a number out of its range"),
        ([1, 0], "DT_BOOL", "Expected bool in 'x', received int64 such as '1'"),
        ([1, None], "DT_BOOL", "Expected bool in 'x', received 1 in row 0"),
        ([b"a", 1], "DT_STRING", "Expected text in 'x', received"),
        ([[1], [1, 2]], "DT_FLOAT", "Expected rows of one length in 'x'"),
        ([1], "DT_COMPLEX64", "the model has one of type DT_COMPLEX64"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: Any, dtype: str, message: str) -> None:
    if values == [b"a", 1]:
        values = np.array(values, dtype=object)
    with pytest.raises(InvalidRequestError, match=message):
        one(values, dtype)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"aeg": 1, "job": "x"}], "'age' is absent. Did you mean 'aeg'"),
        (pd.DataFrame({"age": [1]}), "'job' is absent"),
        ([{"age": 1, "job": "x"}, {"age": 1}], "'job' in every row, but row 1 has none"),
        ([{"age": 1, "job": "x"}, [1]], "to have names, received list as row 1"),
        ([[1, "x"]], "rows with the names 'age', 'job', received rows without names"),
        ("age", "a list of rows or an array, received str"),
        (3, "a list of rows or an array, received int"),
        ({"age": [1, 2], "job": ["x"]}, "Expected as many values in every column"),
    ],
)
def test_data_of_another_form_is_refused(data: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        input_arrays(data, INPUTS)


def test_answers_become_a_frame() -> None:
    outputs = {"label": np.array(["a", "b"], object), "p": np.ones((2, 2)), "cube": np.ones((2, 1, 1))}
    frame = answers_frame(outputs, pd.Index([5, 7]))
    assert list(frame.columns) == ["label", "p[0]", "p[1]", "cube"]
    assert frame.index.tolist() == [5, 7]


def test_bytes_that_are_no_text_stay_bytes() -> None:
    assert text_array(np.array([[b"a"], [b"b"]], object)).tolist() == [["a"], ["b"]]
    assert text_array(np.array([b"a", b"\xff"], object)).tolist() == [b"a", b"\xff"]
