"""Where data comes from: every source ends as Arrow tables of plain types, read whole or in chunks.

``SOURCES`` holds the kinds of sources, ``FORMATS`` the formats of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa

from pipelines.addresses import NAMED_KINDS
from pipelines.errors import DataError
from pipelines.sources import dataset_function, tfds
from pipelines.sources.dataset_function import DatasetSource
from pipelines.sources.files import FileSource
from pipelines.sources.formats import FORMATS
from pipelines.sources.image_folder import ImageFolderSource, is_image_folder
from pipelines.sources.join import JoinedSource, join_of
from pipelines.sources.memory import MemorySource
from pipelines.sources.options import DEFAULT_MISSING_VALUES, ReadOptions
from pipelines.sources.source import Chunk, FilePrint, Source, SourceFacts, SourceTable
from pipelines.sources.sql import SqlSource
from pipelines.sources.tfds import TfdsSource

__all__ = [
    "DEFAULT_MISSING_VALUES",
    "FORMATS",
    "SOURCES",
    "Chunk",
    "DataLike",
    "FilePrint",
    "Origin",
    "ReadOptions",
    "Source",
    "SourceFacts",
    "SourceTable",
    "open_source",
    "read_table",
    "with_joins",
]

DataLike: TypeAlias = (
    str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame | pa.Table | Callable[[], Any] | Source
)
"""What a user may call data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where data comes from, in words that fit a command line.

    Attributes:
        places: Files, folders, patterns, URLs, ``tfds:NAME/CONFIG`` or ``python:module:function``.
        sql: Query to a database.
        url: SQLAlchemy's URL of the database.
        joins: Tables to look up, ``FILE:KEY`` or ``FILE:LEFT=RIGHT``.
        data_dir: Folder of prepared tensorflow-datasets; "" for its default.
        max_bytes: How large a file may be, also unpacked; 0 for the automatic limit on what is unpacked.
    """

    places: tuple[str, ...] = ()
    sql: str = ""
    url: str = ""
    joins: tuple[str, ...] = ()
    data_dir: str = ""
    max_bytes: int = 0


def _files(origin: Origin) -> Source:
    if len(origin.places) == 1 and is_image_folder(origin.places[0]):
        return ImageFolderSource(origin.places[0])
    return FileSource(origin.places, max_bytes=origin.max_bytes)


def _tfds(origin: Origin) -> Source:
    dataset = _only(origin.places).removeprefix(tfds.PREFIX)
    return TfdsSource(dataset, data_dir=origin.data_dir, max_bytes=origin.max_bytes)


def _function(origin: Origin) -> Source:
    return DatasetSource(_only(origin.places).removeprefix(dataset_function.PREFIX))


def _sql(origin: Origin) -> Source:
    if origin.places:
        raise DataError(f"Expected a query or a place of data, received both: --sql and {origin.places[0]!r}.")
    return SqlSource(origin.sql, url=origin.url)


# What the first word of a place, or an option, says; files are what nothing else is.
SOURCES: Mapping[str, Callable[[Origin], Source]] = {
    "sql": _sql,
    "tfds": _tfds,
    "python": _function,
    "files": _files,
}


def open_source(data: DataLike | Origin) -> Source:
    """Return the source that data comes from; nothing is read yet.

    Args:
        data: Paths or the other places of `Origin`, a DataFrame, an Arrow table, a function without arguments that
            returns a tf.data.Dataset, or a source.

    Raises:
        DataError: It is none of these.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, pd.DataFrame | pa.Table):
        return MemorySource(data)
    if isinstance(data, Origin):
        return _opened(data)
    if isinstance(data, str | os.PathLike):
        return _opened(Origin(places=(os.fspath(data),)))
    if isinstance(data, list | tuple) and data and all(isinstance(place, str | os.PathLike) for place in data):
        return _opened(Origin(places=tuple(os.fspath(place) for place in data)))
    if callable(data):
        return DatasetSource(data)
    raise DataError(
        "Expected paths or URLs, a DataFrame, an Arrow table or a function that returns a tf.data.Dataset, received "
        f"{type(data).__name__}."
    )


def read_table(data: DataLike, *, options: ReadOptions | None = None) -> SourceTable:
    """Read a table into memory.

    Args:
        data: As for `open_source`.
        options: How to read it; what is left open is recognised.

    Raises:
        DataError: The source is absent, empty, no table, or not what its name says.
    """
    return open_source(data).read(options)


def _opened(origin: Origin) -> Source:
    if origin.url and not origin.sql:
        raise DataError("Expected a query for the database, as in --sql 'select * from customers'.")
    kind = "sql" if origin.sql else "files"
    for place in origin.places:
        prefix = place.partition(":")[0]
        kind = prefix if prefix in NAMED_KINDS else kind
    return with_joins(SOURCES[kind](origin), origin.joins, data_dir=origin.data_dir, max_bytes=origin.max_bytes)


def with_joins(source: Source, joins: Sequence[str], *, data_dir: str = "", max_bytes: int = 0) -> Source:
    """Return a source whose rows look up tables.

    Args:
        source: The rows.
        joins: The tables, ``FILE:KEY`` or ``FILE:LEFT=RIGHT``; none returns the source as it is.
        data_dir: Folder of prepared tensorflow-datasets; "" for its default.
        max_bytes: How large a file may be, also unpacked; 0 for the automatic limit on what is unpacked.

    Raises:
        DataError: A join has no key.
    """
    found = []
    for text in joins:
        place, _, key = text.rpartition(":")
        if not place:
            raise DataError(f"Expected a table and its key, as in --join customers.csv:customer_id, received {text!r}.")
        table = _opened(Origin(places=(place,), data_dir=data_dir, max_bytes=max_bytes))
        found.append(join_of(key, source=table, place=place))
    return JoinedSource(source, found) if found else source


def _only(places: Sequence[str]) -> str:
    if len(places) > 1:
        raise DataError(f"Expected one source, received {len(places)}: {places[0]!r} and {places[1]!r}.")
    return places[0]
