"""What every file format is, and how several files of one format become one table."""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.column_values import plain_table
from pipelines.errors import DataError, list_names
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed
from pipelines.sources.stored_file import StoredFile
from pipelines.sources.table_checks import check_column_names


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, unpacked.

    Attributes:
        name: Name of the file in messages.
        data: All of its bytes.
    """

    name: str
    data: bytes


class FileFormat(abc.ABC):
    """Reads files of one kind."""

    @abc.abstractmethod
    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table.

        Args:
            contents: The files, at least one; each is asked for when the one before has been read.
            options: How to read them.

        Raises:
            DataError: A file is not of this format, or its columns are not those of the first.
        """

    @abc.abstractmethod
    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in order; arguments and errors as for ``Source.stream``."""


def unite(parts: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    """Return the rows of several files as one table, in the columns of the first.

    Args:
        parts: Name and rows of each file. Whole numbers become numbers with decimals where another file has those.

    Raises:
        DataError: The columns of a file, or the type of one of them, are others than in the files before.
    """
    first_name, first = parts[0]
    if len(parts) == 1:
        return first
    for name, table in parts:
        check_column_names(table.column_names, repr(name))
        check_same_columns(first.column_names, table.column_names, first=first_name, other=name)
    tables = [plain_table(table.select(first.column_names)) for _, table in parts]
    for column in first.column_names:
        types = [table.column(column).type for table in tables]
        _check_types(column, list(zip((name for name, _ in parts), types, strict=True)))
    return pa.concat_tables(tables, promote_options="permissive")


def check_same_columns(expected: Collection[str], found: Collection[str], *, first: str, other: str) -> None:
    """Refuse a file whose columns are not those of the first.

    Args:
        expected: Columns of the first file.
        found: Columns of another.
        first: Name of the first file.
        other: Name of the other.

    Raises:
        DataError: One has a column that the other lacks.
    """
    absent = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if absent or extra:
        what = f"lacks {list_names(absent)}" if absent else ""
        what += " and " if absent and extra else ""
        what += f"has {list_names(extra)} besides" if extra else ""
        raise DataError(
            f"Expected the same columns in every file, but {other!r} {what}, other than {first!r}; read it on its own, "
            "or bring the files to one form."
        )


def _check_types(column: str, types: Sequence[tuple[str, pa.DataType]]) -> None:
    known_name, known = "", pa.null()
    for name, kind in types:
        if pa.types.is_null(kind) or kind == known:
            continue
        if pa.types.is_null(known) or {kind, known} == {pa.int64(), pa.float64()}:
            known_name, known = name, kind
            continue
        raise DataError(
            f"Expected one type of column {column!r} in every file, but it is {known} in {known_name!r} and {kind} in "
            f"{name!r}; bring the files to one form."
        )


def first_line(error: Exception) -> str:
    """Return what an error says, without what follows its first line.

    Args:
        error: An error of a library.
    """
    return str(error).split("\n", maxsplit=1)[0].rstrip(".")
