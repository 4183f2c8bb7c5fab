"""Rows that do not fit into memory: read once, kept in a memory-mapped file, with the identity of each beside it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import TextForm, has_bytes, is_bytes, is_dictionary_of_text
from pipelines.errors import DataError
from pipelines.row_files import RowFiles
from pipelines.row_hash import finish_sums, row_sums
from pipelines.sources import Chunk, ReadOptions, Source

CHUNK_ROWS = 1 << 17
"""Rows that are looked at together; some 20 MB of a table with 20 columns."""

_LOOK_AHEAD = 3


class TypesDifferError(DataError):
    """Columns of a source have no one type that all of its parts fit.

    Attributes:
        columns: Their names.
    """

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        super().__init__(
            f"Expected one type of value in column {columns[0]!r} of {name!r}, but its parts hold several; read it as "
            f"text (--feature {columns[0]}=categorical), or bring its values to one form."
        )
        self.columns = tuple(columns)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRows:
    """Rows on disk.

    Attributes:
        parts: The rows in order, memory-mapped; a column may have a narrower type in an earlier part, and text may be
            a dictionary.
        schema: Names and plain types that hold for all of them.
        sums: What every row's identity is made of, over all columns, ``(num_rows,)``; see ``identities``.
        files: The files, where a column holds bytes; None where they have no name any more.
    """

    parts: tuple[pa.Table, ...]
    schema: pa.Schema
    sums: NDArray[np.uint64]
    files: RowFiles | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.sums)

    @property
    def num_bytes(self) -> int:
        """Bytes that the rows would take in memory."""
        return sum(part.nbytes for part in self.parts)

    @cached_property
    def table(self) -> pa.Table:
        """All rows as one table, text perhaps in dictionaries; a column whose parts differ in type is a copy."""
        schema = self._schema_of(self.parts, self.schema.names)
        return pa.concat_tables([part.cast(schema) for part in self.parts])

    def chunks(
        self, names: Sequence[str] | None = None, *, text: TextForm = TextForm.PLAIN
    ) -> Iterator[tuple[slice, pa.Table]]:
        """Yield the rows in order, and where they stand.

        Args:
            names: The columns; None for all.
            text: The form of text.
        """
        names = list(self.schema.names if names is None else names)
        start = 0
        for part in self.parts:
            schema = self._schema_of((part,) if text is TextForm.DICTIONARY else (), names)
            part = part.select(names)
            for first in range(0, part.num_rows, CHUNK_ROWS):
                chunk = part.slice(first, CHUNK_ROWS).cast(schema)
                yield slice(start, start + chunk.num_rows), chunk
                start += chunk.num_rows

    def _schema_of(self, parts: Sequence[pa.Table], names: Sequence[str]) -> pa.Schema:
        """Return the types of columns, text as a dictionary where it is one in all of some parts."""
        types = {name: self.schema.field(name).type for name in names}
        for name in names:
            found = {part.schema.field(name).type for part in parts}
            if len(found) == 1 and is_dictionary_of_text(kind := found.pop()):
                types[name] = kind
        return pa.schema(list(types.items()))

    def identities(self, *, without: Sequence[str], seed: int) -> NDArray[np.uint64]:
        """Return what ``hash_rows`` says of the rows; only the columns that are left out are looked at.

        Args:
            without: Columns that do not make a row what it is.
            seed: As for ``hash_rows``.

        Returns:
            uint64 of shape ``(num_rows,)``.
        """
        sums = self.sums.copy()
        if without:
            for place, chunk in self.chunks(without, text=TextForm.DICTIONARY):
                # A sum of columns: what is not to count is taken away again.
                sums[place] -= row_sums(chunk, columns=without)
        return finish_sums(sums, seed=seed)


def store_rows(source: Source, options: ReadOptions, *, folder: Path) -> StoredRows:
    """Read a source once, in bounded memory.

    The files are gone when the rows are let go of, or the process ends. They have no name by the time this returns,
    unless a column holds bytes: what is in it can then be pointed to.

    Args:
        source: The source.
        options: How to read it.
        folder: Where the file is kept; needs as much room as the rows take in memory.

    Raises:
        DataError: The source cannot be read.
        TypesDifferError: As above; columns of text files are read as text then, which takes a second pass.
    """
    try:
        return _stored(source, options, folder)
    except TypesDifferError as differ:
        # A column of numbers in which text turned up later: what was read as numbers has lost how it was written.
        text = dict.fromkeys([*options.text_columns, *differ.columns])
        if set(text) == set(options.text_columns):
            raise
        return _stored(source, replace(options, text_columns=tuple(text)), folder)


def _stored(source: Source, options: ReadOptions, folder: Path) -> StoredRows:
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".tamiz-rows-", dir=folder))
    with contextlib.ExitStack() as stack, _Writer(place) as writer:
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        sums: list[NDArray[np.uint64]] = []
        conflicts: dict[str, None] = {}
        schema = pa.schema([])
        chunks = source.chunks(options, chunk_rows=CHUNK_ROWS, text=TextForm.DICTIONARY)
        for chunk, chunk_sums in _identified(chunks):
            schema, differing = _wider(schema, _plain_types(chunk.schema))
            conflicts |= dict.fromkeys(differing)
            if not conflicts:  # otherwise only to learn of all of them
                writer.write(chunk, schema)
                sums.append(chunk_sums)
        if conflicts:
            raise TypesDifferError(source.name, list(conflicts))
        files = RowFiles(place, writer.finish())
        stack.pop_all()
        return StoredRows(
            parts=files.tables(),
            schema=schema,
            sums=np.concatenate(sums),
            files=files if any(is_bytes(field.type) for field in schema) else None,
        )


def _identified(chunks: Iterator[Chunk]) -> Iterator[tuple[pa.Table, NDArray[np.uint64]]]:
    """Yield chunks with the sums of their rows, computed beside the reading."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[tuple[pa.Table, Future[NDArray[np.uint64]]]] = deque()
        for chunk in chunks:
            rows = _unpacked(chunk.table)
            waiting.append((rows, pool.submit(row_sums, rows, columns=rows.column_names)))
            if len(waiting) > _LOOK_AHEAD:
                table, sums = waiting.popleft()
                yield table, sums.result()
        for table, sums in waiting:
            yield table, sums.result()


def _unpacked(table: pa.Table) -> pa.Table:
    """Return a table whose pairs of bytes and the name of their file, as other libraries keep images, are bytes."""
    for number, field in enumerate(table.schema):
        if has_bytes(field.type):
            content = pc.struct_field(table.column(number), "bytes").cast(pa.large_binary())
            table = table.set_column(number, field.name, content)
    return table


def _plain_types(schema: pa.Schema) -> pa.Schema:
    """Return the schema with text as such, where it is a dictionary."""
    types = [pa.string() if is_dictionary_of_text(field.type) else field.type for field in schema]
    return pa.schema(list(zip(schema.names, types, strict=True)))


def _wider(known: pa.Schema, found: pa.Schema) -> tuple[pa.Schema, list[str]]:
    """Return the types that hold for both, and the columns for which there is none."""
    if not known.names:
        return found, []
    fields, differing = [], []
    for name in known.names:
        types = {known.field(name).type, found.field(name).type} - {pa.null()} or {pa.null()}
        if types == {pa.int64(), pa.float64()}:
            types = {pa.float64()}
        if len(types) > 1:
            differing.append(name)
        fields.append(pa.field(name, sorted(types, key=str)[0]))
    return pa.schema(fields), differing


@final
class _Writer:
    """Writes tables to files in Arrow's format, another one when the types widen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self._schema = self._stored = pa.schema([])
        self._sink: pa.OSFile | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def write(self, table: pa.Table, schema: pa.Schema) -> None:
        """Append rows; text that begins as a dictionary goes on as one."""
        if self._writer is None or schema != self._schema:
            self._close()
            path = self._folder / f"images-{len(self._files)}.arrow"
            self._files.append(path)
            types = [
                table.schema.field(field.name).type
                if is_dictionary_of_text(table.schema.field(field.name).type)
                else field.type
                for field in schema
            ]
            self._schema, self._stored = schema, pa.schema(list(zip(schema.names, types, strict=True)))
            self._sink = pa.OSFile(str(path), "wb")
            # A stream: unlike a file, it may have another dictionary for every batch of rows.
            self._writer = pa.ipc.new_stream(self._sink, self._stored)
        columns = [_as_stored(table.column(field.name), field.type) for field in self._stored]
        self._writer.write_table(pa.table(columns, schema=self._stored))

    def finish(self) -> list[Path]:
        """Return the files."""
        self._close()
        return self._files

    def _close(self) -> None:
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._writer = self._sink = None


def _as_stored(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column as one chunk of a type; text becomes a dictionary, or plain, as that type says."""
    if column.type != kind:
        column = column.cast(pa.string()).dictionary_encode() if is_dictionary_of_text(kind) else column.cast(kind)
    if column.num_chunks == 1:
        return column
    column = column.unify_dictionaries() if is_dictionary_of_text(kind) else column
    return pa.chunked_array([column.combine_chunks()], kind)
