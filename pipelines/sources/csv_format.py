"""CSV as one of the file formats."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import final

import pyarrow as pa

from pipelines.sources.csv_file import parse_csv
from pipelines.sources.csv_stream import stream_csv
from pipelines.sources.file_format import Content, FileFormat
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed
from pipelines.sources.stored_file import StoredFile


@final
class CsvFormat(FileFormat):
    """Text with a delimiter, whose encoding, delimiter, decimal mark and types are recognised."""

    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table."""
        return parse_csv(contents, options)

    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in order, in tables of some megabytes."""
        del chunk_rows  # Arrow cuts a CSV file by bytes
        return stream_csv(file, options, columns=columns)
