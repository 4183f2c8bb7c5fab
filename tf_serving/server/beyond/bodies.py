"""A plain CSV or Parquet body as a batch of rows. No TensorFlow here.

curl --data-binary @rows.csv --header 'content-type: text/csv' localhost:8501/v1/models/adult:predict
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.column_values import numbers_of, plain_array, require_column, truth_of
from pipelines.errors import DataError
from pipelines.raw_columns import text_bytes
from pipelines.sources.csv_format import CsvFormat
from pipelines.sources.file_format import Content, FileFormat
from pipelines.sources.options import ReadOptions
from pipelines.sources.parquet_file import ParquetFormat
from pipelines.sources.table_checks import plain_source
from tf_serving.server.extensions import Arrays, SignatureView
from tf_serving.server.status import ServingError, invalid

_TEXT = "string"
_NAME = "the body"


def read_csv_body(body: bytes, signature: SignatureView) -> Arrays:
    """Return the inputs of a signature from CSV with a header; further columns are left out.

    Args:
        body: Text in any encoding that is recognised.
        signature: What the model takes.

    Raises:
        ServingError: The body is no table, or a column is absent or of another type.
    """
    return _inputs(CsvFormat(), body, signature)


def read_parquet_body(body: bytes, signature: SignatureView) -> Arrays:
    """Return the inputs of a signature from a Parquet file; further columns are left out.

    Args:
        body: The file.
        signature: What the model takes.

    Raises:
        ServingError: As for ``read_csv_body``.
    """
    return _inputs(ParquetFormat(), body, signature)


BODY_FORMATS = {
    "text/csv": read_csv_body,
    "application/vnd.apache.parquet": read_parquet_body,
    "application/x-parquet": read_parquet_body,
}


def _inputs(body_format: FileFormat, body: bytes, signature: SignatureView) -> Arrays:
    texts = tuple(name for name, (dtype, _) in signature.inputs.items() if dtype == _TEXT)
    for name, (_, shape) in signature.inputs.items():
        if shape is not None and len(shape) != 1:
            raise invalid(f"A table holds one value a row, but the input {name!r} has the shape {list(shape)}")
    try:
        if not body.strip():
            raise DataError(f"Expected a table, but {_NAME} is empty; give a header and rows.")
        parsed = body_format.parse([Content(_NAME, body)], ReadOptions(text_columns=texts, name=_NAME))
        table = plain_source(parsed.table, _NAME)
        return {name: _column(table, name, dtype) for name, (dtype, _) in signature.inputs.items()}
    except DataError as error:
        raise invalid(str(error)) from None


def _column(table: Any, name: str, dtype: str) -> Any:
    array = plain_array(table, require_column(table, name))
    if dtype == _TEXT:
        return text_bytes(array)
    if dtype == "bool":
        truths = truth_of(array)
        if truths.null_count:
            raise _wrong(name, dtype, array, np.asarray(truths.is_null()))
        return np.asarray(truths.to_numpy(zero_copy_only=False), dtype=np.bool_)
    if array.type not in (pa.int64(), pa.float64(), pa.bool_(), pa.null(), pa.string()):
        raise invalid(f"Expected numbers in the column {name!r}, received {array.type}")
    numbers = numbers_of(array)
    wrong = np.isnan(numbers) & ~np.asarray(array.is_null())
    target = np.dtype(dtype)
    if target.kind in "iu":
        limits = np.iinfo(target)
        with np.errstate(invalid="ignore"):
            wrong = ~((numbers >= limits.min) & (numbers <= limits.max) & (numbers == np.floor(numbers)))
    if wrong.any():
        raise _wrong(name, dtype, array, wrong)
    with np.errstate(over="ignore"):
        return numbers.astype(target)


def _wrong(name: str, dtype: str, array: Any, wrong: Any) -> ServingError:
    row = int(np.flatnonzero(wrong)[0])
    return invalid(f"Expected {dtype} in the column {name!r}, received {array[row].as_py()!r} in row {row + 1}")
