"""Arrow files: the file format, which is Feather as well, and the stream format; the columns keep their types."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, final

import pyarrow as pa
import pyarrow.feather

from pipelines.errors import DataError
from pipelines.sources.file_format import Content, FileFormat, first_line, unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed, wanted_columns
from pipelines.sources.stored_file import StoredFile

_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"


@final
class ArrowFormat(FileFormat):
    """Arrow, which states names and types itself."""

    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table."""
        del options
        parts = []
        for content in contents:
            batches = list(_batches(pa.BufferReader(content.data), content.name, len(content.data)))
            parts.append((content.name, pa.concat_tables(batches)))
        return Parsed(table=unite(parts), part_rows=tuple(table.num_rows for _, table in parts))

    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in order, in the batches of the file."""
        del options, chunk_rows
        with file.opened() as stored:
            num_bytes = stored.seek(0, 2)
            stored.seek(0)
            for table in _batches(pa.PythonFile(stored, mode="r"), file.name, num_bytes):
                yield table.select(wanted_columns(table.column_names, columns))


def _batches(file: Any, name: str, num_bytes: int) -> Iterator[pa.Table]:
    with _told(name, num_bytes):
        magic = file.read(len(_FILE_MAGIC))
        file.seek(0)
        if magic.startswith(_FEATHER_1_MAGIC):
            yield pyarrow.feather.read_table(file)
        elif magic == _FILE_MAGIC:
            with pa.ipc.open_file(file) as reader:
                yield reader.schema.empty_table()
                for number in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(number)])
        else:
            with pa.ipc.open_stream(file) as reader:
                yield reader.schema.empty_table()
                for batch in reader:
                    yield pa.Table.from_batches([batch])


@contextlib.contextmanager
def _told(name: str, num_bytes: int) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataError(
            f"Expected an Arrow or Feather file, but {name!r} cannot be read as one ({first_line(error)}); it has "
            f"{num_bytes:,} bytes and may be cut off: fetch it again."
        ) from error
