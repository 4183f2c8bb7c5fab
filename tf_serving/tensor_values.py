"""What users hold (rows, columns, DataFrames) as the arrays that a signature takes, and back (no TensorFlow here)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tf_serving.client_errors import InvalidRequestError

if TYPE_CHECKING:
    import pandas as pd

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = "pd.DataFrame | Mapping[str, Any] | Sequence[Any] | Array"

STRING = "DT_STRING"
DTYPES = {
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
    "DT_HALF": "float16",
    "DT_BFLOAT16": "bfloat16",
    "DT_INT8": "int8",
    "DT_INT16": "int16",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_UINT8": "uint8",
    "DT_UINT16": "uint16",
    "DT_UINT32": "uint32",
    "DT_UINT64": "uint64",
    "DT_BOOL": "bool",
}
"""Name of a numpy type by TensorFlow's name of it; strings are object arrays of bytes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a signature.

    Attributes:
        dtype: TensorFlow's name of the type, such as ``DT_FLOAT``.
        shape: Sizes, -1 where any; None for any rank.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and answers.

    Attributes:
        inputs: By name.
        outputs: By name.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy type of a TensorFlow type; object for strings.

    Args:
        name: Such as ``DT_FLOAT``.

    Raises:
        InvalidRequestError: The client does not know the type.
    """
    if name == STRING:
        return np.dtype(object)
    if name not in DTYPES:
        raise InvalidRequestError(f"Expected a tensor of numbers, truths or text, the model has one of type {name}.")
    if DTYPES[name] == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(DTYPES[name])


def input_arrays(data: Rows, inputs: Mapping[str, Tensor]) -> dict[str, Array]:
    """Return the arrays that a signature takes.

    Missing values (None, NaN, pandas' NA and NaT) become NaN, or b"" in text; further columns are left out.

    Args:
        data: A DataFrame, columns by name, a sequence of rows by name, or one array for a signature of one input.
        inputs: The signature's inputs.

    Raises:
        InvalidRequestError: An input is absent or a value does not fit its type.
    """
    columns = _columns(data, inputs)
    absent = [name for name in inputs if name not in columns]
    if absent:
        near = difflib.get_close_matches(absent[0], [str(name) for name in columns], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidRequestError(
            f"Expected the inputs {', '.join(map(repr, inputs))}, but {absent[0]!r} is absent.{hint}"
        )
    arrays = {name: _array(columns[name], name, tensor) for name, tensor in inputs.items()}
    lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) > 1:
        raise InvalidRequestError(f"Expected as many values in every column, received {lengths}.")
    return arrays


def text_array(values: Array) -> Array:
    """Return an object array of bytes as one of str, as it is where some value is no UTF-8.

    Args:
        values: Of any shape.
    """
    try:
        flat = [value.decode() if isinstance(value, bytes) else value for value in values.reshape(-1)]
    except UnicodeDecodeError:
        return values
    answer = np.empty(len(flat), dtype=object)
    answer[:] = flat
    return answer.reshape(values.shape)


def answers_frame(outputs: Mapping[str, Array], index: Any) -> pd.DataFrame:
    """Return the answers as a DataFrame: one column an output, several for one of rank 2, ``name[0]``, ``name[1]`` ...

    Args:
        outputs: By name, each with the rows first.
        index: The index of the frame.
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, values in outputs.items():
        if values.ndim == 1:
            columns[name] = values
        elif values.ndim == 2:
            columns |= {f"{name}[{number}]": values[:, number] for number in range(values.shape[1])}
        else:
            columns[name] = list(values)
    return pd.DataFrame(columns, index=index)


def _columns(data: Rows, inputs: Mapping[str, Tensor]) -> Mapping[Any, Any]:
    if isinstance(data, Mapping):
        return data
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        frame: Any = data
        return {name: frame[name] for name in frame.columns}
    if isinstance(data, (str, bytes)) or not hasattr(data, "__len__"):
        raise InvalidRequestError(
            f"Expected a DataFrame, columns by name, a list of rows or an array, received {type(data).__name__}."
        )
    if len(data) and isinstance(data[0], Mapping):
        return _columns_of_rows(list(data), inputs)
    if len(inputs) != 1:
        raise InvalidRequestError(
            f"Expected rows with the names {', '.join(map(repr, inputs))}, received rows without names."
        )
    return dict.fromkeys(inputs, data)


def _columns_of_rows(rows: Sequence[Any], inputs: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in rows[0]}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidRequestError(
                f"Expected every row to have names, received {type(row).__name__} as row {number}."
            )
        for name in inputs.keys() & columns.keys():
            if name not in row:
                raise InvalidRequestError(f"Expected a value of {name!r} in every row, but row {number} has none.")
            columns[name].append(row[name])
    return columns


def _array(values: Any, name: str, tensor: Tensor) -> Array:
    if tensor.dtype == STRING:
        return _text(_plain(values, name, is_text=True), name)
    array = _plain(values, name)
    dtype = numpy_dtype(tensor.dtype)
    if array.dtype == object:
        array = _numbers(array, name, dtype)
    if array.dtype.kind not in ("b" if dtype.kind == "b" else "biufV"):
        first = array.reshape(-1)[0] if array.size else ""
        raise InvalidRequestError(f"Expected {dtype} in {name!r}, received {array.dtype} such as {str(first)!r}.")
    if dtype.kind in "iu" and array.size:
        _check_integers(array, name, dtype)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array.astype(dtype)) if array.ndim else array.astype(dtype)


def _plain(values: Any, name: str, *, is_text: bool = False) -> Array:
    if hasattr(values, "to_numpy"):  # a Series: its extension types become objects, with NA inside
        values = values.to_numpy()
    try:
        if is_text and not isinstance(values, np.ndarray):
            # As objects: numpy would cut NULs off the end of bytes, and cannot hold bytes beside str.
            array = np.array(values, dtype=object)
            if any(isinstance(value, (str, bytes)) or value is None for value in array.reshape(-1)):
                return array
        return np.asarray(values)
    except ValueError as error:
        raise InvalidRequestError(f"Expected rows of one length in {name!r} ({error}).") from error


def _is_missing(value: Any) -> bool:
    # NaN, NaT and pandas.NA are the values that are not equal to themselves.
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return True


def _text(array: Array, name: str) -> Array:
    if array.dtype.kind not in "OUS":
        return _numbers_as_text(array, name)
    text = np.empty(array.size, dtype=object)
    for position, value in enumerate(array.reshape(-1)):
        if isinstance(value, str):
            text[position] = value.encode()
        elif isinstance(value, bytes):
            text[position] = value
        elif _is_missing(value):
            text[position] = b""
        else:
            raise InvalidRequestError(f"Expected text in {name!r}, received {value!r} in row {position}.")
    return text.reshape(array.shape)


def _numbers_as_text(array: Array, name: str) -> Array:
    # The same words that training made of a column of numbers or times.
    import pyarrow as pa

    from pipelines.column_values import plain_array
    from pipelines.raw_columns import text_bytes

    table = pa.table({name: pa.array(array.reshape(-1), from_pandas=True)})
    return text_bytes(plain_array(table, name)).reshape(array.shape)


def _numbers(array: Array, name: str, dtype: np.dtype[Any]) -> Array:
    accepted = (bool, np.bool_) if dtype.kind == "b" else (int, float, np.number, np.bool_)
    may_lack = dtype.kind not in "biu"
    found = array.copy()
    for position, value in enumerate(array.reshape(-1)):
        if isinstance(value, accepted):
            continue
        if not (may_lack and _is_missing(value)):
            raise InvalidRequestError(f"Expected {dtype} in {name!r}, received {value!r} in row {position}.")
        found.reshape(-1)[position] = np.nan
    if dtype.kind == "b":
        return found.astype(np.bool_)
    # Through float64 an integer beyond 2**53 would change; a fraction must stay for the check that refuses it.
    whole = not may_lack and all(isinstance(value, (int, np.integer)) for value in found.reshape(-1))
    try:
        return found.astype((np.uint64 if dtype.kind == "u" else np.int64) if whole else np.float64)
    except OverflowError as error:
        raise InvalidRequestError(f"Expected {dtype} in {name!r}, received a number out of its range.") from error


def _check_integers(array: Array, name: str, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    with np.errstate(invalid="ignore"):
        wrong = ~((array >= limits.min) & (array <= limits.max) & (array == np.floor(array)))
    if wrong.any():
        position = int(np.flatnonzero(wrong.reshape(-1))[0])
        value = array.reshape(-1)[position]
        raise InvalidRequestError(f"Expected {dtype} in {name!r}, received {value} in row {position}.")


def _wrong_type(array: Array, name: str, dtype: np.dtype[Any]) -> InvalidRequestError:
    first = array.reshape(-1)[0] if array.size else ""
    return InvalidRequestError(f"Expected {dtype} in {name!r}, received {array.dtype} such as {str(first)!r}.")
