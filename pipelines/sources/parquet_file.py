"""Parquet files; the columns keep their types."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.sources.options import Parsed, ReadOptions


def parse_parquet(content: bytes, options: ReadOptions) -> Parsed:
    """Read the bytes of a Parquet file.

    Args:
        content: The file.
        options: Only the name is read; Parquet states all the rest itself.

    Raises:
        DataError: The bytes are no Parquet file.
    """
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
        raise DataError(f"Expected a Parquet file, but {options.name!r} cannot be read as one ({reason}).") from error
    # pandas stores its index as a column of this name; it numbers the rows and says nothing about them.
    index = [name for name in table.column_names if name.startswith("__index_level_")]
    return Parsed(table.drop_columns(index) if index else table)
