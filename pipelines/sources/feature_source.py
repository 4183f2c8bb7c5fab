"""Rows of a source with the features that they look up in groups of a store, as they were known at their time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import final

import pyarrow as pa

from pipelines.column_values import plain_array
from pipelines.errors import DataError
from pipelines.feature_groups import FeatureGroup, find_group, join_features, read_group
from pipelines.instants import check_not_ahead, instants
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import FilePrint, Loaded, Parsed, Source, wanted_columns


@final
class FeatureSource(Source):
    """A source and the feature groups that its rows look up.

    Args:
        source: The rows.
        groups: ``NAME`` or ``NAME@VERSION``, looked up one after the other.
        store: Folder of the groups.
        time_column: When each row happened; "" takes the column of the name of a group's own timestamp.
        now: Rows without a time get the latest features, as when a model answers; else they are refused.

    Raises:
        DataError: There is no such group.
    """

    def __init__(
        self, source: Source, groups: Sequence[str], *, store: Path, time_column: str = "", now: bool = False
    ) -> None:
        self._source, self._time_column, self._now = source, time_column, now
        self._groups = [(group, read_group(store, group)) for group in (find_group(store, title) for title in groups)]

    @property
    def name(self) -> str:
        """That of the rows."""
        return self._source.name

    @property
    def title(self) -> str:
        """That of the rows, and the groups."""
        return " + ".join([self._source.title, *(group.title for group, _ in self._groups)])

    def load(self, options: ReadOptions) -> Loaded:
        """Read everything."""
        rows = self._source.read(options)
        table, notes, files, prints = rows.table, list(rows.notes), list(rows.files), [rows.fingerprint]
        for group, features in self._groups:
            time_column = self._time_of(table, group)
            if time_column:
                check_not_ahead(instants(table, time_column), time_column)
            joined = join_features(table, features, group, time_column=time_column)
            if joined.num_missing == table.num_rows:
                when = f" up to {time_column!r}" if time_column else ""
                raise DataError(
                    f"Expected rows with a match in the feature group {group.title!r}, but none of {table.num_rows:,} "
                    f"has a key {group.key!r} in it{when}; look at the key and the times."
                )
            if joined.num_missing:
                notes.append(f"{joined.num_missing:,} of {table.num_rows:,} rows have no match in {group.title}.")
            table = joined.table
            files.append(FilePrint(name=f"feature group {group.title}", num_bytes=features.nbytes, sha256=group.sha256))
            prints.append(group.sha256)
        fingerprint = hashlib.sha256("\n".join(prints).encode()).hexdigest()
        return Loaded(parsed=Parsed(table=table, notes=tuple(notes)), fingerprint=fingerprint, files=tuple(files))

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows with what they look up, unless they have all of it; the groups are in memory."""
        for chunk in self._source.chunks(options, chunk_rows=chunk_rows):
            table = chunk.table
            if columns is None or not set(columns) <= set(table.column_names):
                for group, features in self._groups:
                    table = join_features(table, features, group, time_column=self._time_of(table, group)).table
            yield table.select(wanted_columns(table.column_names, columns))

    def _time_of(self, table: pa.Table, group: FeatureGroup) -> str:
        """Returns the column that says when the rows happened; "" where the group has no times, or for now."""
        if not group.timestamp:
            return ""
        named = self._time_column or group.timestamp
        if named in table.column_names and plain_array(table, named).null_count < table.num_rows:
            return named
        if self._now:
            return ""
        raise DataError(
            f"Expected the time of each row, because the feature group {group.title!r} has timestamps: name it with "
            f"--time-column, or call it {group.timestamp!r}."
        )


def with_features(
    source: Source, groups: Sequence[str], *, store: str, time_column: str = "", now: bool = False
) -> Source:
    """Return a source whose rows look up feature groups; none returns the source as it is.

    Args:
        source: The rows.
        groups: ``NAME`` or ``NAME@VERSION``.
        store: Folder of the groups.
        time_column: When each row happened.
        now: Whether rows without a time get the latest features.

    Raises:
        DataError: There is no such group.
    """
    if not groups:
        return source
    return FeatureSource(source, groups, store=Path(store), time_column=time_column, now=now)
