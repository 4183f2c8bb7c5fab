"""Parquet files; the columns keep their types."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.sources.file_format import Content, FileFormat, first_line, unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed, wanted_columns
from pipelines.sources.stored_file import StoredFile

# pandas stores its index as a column of this name; it numbers the rows and says nothing about them.
_INDEX = "__index_level_"


@final
class ParquetFormat(FileFormat):
    """Parquet, which states names and types itself."""

    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table."""
        del options
        parts = [(content.name, _read(content)) for content in contents]
        return Parsed(table=unite(parts), part_rows=tuple(table.num_rows for _, table in parts))

    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in order."""
        del options
        with file.opened() as stored, _told(file.name, stored.seek(0, 2)), pq.ParquetFile(stored) as parquet:
            names = [name for name in parquet.schema_arrow.names if not name.startswith(_INDEX)]
            for batch in parquet.iter_batches(batch_size=chunk_rows, columns=wanted_columns(names, columns)):
                yield pa.Table.from_batches([batch])


def _read(content: Content) -> pa.Table:
    with _told(content.name, len(content.data)):
        table = pq.read_table(pa.BufferReader(content.data))
    return table.drop_columns([name for name in table.column_names if name.startswith(_INDEX)])


@contextlib.contextmanager
def _told(name: str, num_bytes: int) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"Expected a Parquet file, but {name!r} cannot be read as one ({first_line(error)}); it has "
            f"{num_bytes:,} bytes and may be cut off."
        ) from error
