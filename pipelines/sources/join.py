"""Further tables joined by a key: each row of the first keeps its place and gets the columns of its match."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.column_values import plain_array, require_column
from pipelines.content_hash import content_hash
from pipelines.errors import DataError
from pipelines.free_memory import require_memory
from pipelines.key_columns import alike
from pipelines.sources.options import ReadOptions
from pipelines.sources.places import ending_of
from pipelines.sources.source import (
    FilePrint,
    Loaded,
    Parsed,
    Source,
    SourceTable,
    bytes_beside,
    row_bytes,
    wanted_columns,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A table that is looked up by a key.

    Attributes:
        source: The table.
        left: Key column of the rows.
        right: Key column of the table, where each key stands once.
        prefix: Written before its columns whose names the rows have already.
    """

    source: Source
    left: str
    right: str
    prefix: str


@dataclass(slots=True)
class _Tally:
    """Rows that looked a table up, and those that found nothing."""

    num_rows: int = 0
    num_missing: int = 0


@final
class JoinedSource(Source):
    """A source and the tables that its rows look up.

    Args:
        source: The rows.
        joins: The tables, looked up one after the other: a later key may stand in an earlier table.
    """

    def __init__(self, source: Source, joins: Sequence[Join]) -> None:
        self._source, self._joins = source, tuple(joins)
        self._tallies = [_Tally() for _ in self._joins]
        self._read = lru_cache(maxsize=len(self._joins))(self._read_table)

    @property
    def name(self) -> str:
        """That of the rows."""
        return self._source.name

    @property
    def title(self) -> str:
        """That of the rows, and those of the tables."""
        return " + ".join([self._source.title, *(join.source.title for join in self._joins)])

    @property
    def folder(self) -> str:
        """That of the rows."""
        return self._source.folder

    @property
    def is_stored(self) -> bool:
        """Whether all of them are."""
        return self._source.is_stored and all(join.source.is_stored for join in self._joins)

    @property
    def has_fixed_columns(self) -> bool:
        """Whether the rows have."""
        return self._source.has_fixed_columns

    @property
    def is_open_ended(self) -> bool:
        """Whether the rows are; the tables are held in memory."""
        return self._source.is_open_ended

    def num_bytes(self) -> int | None:
        """Return what the rows take with a row of each table beside each of them."""
        return self._num_bytes

    @cached_property
    def _num_bytes(self) -> int | None:
        return bytes_beside(self._source, (row_bytes(join.source) for join in self._joins))

    def prints(self) -> tuple[str, tuple[FilePrint, ...]]:
        """Return one hash of all of them, and all files."""
        found = [self._source.prints(), *(join.source.prints() for join in self._joins)]
        return _joined([fingerprint for fingerprint, _ in found]), tuple(file for _, files in found for file in files)

    def remarks(self) -> tuple[str, ...]:
        """Return how many rows have no match."""
        notes = list(self._source.remarks())
        for join, tally in zip(self._joins, self._tallies, strict=True):
            notes += _unmatched(join, tally)
            notes += join.source.remarks()
        return tuple(notes)

    def load(self, options: ReadOptions) -> Loaded:
        """Read everything."""
        rows = self._source.read(options)
        table, notes, files, prints = rows.table, list(rows.notes), list(rows.files), [rows.fingerprint]
        for number, join in enumerate(self._joins):
            other, tally = self._read(number, options), _Tally()
            table = self._matched(table, join, other, tally)
            notes += [*_unmatched(join, tally), *other.notes]
            files += other.files
            prints.append(other.fingerprint)
        return Loaded(
            parsed=Parsed(table=table, notes=tuple(notes)), fingerprint=_joined(prints), files=tuple(files)
        )

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows with what they look up, unless they have all of it; the tables are in memory."""
        tallies = [_Tally() for _ in self._joins]
        for chunk in self._source.chunks(options, chunk_rows=chunk_rows):
            table = chunk.table
            if columns is not None and set(columns) <= set(table.column_names):
                yield table.select(wanted_columns(table.column_names, columns))
                continue
            for number, (join, tally) in enumerate(zip(self._joins, tallies, strict=True)):
                table = self._matched(table, join, self._read(number, options), tally)
            yield table.select(wanted_columns(table.column_names, columns))
        # Those of the pass that ended: another one may have looked at some rows meanwhile.
        self._tallies = tallies

    def _read_table(self, number: int, options: ReadOptions) -> SourceTable:
        join = self._joins[number]
        require_memory(join.source.num_bytes(), f"the joined table {join.source.name!r}")
        # A key that looks like a number must look alike on both sides.
        other = join.source.read(replace(options, text_columns=(*options.text_columns, *self._as_text(join, options))))
        keys = plain_array(other.table, _require_key(other.table, join))
        counts = pc.value_counts(keys.drop_null())
        doubled = pc.greater(counts.field("counts"), 1)
        if pc.any(doubled).as_py():
            values = counts.filter(doubled)
            extra = int(pc.sum(values.field("counts")).as_py()) - len(values)
            raise DataError(
                f"Expected each key once in {join.right!r} of {join.source.name!r}, but {len(values):,} occur several "
                f"times ({extra:,} rows too many), the first {values.field('values')[0].as_py()!r}; a join would "
                "multiply rows. Drop the duplicates, or aggregate the table by the key."
            )
        return other

    def _as_text(self, join: Join, options: ReadOptions) -> tuple[str, ...]:
        return (join.right,) if join.left in options.text_columns else ()

    def _matched(self, table: pa.Table, join: Join, other: SourceTable, tally: _Tally) -> pa.Table:
        keys = plain_array(table, require_column(table, join.left, role="key column"))
        left, right = alike(keys, plain_array(other.table, join.right))
        places = pc.index_in(left, value_set=right)
        # Nothing is not a key.
        places = pc.if_else(pc.is_null(left), pa.scalar(None, pa.int32()), places)
        for name in other.table.column_names:
            if name == join.right:
                continue
            new = f"{join.prefix}_{name}" if name in table.column_names else name
            if new in table.column_names:
                raise DataError(
                    f"Expected different column names, but {join.source.name!r} has a column {name!r} and the rows "
                    f"have {name!r} and {new!r} already; rename it."
                )
            table = table.append_column(new, plain_array(other.table, name).take(places))
        tally.num_rows += table.num_rows
        tally.num_missing += int(places.null_count)
        return table


def _require_key(table: pa.Table, join: Join) -> str:
    """Return the key column of a table that is looked up.

    Raises:
        DataError: The table has none of this name; there may be another on the side of the rows.
    """
    try:
        return require_column(table, join.right, role="key column")
    except DataError as error:
        raise DataError(
            f"Of the joined table {join.source.name!r}: {error} Where the keys have two names, write "
            f"FILE:{join.left}=NAME."
        ) from error


def _unmatched(join: Join, tally: _Tally) -> list[str]:
    """Return a note of the rows without a match.

    Raises:
        DataError: There is no other.
    """
    if tally.num_rows and tally.num_missing == tally.num_rows:
        raise DataError(
            f"Expected values of {join.left!r} to stand in {join.right!r} of {join.source.name!r}, but none of "
            f"{tally.num_rows:,} rows has a match; look at the key."
        )
    if not tally.num_missing:
        return []
    return [f"{tally.num_missing:,} of {tally.num_rows:,} rows have no match in {join.source.title}."]


def _joined(prints: Sequence[str]) -> str:
    return content_hash("\n".join(prints).encode())


def join_of(text: str, *, source: Source, place: str) -> Join:
    """Return the join that ``FILE:KEY`` or ``FILE:LEFT=RIGHT`` stands for.

    Args:
        text: What stands behind the last colon.
        source: The table.
        place: Where it is; its name goes before columns whose names are taken.

    Raises:
        DataError: There is no key.
    """
    left, separator, right = text.partition("=")
    if not left or (separator and not right):
        raise DataError(f"Expected a key, as in --join customers.csv:customer_id, received {place}:{text}.")
    stem = place.rstrip("/").rsplit("/", maxsplit=1)[-1]
    ending = ending_of(stem)
    prefix = stem[: stem.lower().rindex(ending)] if ending else stem
    return Join(source=source, left=left, right=right or left, prefix=prefix)
