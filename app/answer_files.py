"""Where answers are written: Parquet, CSV or a table of a database; whole or not at all."""

from __future__ import annotations

import abc
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import RunDirectoryError
from tf_serving.answer_table import TablePlace, is_table, quoted, table_place

OUTPUT_FORMATS = (".parquet", ".csv")
_ROWS_A_TRANSACTION = 20_000
"""Rows for which readers of an SQLite database may have to wait, a tenth of a second or so."""


class AnswerWriter(abc.ABC):
    """Takes the answers part by part; what it writes appears when all is there."""

    @abc.abstractmethod
    def write(self, answers: pd.DataFrame) -> None:
        """Write the next rows, always with the same columns."""


def check_output(output: str | Path) -> None:
    """Checks that answers can be written to `output`, before any work is done.

    Args:
        output: A .parquet or .csv file, ``FILE.db[#TABLE]``, or a database URL with ``#TABLE`` behind it.

    Raises:
        RunDirectoryError: The format is unknown or the folder is missing.
    """
    text = str(output)
    if is_table(text):
        place = table_place(text)
        path = None if place.file is None else Path(place.file)
    else:
        path = Path(text)
        if path.suffix not in OUTPUT_FORMATS:
            raise RunDirectoryError(
                f"cannot write {text}: expected a name ending in {' or '.join(OUTPUT_FORMATS)}, a database such as "
                "answers.db#TABLE, or a database URL"
            )
    if path is not None and not path.parent.is_dir():
        raise RunDirectoryError(f"cannot write {path}: the folder {path.parent} does not exist")


@contextmanager
def answer_writer(output: str | Path, *, key: str = "", replace: bool = False) -> Iterator[AnswerWriter]:
    """Opens the place for answers; leaving it without an error makes them visible, an error leaves no trace.

    Args:
        output: As for `check_output`.
        key: Column by which answers will be looked up: the primary key of a table.
        replace: Whether a table of that name may be replaced. Files always are.

    Raises:
        RunDirectoryError: The place cannot be written.
    """
    text = str(output)
    if not is_table(text):
        with _written_file(Path(text)) as writer:
            yield writer
        return
    place = table_place(text)
    opened = _sqlite_table if place.file is not None else _sql_table
    with opened(place, key, replace) as writer:
        yield writer


@contextmanager
def _written_file(path: Path) -> Iterator[AnswerWriter]:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with closing(_ParquetFile(temporary) if path.suffix == ".parquet" else _CsvFile(temporary)) as writer:
            yield writer
        temporary.replace(path)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@final
class _ParquetFile(AnswerWriter):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetWriter | None = None

    def write(self, answers: pd.DataFrame) -> None:
        """Writes a row group."""
        if self._file is None:
            schema = pa.Schema.from_pandas(answers, preserve_index=False)
            # A chunk without a value does not say what the column's others are.
            fields = [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in schema]
            self._file = pq.ParquetWriter(self._path, pa.schema(fields, metadata=schema.metadata))
        self._file.write_table(pa.Table.from_pandas(answers, schema=self._file.schema, preserve_index=False))

    def close(self) -> None:
        """Writes the end of the file."""
        if self._file is not None:
            self._file.close()


@final
class _CsvFile(AnswerWriter):
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._is_empty = True

    def write(self, answers: pd.DataFrame) -> None:
        """Writes lines, the first time below a header."""
        answers.to_csv(self._file, index=False, header=self._is_empty)
        self._is_empty = False

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@contextmanager
def _sqlite_table(place: TablePlace, key: str, replace: bool) -> Iterator[AnswerWriter]:
    is_new = not Path(str(place.file)).exists()
    try:
        with closing(sqlite3.connect(str(place.file), isolation_level=None)) as connection:
            table = _SqliteTable(connection, place, key=key, replace=replace)
            try:
                yield table
                table.publish()
            except BaseException:
                table.discard()
                raise
    except BaseException as error:
        if is_new:
            Path(str(place.file)).unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise _not_written(place, key, str(error)) from error
        raise


@final
class _SqliteTable(AnswerWriter):
    """A table of SQLite; written under another name, part by part, and renamed when it is whole.

    A server that reads the old table goes on with it until then. One transaction for all parts would lock it out as
    soon as they outgrow SQLite's cache of 2 MB.
    """

    def __init__(self, connection: sqlite3.Connection, place: TablePlace, *, key: str, replace: bool) -> None:
        self._connection, self._place, self._key = connection, place, key
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (place.table,)).fetchone()
        if found and not replace:
            raise _taken(place)
        # A view of the table would else be held against the moment when it is not there.
        connection.execute("PRAGMA legacy_alter_table = ON")
        self._partial, self._insert = quoted(_partial(place)), ""

    def write(self, answers: pd.DataFrame) -> None:
        """Inserts rows."""
        if not self._insert:
            columns = [self._definition(name, dtype) for name, dtype in answers.dtypes.items()]
            with self._transaction():
                # A process of this number may have been killed before.
                self._connection.execute(f"DROP TABLE IF EXISTS {self._partial}")
                self._connection.execute(f"CREATE TABLE {self._partial} ({', '.join(columns)})")
            self._insert = f"INSERT INTO {self._partial} VALUES ({', '.join('?' * len(columns))})"
        rows = _plain_rows(answers)
        for start in range(0, len(rows), _ROWS_A_TRANSACTION):
            with self._transaction():
                self._connection.executemany(self._insert, rows[start : start + _ROWS_A_TRANSACTION])

    def publish(self) -> None:
        """Gives the table its name."""
        if self._insert:
            with self._transaction():
                self._connection.execute(f"DROP TABLE IF EXISTS {quoted(self._place.table)}")
                self._connection.execute(f"ALTER TABLE {self._partial} RENAME TO {quoted(self._place.table)}")

    def discard(self) -> None:
        """Removes what was written."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute(f"DROP TABLE IF EXISTS {self._partial}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _definition(self, name: Any, dtype: Any) -> str:
        kind = {"i": "INTEGER", "u": "INTEGER", "b": "INTEGER", "f": "REAL"}.get(np.dtype(_kind(dtype)).kind, "TEXT")
        return f"{quoted(str(name))} {kind}{' PRIMARY KEY NOT NULL' if name == self._key else ''}"


@contextmanager
def _sql_table(place: TablePlace, key: str, replace: bool) -> Iterator[AnswerWriter]:
    sqlalchemy = _sqlalchemy()
    try:
        engine = sqlalchemy.create_engine(place.url)
    except Exception as error:  # a driver that is not installed, an URL that is none
        raise RunDirectoryError(f"cannot write {place}: {error}") from error
    try:
        with engine.begin() as connection:
            table = _SqlTable(connection, place, key=key, replace=replace)
            yield table
            table.publish()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _not_written(place, key, str(getattr(error, "orig", None) or error)) from error
    finally:
        # Not every database takes back a table that a failed transaction has made.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), engine.begin() as connection:
            table = connection.dialect.identifier_preparer.quote(_partial(place))
            connection.execute(sqlalchemy.text(f"DROP TABLE IF EXISTS {table}"))
        engine.dispose()


def _partial(place: TablePlace) -> str:
    return f"{place.table}_partial_{os.getpid()}"


@final
class _SqlTable(AnswerWriter):
    """A table of any database that SQLAlchemy knows; written under another name, and renamed when it is whole."""

    def __init__(self, connection: Any, place: TablePlace, *, key: str, replace: bool) -> None:
        self._sql = _sqlalchemy()
        self._connection, self._place, self._key = connection, place, key
        if not replace and self._sql.inspect(connection).has_table(place.table):
            raise _taken(place)
        self._table: Any = None

    def write(self, answers: pd.DataFrame) -> None:
        """Inserts rows."""
        if self._table is None:
            columns = [self._column(str(name), dtype) for name, dtype in answers.dtypes.items()]
            self._table = self._sql.Table(_partial(self._place), self._sql.MetaData(), *columns)
            self._table.create(self._connection)
        names = [str(name) for name in answers.columns]
        rows = [dict(zip(names, row, strict=True)) for row in _plain_rows(answers)]
        self._connection.execute(self._table.insert(), rows)

    def publish(self) -> None:
        """Gives the table its name."""
        name = self._connection.dialect.identifier_preparer.quote
        old, new = name(self._place.table), name(_partial(self._place))
        for statement in (f"DROP TABLE IF EXISTS {old}", f"ALTER TABLE {new} RENAME TO {old}"):
            self._connection.execute(self._sql.text(statement))

    def _column(self, name: str, dtype: Any) -> Any:
        sql = self._sql
        kinds = {"i": sql.BigInteger, "u": sql.BigInteger, "b": sql.Boolean, "f": sql.Double}
        kind = kinds.get(np.dtype(_kind(dtype)).kind, sql.Text)
        is_key = name == self._key
        # Without autoincrement=False an integer key would become a sequence of the database's own.
        return sql.Column(name, kind, primary_key=is_key, autoincrement=False, nullable=not is_key, key=name)


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ModuleNotFoundError as error:
        raise RunDirectoryError(
            "a database other than SQLite needs SQLAlchemy: install it with `pip install 'tamiz[sql]'`"
        ) from error
    return sqlalchemy


def _kind(dtype: Any) -> Any:
    return dtype if isinstance(dtype, np.dtype) else np.dtype(object)


def _plain_rows(answers: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = []
    for _, series in answers.items():
        values = series.astype(object)
        columns.append(values.where(series.notna(), None).tolist())
    return list(zip(*columns, strict=True))


def _taken(place: TablePlace) -> RunDirectoryError:
    return RunDirectoryError(f"{place} exists: name another table, or say --replace")


def _not_written(place: TablePlace, key: str, reason: str) -> RunDirectoryError:
    reason = reason.replace(_partial(place), place.table)
    if key and "unique" in reason.lower():
        return RunDirectoryError(f"cannot write {place}: a value of the key {key!r} occurs twice ({reason.strip()})")
    if key and "not null" in reason.lower():
        return RunDirectoryError(f"cannot write {place}: a value of the key {key!r} is missing")
    return RunDirectoryError(f"cannot write {place}: {' '.join(reason.split())}")
