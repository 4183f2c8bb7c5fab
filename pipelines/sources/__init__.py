"""Where data comes from: every source ends as one Arrow table of plain types.

A source of files is an entry of ``SOURCES``: a file ending and the function that reads it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from pipelines.errors import DataError, suggest_name
from pipelines.sources.csv_file import parse_csv
from pipelines.sources.memory import plain_source, table_from_frame
from pipelines.sources.options import DEFAULT_MISSING_VALUES, Parsed, ReadOptions
from pipelines.sources.parquet_file import parse_parquet
from pipelines.sources.stored_bytes import read_stored_bytes, require_file

__all__ = ["DEFAULT_MISSING_VALUES", "SOURCES", "ReadOptions", "SourceTable", "read_table"]

# File ending, without .gz, to the function that reads the bytes of such a file.
SOURCES: dict[str, Callable[[bytes, ReadOptions], Parsed]] = {
    ".csv": parse_csv,
    ".tsv": parse_csv,
    ".txt": parse_csv,
    ".parquet": parse_parquet,
    ".pq": parse_parquet,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """A table that was read.

    Attributes:
        table: The rows, every column of a plain type (see ``pipelines.column_values``) or of one that is not read.
        description: What was read, in words.
        fingerprint: SHA-256 of the content, in hexadecimal digits.
        notes: What was recognised that is not the plain default (encoding, delimiter, decimal comma ...).
    """

    table: pa.Table
    description: str
    fingerprint: str
    notes: tuple[str, ...] = ()


def read_table(
    source: str | os.PathLike[str] | pd.DataFrame | pa.Table, *, options: ReadOptions | None = None
) -> SourceTable:
    """Read a table into memory.

    Args:
        source: Path of a .csv, .tsv, .txt (each also .gz) or .parquet file, a DataFrame, or an Arrow table.
        options: How to read it; what is left open is recognised.

    Raises:
        DataError: The source is absent, empty, no table, or not what its name says.
    """
    options = options or ReadOptions()
    if isinstance(source, pd.DataFrame | pa.Table):
        table = table_from_frame(source, options) if isinstance(source, pd.DataFrame) else source
        name = "DataFrame" if isinstance(source, pd.DataFrame) else "Arrow table"
        table = plain_source(table, name)
        return SourceTable(table=table, description=_describe(name, table), fingerprint=_fingerprint(table))
    if not isinstance(source, str | os.PathLike):
        raise DataError(
            f"Expected the path of a file, a DataFrame or an Arrow table, received {type(source).__name__}."
        )
    path = Path(source)
    require_file(path)
    read = reader_of(path)
    content = read_stored_bytes(path)
    parsed = read(content, options.named(str(path)))
    table = plain_source(parsed.table, str(path))
    return SourceTable(
        table=table,
        description=_describe(path.name, table),
        fingerprint=hashlib.sha256(content).hexdigest(),
        notes=parsed.notes,
    )


def reader_of(path: Path) -> Callable[[bytes, ReadOptions], Parsed]:
    """Return the entry of ``SOURCES`` for a file.

    Args:
        path: The file; only its name is looked at.

    Raises:
        DataError: Its ending is not known.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".gz" and len(suffixes) > 1:
        suffix = suffixes[-2]
    if suffix in SOURCES:
        return SOURCES[suffix]
    known = ", ".join(SOURCES)
    raise DataError(
        f"Expected a file that ends in one of {known} (or with .gz added), received {str(path)!r}."
        f"{suggest_name(suffix, SOURCES) if suffix else ''} Rename or convert it."
    )


def _describe(name: str, table: pa.Table) -> str:
    return f"{name}: {table.num_rows:,} rows, {table.num_columns:,} columns"


def _fingerprint(table: pa.Table) -> str:
    digest = hashlib.sha256()
    # The Arrow stream holds names, types and values; slices and chunks of the table do not show in it.
    with pa.PythonFile(_HashSink(digest), mode="w") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return digest.hexdigest()


class _HashSink:
    """A file that is only hashed."""

    closed = False

    def __init__(self, digest: hashlib._Hash) -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        """Add bytes to the hash."""
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""
