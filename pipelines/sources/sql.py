"""The answer of a database to a query, through SQLAlchemy. No message and no file holds the password."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.addresses import shown_database, without_secrets
from pipelines.errors import DataError
from pipelines.row_hash import finish_sums, row_sums
from pipelines.sources.file_format import first_line, unite
from pipelines.sources.memory import table_from_frame
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import FilePrint, Loaded, Parsed, Source, wanted_columns
from pipelines.sources.stored_file import require_file
from pipelines.sources.table_checks import check_column_names, plain_source

_ROWS_A_FETCH = 20_000
"""Rows that are there as objects of Python at once, some tens of megabytes."""


@final
class SqlSource(Source):
    """What a query returns.

    Args:
        query: A SELECT.
        url: SQLAlchemy's URL of the database, such as ``sqlite:///shop.db``.
    """

    def __init__(self, query: str, *, url: str) -> None:
        if not query.strip() or not url.strip():
            raise DataError("Expected a query and the URL of a database, such as --sql 'select ...' --url sqlite:///x.db.")
        self._query, self._url = query, url
        self._seen: _Seen | None = None

    @property
    def name(self) -> str:
        """The query and the database, without its password."""
        return f"the query {_short(self._query)!r} to {shown_database(self._url)}"

    @property
    def title(self) -> str:
        """The query."""
        return f"SQL {_short(self._query)!r}"

    @property
    def is_open_ended(self) -> bool:
        """A query does not tell."""
        return True

    def prints(self) -> tuple[str, tuple[FilePrint, ...]]:
        """Return the SHA-256 of the rows; a database promises them in no order, so it has none either."""
        if self._seen is None:
            for _ in self._tables(ReadOptions(), chunk_rows=_ROWS_A_FETCH):
                pass
        return "" if self._seen is None else self._seen.fingerprint(), ()

    def load(self, options: ReadOptions) -> Loaded:
        """Read all rows."""
        tables = list(self._tables(options, chunk_rows=_ROWS_A_FETCH))
        table = unite([("the rows before", part) for part in tables])
        return Loaded(parsed=Parsed(table=table), fingerprint=self.prints()[0])

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows as the database sends them, through a cursor on its side where its driver has one."""
        for table in self._tables(options, chunk_rows=min(chunk_rows, _ROWS_A_FETCH)):
            yield table.select(wanted_columns(table.column_names, columns))

    def _tables(self, options: ReadOptions, *, chunk_rows: int) -> Iterator[pa.Table]:
        sql = _sqlalchemy()
        with self._told(), contextlib.ExitStack() as stack:
            engine = sql.create_engine(self._url)
            stack.callback(engine.dispose)
            path = engine.url.database or ":memory:"
            if engine.dialect.name == "sqlite" and not path.startswith((":", "file:")):
                require_file(Path(path))  # SQLite would make an empty one
            connection = stack.enter_context(engine.connect())
            # Drivers that can, send the rows as they are asked for.
            connection = connection.execution_options(stream_results=True, max_row_buffer=chunk_rows)
            # The query is no format string: a colon in it, or a per cent sign, stands for itself.
            result = connection.execute(sql.text(self._query.replace(":", r"\:")))
            if not result.returns_rows:
                raise DataError(f"Expected a query that returns rows, such as a SELECT; {self.name} returns none.")
            names = list(map(str, result.keys()))
            check_column_names(names, self.name)
            seen = _Seen()
            while rows := result.fetchmany(chunk_rows):
                table = _table(names, rows, options)
                seen.add(plain_source(table, self.name))
                yield table
            if not seen.sums:
                raise DataError(f"Expected rows, but {self.name} returns none.")
            self._seen = seen

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (DataError, GeneratorExit):
            raise
        except Exception as error:  # each driver has errors of its own
            reason = first_line(getattr(error, "orig", None) or error)
            # A driver may repeat what it was given; the error behind this one is left out for the same reason.
            name = self.name[0].upper() + self.name[1:]
            reason = without_secrets(reason, self._url)
            raise DataError(f"{name} failed: {reason}; look at the query, the address and the credentials.") from None


@final
class _Seen:
    """What a pass over the rows leaves: 8 bytes of each, and the types of the columns."""

    def __init__(self) -> None:
        self.sums: list[NDArray[np.uint64]] = []
        self._types: dict[str, pa.DataType] = {}

    def add(self, table: pa.Table) -> None:
        """Look at some rows."""
        for name in table.column_names:
            known, found = self._types.get(name, pa.null()), table.column(name).type
            if {known, found} == {pa.int64(), pa.float64()}:
                self._types[name] = pa.float64()
            elif known == pa.null():
                self._types[name] = found
        self.sums.append(row_sums(table, columns=table.column_names))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the rows in any order."""
        digest = hashlib.sha256(repr(sorted((name, str(kind)) for name, kind in self._types.items())).encode())
        digest.update(np.sort(finish_sums(np.concatenate(self.sums), seed=0)).tobytes())
        return digest.hexdigest()


def _table(names: list[str], rows: Any, options: ReadOptions) -> pa.Table:
    columns = zip(*rows, strict=True)
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in zip(names, columns, strict=True)})
    return table_from_frame(frame, options)


def _short(query: str) -> str:
    words = " ".join(query.split())
    return words if len(words) <= 60 else words[:57] + "..."


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ModuleNotFoundError as error:
        raise DataError("A database needs SQLAlchemy: install it with `pip install 'tamiz[sql]'`.") from error
    return sqlalchemy
