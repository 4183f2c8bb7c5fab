"""What every source is: a table that can be read whole, for a search, or in chunks, for predictions."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import pyarrow as pa
from blake3 import blake3

from pipelines.column_values import TextForm
from pipelines.errors import DataError
from pipelines.sources.options import ReadOptions
from pipelines.sources.table_checks import plain_source

_FIRST_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePrint:
    """One file of a source, as it was when it was read.

    Attributes:
        name: Path or URL, without secrets.
        num_bytes: Size of its content, unpacked.
        blake3: BLAKE3 hash of its content, unpacked, in hexadecimal digits.
    """

    name: str
    num_bytes: int
    blake3: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What is known of a table that was read, without its rows.

    Attributes:
        description: What was read, in words.
        fingerprint: Hash of the content, in hexadecimal digits.
        num_columns: Its columns.
        files: The files that it was read from, none for a source without files.
    """

    description: str
    fingerprint: str
    num_columns: int
    files: tuple[FilePrint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """A table that was read.

    Attributes:
        table: The rows, every column of a plain type (see ``pipelines.column_values``) or of one that is not read.
        description: What was read, in words.
        fingerprint: Hash of the content, in hexadecimal digits.
        notes: What was recognised that is not the plain default (encoding, delimiter, decimal comma ...).
        files: The files that it was read from, none for a source without files.
        folder: The folder that paths in the table are relative to; "" for where the program runs.
    """

    table: pa.Table
    description: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    files: tuple[FilePrint, ...] = ()
    folder: str = ""

    @property
    def facts(self) -> SourceFacts:
        """What is known of it, without the rows."""
        return SourceFacts(
            description=self.description,
            fingerprint=self.fingerprint,
            num_columns=self.table.num_columns,
            files=self.files,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What reading a source yields, before types are made plain.

    Attributes:
        table: The rows.
        notes: What was recognised that is not the plain default.
        part_rows: Rows of each file, in the order of the files; empty for a source without files.
    """

    table: pa.Table
    notes: tuple[str, ...] = ()
    part_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive rows of a source.

    Attributes:
        table: The rows; columns of plain types.
        first_row: Number of the first of them, from 0.
    """

    table: pa.Table
    first_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a source read, before it is checked and described.

    Attributes:
        parsed: Rows and notes.
        fingerprint: Hash of the content; "" takes the one of the rows.
        files: The files, if there are any.
    """

    parsed: Parsed
    fingerprint: str = ""
    files: tuple[FilePrint, ...] = ()


class Source(abc.ABC):
    """A table somewhere."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The source in messages and files; holds no secret."""

    @property
    def title(self) -> str:
        """The last part of the name, for headings."""
        return self.name.rstrip("/").rsplit("/", maxsplit=1)[-1]

    @property
    def folder(self) -> str:
        """The folder that paths in the table are relative to; "" for where the program runs."""
        return ""

    @property
    def is_stored(self) -> bool:
        """Whether ``prints`` says by files alone what the rows are, without reading them as rows."""
        return False

    @property
    def has_fixed_columns(self) -> bool:
        """Whether every row has every column; else one that is missing in all rows does not show."""
        return True

    @property
    def is_open_ended(self) -> bool:
        """Whether only reading tells how many rows there are, so that they may be more than memory holds."""
        return False

    @abc.abstractmethod
    def load(self, options: ReadOptions) -> Loaded:
        """Read everything.

        Args:
            options: How to read it; what is left open is recognised.

        Raises:
            DataError: The source is absent, empty, no table, or not what its name says.
        """

    @abc.abstractmethod
    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows in order, in tables of any length.

        Args:
            options: As for `load`.
            columns: Columns to read; None for all. Where one of them is absent, all are read.
            chunk_rows: A good number of rows for a table.

        Raises:
            DataError: The source is absent, no table, or broken somewhere.
        """

    def num_bytes(self) -> int | None:
        """Return about how many bytes the rows take in memory, or None where nothing but reading them tells."""
        return None

    def prints(self) -> tuple[str, tuple[FilePrint, ...]]:
        """Return the hash of the content and the files, as ``read`` would, without keeping the rows.

        Of an open-ended source they are those of the last pass over the rows, if there was one.

        Raises:
            DataError: As for ``read``.
        """
        table = self.read()
        return table.fingerprint, table.files

    def remarks(self) -> tuple[str, ...]:
        """Return what the last pass over the rows showed, as the notes of ``read`` do.

        Raises:
            DataError: It showed that the rows cannot be what was meant.
        """
        return ()

    @final
    def read(self, options: ReadOptions | None = None) -> SourceTable:
        """Read the source into memory.

        Args:
            options: How to read it; what is left open is recognised.

        Raises:
            DataError: The source is absent, empty, no table, or not what its name says.
        """
        options = options or ReadOptions()
        loaded = self.load(options)
        table = plain_source(loaded.parsed.table, self.name)
        return SourceTable(
            table=table,
            description=f"{self.title}: {table.num_rows:,} rows, {table.num_columns:,} columns",
            fingerprint=loaded.fingerprint or table_fingerprint(table),
            notes=loaded.parsed.notes,
            files=loaded.files,
            folder=self.folder,
        )

    @final
    def chunks(
        self,
        options: ReadOptions | None = None,
        *,
        chunk_rows: int,
        columns: Collection[str] | None = None,
        text: TextForm = TextForm.PLAIN,
    ) -> Generator[Chunk, None, None]:
        """Yield the rows in order; memory stays bounded however many there are.

        Args:
            options: How to read it; what is left open is recognised as for a source that is read at once.
            chunk_rows: Rows of a chunk at most.
            columns: Columns to read; None for all. Where one of them is absent, all are read.
            text: The form of text.

        Raises:
            DataError: The source is absent, has no rows, is no table, or is broken somewhere.
        """
        row = 0
        for table in self.stream(options or ReadOptions(), columns=columns, chunk_rows=chunk_rows):
            for start in range(0, table.num_rows, chunk_rows):
                part = table.slice(start, chunk_rows)
                yield Chunk(plain_source(part, self.name, text=text), row)
                row += part.num_rows
        if row == 0:
            raise DataError(f"Expected rows, but {self.name!r} has a header and no row below it; give one with rows.")


def complete(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return a table with these columns; those that it lacks are missing.

    Args:
        table: Some rows.
        names: The columns; of none, the table as it is.
    """
    present = set(table.column_names)
    columns = {name: table.column(name) if name in present else pa.nulls(table.num_rows) for name in names}
    return pa.table(columns) if columns else table


def wanted_columns(names: list[str], columns: Collection[str] | None) -> list[str]:
    """Return the names that are wanted, in the order of the source.

    Args:
        names: Those of the source.
        columns: Those that are wanted, None for all. If one is absent all are taken: the message about it names those
            that are there.
    """
    if columns is None or not set(columns) <= set(names):
        return names
    return [name for name in names if name in columns]


def row_bytes(source: Source) -> float:
    """Return about how many bytes a row of a source takes in memory, by its first rows.

    Args:
        source: The source.

    Raises:
        DataError: Its first rows cannot be read.
    """
    with contextlib.closing(source.chunks(chunk_rows=_FIRST_ROWS)) as chunks:
        first = next(chunks).table
    return float(first.nbytes / first.num_rows)


def bytes_beside(source: Source, row_sizes: Iterable[float]) -> int | None:
    """Return about how many bytes a source takes with rows of other tables beside each of its own.

    Args:
        source: The source.
        row_sizes: Bytes of a row of each other table; not looked at where the size of the source is not known.

    Raises:
        DataError: Its first rows cannot be read.
    """
    size = source.num_bytes()
    return round(size * (1.0 + sum(row_sizes) / row_bytes(source))) if size else size


def table_fingerprint(table: pa.Table) -> str:
    """Return the BLAKE3 hash of the names, types and values of a table, in hexadecimal digits.

    Args:
        table: The rows.
    """
    digest = blake3()
    # The Arrow stream holds names, types and values; slices and chunks of the table do not show in it.
    with pa.PythonFile(_HashSink(digest), mode="w") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return digest.hexdigest()


class _HashSink:
    """A file that is only hashed."""

    closed = False

    def __init__(self, digest: blake3) -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        """Add bytes to the hash."""
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""
