"""A plain CSV or Parquet body as a batch of rows. No TensorFlow here.

curl --data-binary @rows.csv --header 'content-type: text/csv' localhost:8501/v1/models/adult:predict
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.column_values import is_dictionary_of_text, numbers_of, plain_array, require_column, truth_of
from pipelines.errors import DataError
from pipelines.raw_columns import text_bytes
from pipelines.sources.csv_format import CsvFormat
from pipelines.sources.file_format import Content, first_line
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import wanted_columns
from pipelines.sources.table_checks import plain_source
from tf_serving.server.extensions import Arrays, SignatureView
from tf_serving.server.status import ServingError, invalid

MAX_ROWS = 1_000_000
MAX_BYTES = 256 << 20
_BATCH_ROWS = 4_096
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
    return _inputs(_csv_table, body, signature)


def read_parquet_body(body: bytes, signature: SignatureView) -> Arrays:
    """Return the inputs of a signature from a Parquet file; further columns are left out.

    Args:
        body: The file, of at most ``MAX_ROWS`` rows and ``MAX_BYTES`` in memory.
        signature: What the model takes.

    Raises:
        ServingError: As for ``read_csv_body``.
    """
    return _inputs(_parquet_table, body, signature)


BODY_FORMATS = {
    "text/csv": read_csv_body,
    "application/vnd.apache.parquet": read_parquet_body,
    "application/x-parquet": read_parquet_body,
}


def _csv_table(body: bytes, signature: SignatureView) -> pa.Table:
    texts = tuple(name for name, (dtype, _) in signature.inputs.items() if dtype == _TEXT)
    return CsvFormat().parse([Content(_NAME, body)], ReadOptions(text_columns=texts, name=_NAME)).table


def _parquet_table(body: bytes, signature: SignatureView) -> pa.Table:
    """Return the columns that the model takes, a part at a time: few bytes may stand for very many rows."""
    parts, num_bytes = [], 0
    try:
        with pq.ParquetFile(pa.BufferReader(body)) as parquet:
            schema, num_rows = parquet.schema_arrow, parquet.metadata.num_rows
        if num_rows > MAX_ROWS:
            raise DataError(f"Expected at most {MAX_ROWS:,} rows, but {_NAME} has {num_rows:,}.")
        names = wanted_columns(schema.names, signature.inputs)
        # Text that is stored once for all rows is read so, and measured before it takes the room of all rows.
        texts = [name for name in names if schema.field(name).type == pa.string()]
        with pq.ParquetFile(pa.BufferReader(body), read_dictionary=texts) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=names):
                num_bytes += sum(map(_num_bytes, batch.columns))
                if num_bytes > MAX_BYTES:
                    raise DataError(f"Expected at most {MAX_BYTES:,} bytes of rows, but {_NAME} unpacks to more.")
                parts.append(batch)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"Expected a Parquet file, but {_NAME!r} cannot be read as one ({first_line(error)})."
        ) from error
    return pa.Table.from_batches(parts) if parts else schema.empty_table().select(names)


def _num_bytes(column: pa.Array) -> int:
    """Return what a column takes once every row has its own value."""
    if not is_dictionary_of_text(column.type):
        return int(column.nbytes)
    return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)


def _inputs(read: Callable[[bytes, SignatureView], pa.Table], body: bytes, signature: SignatureView) -> Arrays:
    for name, (_, shape) in signature.inputs.items():
        if shape is not None and len(shape) != 1:
            raise invalid(f"A table holds one value a row, but the input {name!r} has the shape {list(shape)}")
    try:
        if not body.strip():
            raise DataError(f"Expected a table, but {_NAME} is empty; give a header and rows.")
        table = plain_source(read(body, signature), _NAME)
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
