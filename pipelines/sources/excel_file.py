"""Excel workbooks; the first sheet, or the one behind ``#`` in ``book.xlsx#Sheet2``."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator
from typing import Any, final

import pandas as pd
import pyarrow as pa

from pipelines.errors import DataError, list_names, suggest_name
from pipelines.sources.file_format import Content, FileFormat, first_line, unite
from pipelines.sources.memory import table_from_frame
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed, wanted_columns
from pipelines.sources.stored_file import StoredFile
from pipelines.sources.table_checks import check_column_names
from pipelines.sources.zip_limits import check_zip

# What Excel shows where a formula has no value.
_ERRORS = ("#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#N/A", "#NULL!")


@final
class ExcelFormat(FileFormat):
    """One sheet of a workbook: a header, and rows of values as Excel last computed them."""

    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table."""
        parts, notes = [], []
        for content in contents:
            table, note = _read(content, options)
            parts.append((content.name, table))
            notes += [note] if note else []
        return Parsed(
            table=unite(parts), notes=tuple(notes), part_rows=tuple(table.num_rows for _, table in parts)
        )

    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in one table; a sheet has a million rows at most."""
        del chunk_rows
        table, _ = _read(Content(file.name, file.read()), options)
        yield table.select(wanted_columns(table.column_names, columns))


def _read(content: Content, options: ReadOptions) -> tuple[pa.Table, str]:
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise DataError("Excel workbooks need openpyxl: install it with `pip install 'tamiz[excel]'`.") from error
    check_zip(content, options.max_bytes)
    try:
        book = openpyxl.load_workbook(io.BytesIO(content.data), read_only=True, data_only=True)
        sheet = _sheet(book, options.sheet, content.name)
        rows = [row for row in sheet.iter_rows(values_only=True) if any(value is not None for value in row)]
    except DataError:
        raise
    except Exception as error:  # a broken workbook fails in any of its parts: zip, XML, styles
        raise DataError(
            f"Expected an Excel workbook (.xlsx), but {content.name!r} cannot be read as one ({first_line(error)})."
        ) from error
    if not rows:
        raise DataError(f"Expected a table, but the sheet {sheet.title!r} of {content.name!r} is empty.")
    # Where the workbook does not say how large the sheet is, a row ends with its last cell that is not empty.
    width = max(map(len, rows))
    rows = [row if len(row) == width else (*row, *[None] * (width - len(row))) for row in rows]
    names = [str(name).strip() if name is not None else f"column_{i + 1}" for i, name in enumerate(rows[0])]
    check_column_names(names, content.name)
    missing = set(options.missing_values)
    frame = pd.DataFrame(
        {
            name: pd.Series([_value(row[i], missing) for row in rows[1:]], dtype=object)
            for i, name in enumerate(names)
        }
    )
    others = [name for name in book.sheetnames if name != sheet.title]
    note = f"The sheet {sheet.title!r} was read; the workbook has {list_names(others)} as well." if others else ""
    return table_from_frame(frame, options), note if not options.sheet else ""


def _sheet(book: Any, name: str, file: str) -> Any:
    if name and name not in book.sheetnames:
        raise DataError(
            f"The workbook {file!r} has no sheet {name!r}.{suggest_name(name, book.sheetnames)} "
            f"It has {list_names(book.sheetnames)}."
        )
    return book[name] if name else book[book.sheetnames[0]]


def _value(value: Any, missing: set[str]) -> Any:
    return None if isinstance(value, str) and (value in _ERRORS or value.strip() in missing) else value
