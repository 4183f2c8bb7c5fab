"""JSON lines: one object a line; the types are those of JSON, and dates stay the text that they are."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator
from typing import IO, final

import pyarrow as pa
import pyarrow.json

from pipelines.errors import DataError
from pipelines.sources.file_format import Content, FileFormat, first_line, unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed, complete, wanted_columns
from pipelines.sources.stored_file import StoredFile

_BLOCK_BYTES = 1 << 24


@final
class JsonLinesFormat(FileFormat):
    """Objects with the same names in every line; a name may be left out where its value is missing."""

    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table."""
        del options
        parts = []
        for content in contents:
            tables = list(line_tables(io.BytesIO(content.data), content.name))
            parts.append((content.name, _filled(tables)))
        names = list(dict.fromkeys(name for _, table in parts for name in table.column_names))
        # A column that is missing in all lines of a file does not occur in it.
        parts = [(name, complete(table, names)) for name, table in parts]
        return Parsed(table=unite(parts), part_rows=tuple(table.num_rows for _, table in parts))

    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in order, in tables of some megabytes."""
        del options, chunk_rows
        with file.unpacked() as content:
            known: list[str] = []
            for table in line_tables(content, file.name):
                known = list(dict.fromkeys([*known, *table.column_names]))
                # What a later block never mentions is missing in it.
                yield complete(table, wanted_columns(known, columns))


def line_tables(content: IO[bytes], name: str) -> Iterator[pa.Table]:
    """Yield the lines of a file as tables, with the columns that occur in each.

    Args:
        content: The file.
        name: Its name in messages.

    Raises:
        DataError: A line is no JSON object, or the values of a name are of several types.
    """
    rest, offset, text_columns = b"", 0, set[str]()
    while block := content.read(_BLOCK_BYTES):
        whole, line_end, tail = (rest + block).rpartition(b"\n")
        if line_end:
            yield from _table(whole + line_end, name, offset, text_columns)
            offset += len(whole) + 1
        rest = tail
    if rest.strip():
        yield from _table(rest, name, offset, text_columns)


def _table(block: bytes, name: str, offset: int, text_columns: set[str]) -> Iterator[pa.Table]:
    """Yield the rows of some lines; `text_columns` are those that must not become dates, and grows."""
    if offset == 0 and block.lstrip()[:1] == b"[":
        raise DataError(
            f"Expected one JSON object a line, but {name!r} begins with a list; write its objects line by line."
        )
    if not block.strip():
        return
    table = _parse(block, name, offset, text_columns)
    dates = {field.name for field in table.schema if pa.types.is_timestamp(field.type)}
    if dates:
        # Whether a text looks like a date must not depend on the block that it stands in.
        text_columns |= dates
        table = _parse(block, name, offset, text_columns)
    yield table


def _parse(block: bytes, name: str, offset: int, text_columns: set[str]) -> pa.Table:
    try:
        return pyarrow.json.read_json(
            pa.BufferReader(block),
            # One block: the types of a column depend on all lines.
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema([(column, pa.string()) for column in sorted(text_columns)])
            ),
        )
    except pa.ArrowException as error:
        reason = first_line(error).removeprefix("JSON parse error: ")
        where = f"in the lines from byte {offset:,} on" if offset else "in its first lines"
        raise DataError(
            f"Expected one JSON object with values of one type a name in each line of {name!r}, but {where} there is "
            f"something else ({reason}; rows count from 0); mend the line, or fetch the file again."
        ) from error


def _filled(tables: list[pa.Table]) -> pa.Table:
    if not tables:
        return pa.table({})
    names = list(dict.fromkeys(name for table in tables for name in table.column_names))
    return unite([("the lines before", complete(table, names)) for table in tables])
