"""Answers that were computed before, in a table of a database; looked up by a key (no TensorFlow here).

SQLite needs nothing further; other databases are reached by URL through SQLAlchemy.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

from pipelines.addresses import shown_database

Key: TypeAlias = str | int

DEFAULT_TABLE = "answers"
SQLITE_ENDINGS = (".db", ".sqlite", ".sqlite3")
MAX_KEYS = 10_000
_KEYS_A_QUERY = 500  # below the number of parameters that any SQLite takes
_URL = re.compile(r"[a-z][a-z0-9+]*://", re.ASCII)


class AnswerTableError(ValueError):
    """A table of answers cannot be opened or asked; the message says why."""


@dataclass(frozen=True, slots=True)
class TablePlace:
    """Where a table is.

    Attributes:
        file: SQLite file; None for another database.
        url: URL of another database; "" for SQLite.
        table: Name of the table.
    """

    file: Path | None
    url: str
    table: str

    def __str__(self) -> str:
        place = str(self.file) if self.file is not None else shown_database(self.url)
        return f"table {self.table!r} of {place}"


def is_table(text: str) -> bool:
    """Return whether a text names a database rather than a file of rows.

    Args:
        text: What a user gave.
    """
    return bool(_URL.match(text)) or Path(text.partition("#")[0]).suffix in SQLITE_ENDINGS


def table_place(text: str) -> TablePlace:
    """Return the place that ``FILE.db[#TABLE]`` or ``URL[#TABLE]`` names.

    Args:
        text: What a user gave; without a table it is ``answers``.

    Raises:
        AnswerTableError: It is neither.
    """
    place, _, table = text.partition("#")
    table = table or DEFAULT_TABLE
    if place.startswith("sqlite:///"):
        return TablePlace(Path(place.removeprefix("sqlite:///")), "", table)
    if _URL.match(place):
        return TablePlace(None, place, table)
    if Path(place).suffix not in SQLITE_ENDINGS:
        endings = ", ".join(SQLITE_ENDINGS)
        raise AnswerTableError(f"Expected a database file ({endings}) or URL, received {text!r}.")
    return TablePlace(Path(place), "", table)


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever it holds.

    Args:
        name: Of a table or column.
    """
    return '"' + name.replace('"', '""') + '"'


@final
class AnswerTable:
    """A table of answers with a unique key; safe to use from several threads.

    The table may be replaced while it is open: every look-up reads what is there then.

    Args:
        place: ``FILE.db[#TABLE]`` or ``URL[#TABLE]``.
        key: Name of the key column.

    Raises:
        AnswerTableError: There is no such table or column.
    """

    def __init__(self, place: str, *, key: str) -> None:
        self.place, self.key = table_place(place), key
        self._source = _Sqlite(self.place) if self.place.file is not None else _Sql(self.place)
        try:
            columns = self._columns()
        except AnswerTableError:
            self.close()
            raise
        self.columns = tuple(name for name in columns if name != key)
        self._has_integer_keys = "INT" in columns[key].upper()

    def _columns(self) -> dict[str, str]:
        key, columns = self.key, self._source.columns()
        if not columns:
            raise AnswerTableError(f"There is no {self.place}; write it with `tamiz predict --output ... --key {key}`.")
        if key not in columns:
            names = ", ".join(map(repr, columns))
            raise AnswerTableError(f"The {self.place} has no column {key!r} but {names}; name its key.")
        return columns

    def look_up(self, keys: Sequence[Key]) -> list[dict[str, Any] | None]:
        """Return the answers in the order of the keys; None where there is none.

        Args:
            keys: At most ``MAX_KEYS``; whole numbers may come as text.

        Raises:
            AnswerTableError: There are too many keys, one is neither text nor a whole number, or the database fails.
        """
        if len(keys) > MAX_KEYS:
            raise AnswerTableError(f"Expected at most {MAX_KEYS:,} keys at once, received {len(keys):,}.")
        wanted = [self._key(key) for key in keys]
        found: dict[Key, dict[str, Any]] = {}
        asked = list(dict.fromkeys(key for key in wanted if key is not None))
        for start in range(0, len(asked), _KEYS_A_QUERY):
            for row in self._source.rows(self.key, asked[start : start + _KEYS_A_QUERY]):
                found[row.pop(self.key)] = row
        return [None if key is None else found.get(key) for key in wanted]

    def close(self) -> None:
        """Close the connections."""
        self._source.close()

    def _key(self, key: Any) -> Key | None:
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            raise AnswerTableError(f"Expected text or a whole number as a key, received {str(key)[:40]!r}.")
        if not self._has_integer_keys:
            return str(key)
        text = str(key)
        number = int(text) if re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII) else None
        # What is no 64-bit number is no key of this table, which is no error.
        return number if number is not None and -(2**63) <= number < 2**63 else None


class _Sqlite:
    """One read-only connection a thread: SQLite's connections are not shared."""

    def __init__(self, place: TablePlace) -> None:
        self._place = place
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if not Path(str(place.file)).is_file():
            raise AnswerTableError(f"There is no file {str(place.file)!r}; write it with `tamiz predict --output ...`.")

    def columns(self) -> dict[str, str]:
        return {row["name"]: row["type"] for row in self._query(f"PRAGMA table_info({quoted(self._place.table)})", [])}

    def rows(self, key: str, keys: Sequence[Key]) -> list[dict[str, Any]]:
        marks = ", ".join("?" * len(keys))
        table = quoted(self._place.table)
        return self._query(f"SELECT * FROM {table} WHERE {quoted(key)} IN ({marks})", keys)

    def close(self) -> None:
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    def _query(self, statement: str, values: Sequence[Key]) -> list[dict[str, Any]]:
        try:
            connection = getattr(self._local, "connection", None) or self._connect()
            return [dict(row) for row in connection.execute(statement, values)]
        except sqlite3.Error as error:
            raise AnswerTableError(f"Cannot read the {self._place}: {error}.") from error

    def _connect(self) -> sqlite3.Connection:
        uri = Path(str(self._place.file)).absolute().as_uri() + "?mode=ro"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=5.0)
        connection.row_factory = sqlite3.Row
        with self._lock:
            self._opened.append(connection)
        self._local.connection = connection
        return connection


class _Sql:
    """Any database that SQLAlchemy knows."""

    def __init__(self, place: TablePlace) -> None:
        try:
            import sqlalchemy
        except ModuleNotFoundError as error:
            raise AnswerTableError(
                "A database other than SQLite needs SQLAlchemy: install it with `pip install 'tamiz[sql]'`."
            ) from error
        self._place, self._sql = place, sqlalchemy
        try:
            self._engine = sqlalchemy.create_engine(place.url, pool_pre_ping=True)
        except Exception as error:
            raise AnswerTableError(f"Cannot read the {place}: {error}.") from error

    def columns(self) -> dict[str, str]:
        try:
            inspector = self._sql.inspect(self._engine)
            if not inspector.has_table(self._place.table):
                return {}
            return {column["name"]: str(column["type"]) for column in inspector.get_columns(self._place.table)}
        except self._sql.exc.SQLAlchemyError as error:
            raise AnswerTableError(f"Cannot read the {self._place}: {_reason(error)}.") from error

    def rows(self, key: str, keys: Sequence[Key]) -> list[dict[str, Any]]:
        sql = self._sql
        column = sql.Column(key, quote=True)
        statement = sql.select(sql.text("*")).select_from(sql.table(self._place.table)).where(column.in_(list(keys)))
        try:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(statement).mappings()]
        except sql.exc.SQLAlchemyError as error:
            raise AnswerTableError(f"Cannot read the {self._place}: {_reason(error)}.") from error

    def close(self) -> None:
        self._engine.dispose()


def _reason(error: Any) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())
