"""Parquet files; the columns keep their types."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.sources.file_format import Content, FileFormat, first_line, unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed, wanted_columns
from pipelines.sources.stored_file import StoredFile

# pandas stores its index as a column of this name; it numbers the rows and says nothing about them.
_INDEX = "__index_level_"
_FIRST_ROWS = 1 << 14
_CHUNK_BYTES = 1 << 25
_BUFFER_BYTES = 1 << 20
_LARGE_GROUP = 1 << 27


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
        """Yield the rows of one file in order; text of few different values comes in dictionaries."""
        del options
        with file.opened() as stored, _told(file.name, stored.seek(0, 2)):
            with pq.ParquetFile(stored) as parquet:
                names = [name for name in parquet.schema_arrow.names if not name.startswith(_INDEX)]
                wanted = wanted_columns(names, columns)
                words = _with_few_words(parquet, wanted)
                sizes = [parquet.metadata.row_group(group).total_byte_size for group in range(parquet.num_row_groups)]
                # Images are few that fit into memory together.
                at_once = max(1, _CHUNK_BYTES * parquet.metadata.num_rows // max(sum(sizes), 1))
            # A group may hold all rows of a file: the columns of a large one are read a buffer at a time, not whole.
            buffer = _BUFFER_BYTES if max(sizes, default=0) > _LARGE_GROUP else 0
            with pq.ParquetFile(stored, read_dictionary=words, buffer_size=buffer) as parquet:
                for batch in parquet.iter_batches(batch_size=min(chunk_rows, at_once), columns=wanted):
                    yield pa.Table.from_batches([batch])


def _with_few_words(parquet: pq.ParquetFile, names: list[str]) -> list[str]:
    """Return the columns of text whose first rows hold few different values: they are stored, and read, as such."""
    texts = [name for name in names if parquet.schema_arrow.field(name).type == pa.string()]
    first = next(parquet.iter_batches(batch_size=_FIRST_ROWS, columns=texts), None) if texts else None
    if first is None:
        return []
    return [name for name in texts if 2 * pc.count_distinct(first.column(name)).as_py() <= first.num_rows]


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
            f"{num_bytes:,} bytes and may be cut off: fetch it again."
        ) from error
