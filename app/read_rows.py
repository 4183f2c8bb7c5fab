"""The rows of a source: in memory where they fit, else on disk. What tells no size is stored, and then measured."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from app.config import ExperimentConfig
from app.data_lock import check_lock
from app.data_source import (
    FIRST_ROWS,
    finish_reading,
    image_kinds,
    is_large,
    is_told_by_files,
    read_options,
    read_source,
)
from pipelines.image_files import names_images
from pipelines.image_references import is_image_file
from pipelines.row_files import RowFiles
from pipelines.sources import Source, SourceFacts, SourceTable
from pipelines.stored_rows import CHUNK_ROWS, StoredRows, store_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRows:
    """A source that has been read.

    Attributes:
        source: What was read; its table is memory-mapped where the rows are on disk.
        stored: The rows on disk; None where they are held in memory.
        images: The files that hold the images of rows in memory, which name them; None where there are none.
    """

    source: SourceTable
    stored: StoredRows | None = None
    images: RowFiles | None = None

    def parts(self) -> Iterator[pa.Table]:
        """Yields the rows in order, as many at once as may be in memory; all of them have the same types."""
        if self.stored is None:
            yield self.source.table
            return
        for _, chunk in self.stored.chunks():
            yield chunk


def read_rows(source: Source, config: ExperimentConfig, *, folder: Path) -> ReadRows:
    """Reads a source as the settings say.

    Args:
        source: The source.
        config: The settings.
        folder: Where rows are kept that do not fit into memory.

    Raises:
        DataError: It cannot be read.
        RunDirectoryError: It is not what the lock file of the settings says.
    """
    if config.forecast.horizon or not (source.is_open_ended or is_large(source, config)):
        return ReadRows(source=read_source(source, config))
    rows = store_source(source, config, folder=folder)
    if rows.stored is None or rows.stored.num_bytes > config.data.in_memory:
        return rows
    plain = replace(rows.source, table=rows.source.table.cast(rows.stored.schema))
    return ReadRows(source=finish_reading(plain, config))


def store_source(source: Source, config: ExperimentConfig, *, folder: Path) -> ReadRows:
    """Reads a source to disk in one pass and bounded memory; arguments and errors as `read_rows`."""
    options = read_options(config)
    with ThreadPoolExecutor(1) as pool:
        # What only reading tells is known after the one pass; files are hashed beside it.
        prints = None if source.is_open_ended else pool.submit(source.prints)
        stored = store_rows(source, options, folder=folder)
        fingerprint, files = source.prints() if prints is None else prints.result()
    read = SourceTable(
        table=stored.table,
        description=_described(source, num_rows=stored.num_rows, num_columns=len(stored.schema.names)),
        fingerprint=fingerprint,
        notes=source.remarks(),
        files=files,
        folder=source.folder,
    )
    first = read.table.slice(0, FIRST_ROWS).cast(stored.schema)
    if stored.files is not None or names_images(first, kinds=image_kinds(config)):
        # Images are looked at one by one, where they are on disk; what stands beside them is small.
        found = finish_reading(replace(read, table=read.table.cast(stored.schema)), config, files=stored.files)
        stay = any(is_image_file(field.type) for field in found.table.schema)
        return ReadRows(source=found, images=stored.files if stay else None)
    if config.data.lock:
        check_lock(read.facts, Path(config.data.lock))
    return ReadRows(source=read, stored=stored)


def facts_of(source: Source, config: ExperimentConfig) -> SourceFacts:
    """Returns what a source is, without keeping rows that do not fit into memory.

    Args:
        source: The source.
        config: The settings.

    Raises:
        DataError: It cannot be read.
    """
    if not (source.is_open_ended or is_told_by_files(source, config)):
        return read_source(source, config).facts
    num_rows, names = 0, []
    for chunk in source.chunks(read_options(config), chunk_rows=CHUNK_ROWS):
        num_rows, names = num_rows + chunk.table.num_rows, chunk.table.column_names
    fingerprint, files = source.prints()
    return SourceFacts(
        description=_described(source, num_rows=num_rows, num_columns=len(names)),
        fingerprint=fingerprint,
        num_columns=len(names),
        files=files,
    )


def _described(source: Source, *, num_rows: int, num_columns: int) -> str:
    return f"{source.title}: {num_rows:,} rows, {num_columns:,} columns"
