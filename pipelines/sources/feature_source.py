"""Rows of a source with the features that they look up in groups of a store, as they were known at their time."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import pyarrow as pa

from pipelines.column_values import plain_array
from pipelines.content_hash import content_hash
from pipelines.datetime_text import recognise_format
from pipelines.errors import DataError
from pipelines.feature_groups import FeatureGroup, find_group, join_features, read_group
from pipelines.instants import check_not_ahead, instants
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import FilePrint, Loaded, Parsed, Source, bytes_beside, wanted_columns


@final
class FeatureSource(Source):
    """A source and the feature groups that its rows look up.

    Args:
        source: The rows.
        groups: ``NAME`` or ``NAME@VERSION``, looked up one after the other.
        store: Folder of the groups.
        time_column: When each row happened; "" takes the column of the name of a group's own timestamp.
        now: Rows without a time get the latest features, as when a model answers; else they are refused.
        time_formats: How the dates of columns are known to be written; those of others are recognised.

    Raises:
        DataError: There is no such group.
    """

    def __init__(
        self,
        source: Source,
        groups: Sequence[str],
        *,
        store: Path,
        time_column: str = "",
        now: bool = False,
        time_formats: Mapping[str, str | None] | None = None,
    ) -> None:
        self._source, self._time_column, self._now = source, time_column, now
        self._formats = {name: known for name, known in (time_formats or {}).items() if known is not None}
        self._tallies = [0 for _ in groups]
        self._num_rows = 0
        self._groups = [(group, read_group(store, group)) for group in (find_group(store, title) for title in groups)]

    @property
    def name(self) -> str:
        """That of the rows."""
        return self._source.name

    @property
    def title(self) -> str:
        """That of the rows, and the groups."""
        return " + ".join([self._source.title, *(group.title for group, _ in self._groups)])

    @property
    def is_stored(self) -> bool:
        """Whether the rows are; the groups always are."""
        return self._source.is_stored

    @property
    def has_fixed_columns(self) -> bool:
        """Whether the rows have."""
        return self._source.has_fixed_columns

    @property
    def is_open_ended(self) -> bool:
        """Whether the rows are."""
        return self._source.is_open_ended

    def num_bytes(self) -> int | None:
        """Return what the rows take with a row of each group beside each of them."""
        return self._num_bytes

    @cached_property
    def _num_bytes(self) -> int | None:
        tables = (features for _, features in self._groups)
        return bytes_beside(self._source, (int(table.nbytes) / max(1, int(table.num_rows)) for table in tables))

    def prints(self) -> tuple[str, tuple[FilePrint, ...]]:
        """Return one hash of rows and groups, and the files with the groups among them."""
        fingerprint, files = self._source.prints()
        return self._joined(fingerprint), (*files, *self._group_prints)

    def remarks(self) -> tuple[str, ...]:
        """Return how many rows have no match."""
        notes = list(self._source.remarks())
        for (group, _), num_missing in zip(self._groups, self._tallies, strict=True):
            notes += self._unmatched(group, num_missing, num_rows=self._num_rows)
        return tuple(notes)

    def load(self, options: ReadOptions) -> Loaded:
        """Read everything."""
        rows = self._source.read(options)
        table, missing = self._looked_up(rows.table, self._formats)
        notes = list(rows.notes)
        for (group, _), num_missing in zip(self._groups, missing, strict=True):
            notes += self._unmatched(group, num_missing, num_rows=table.num_rows)
        return Loaded(
            parsed=Parsed(table=table, notes=tuple(notes)),
            fingerprint=self._joined(rows.fingerprint),
            files=(*rows.files, *self._group_prints),
        )

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows with what they look up, unless they have all of it; the groups are in memory."""
        self._tallies, self._num_rows = [0 for _ in self._groups], 0
        formats = dict(self._formats)
        for chunk in self._source.chunks(options, chunk_rows=chunk_rows):
            table = chunk.table
            if columns is None or not set(columns) <= set(table.column_names):
                self._settle_formats(table, formats, options)
                table, missing = self._looked_up(table, formats)
                self._tallies = [one + other for one, other in zip(self._tallies, missing, strict=True)]
                self._num_rows += table.num_rows
            yield table.select(wanted_columns(table.column_names, columns))

    def _settle_formats(self, table: pa.Table, formats: dict[str, str], options: ReadOptions) -> None:
        """Adds how the times are written to `formats`.

        Where the first rows leave open whether the day or the month comes first, as 03/04/2024 does, those after them
        decide: read by themselves, rows of the first days of a month would move by months.
        """
        for name in {self._time_of(table, group) for group, _ in self._groups} - {"", *formats}:
            array = plain_array(table, name)
            if array.type != pa.string():
                continue
            found, _, is_open = recognise_format(array)
            if is_open:
                with contextlib.closing(self._source.chunks(options, chunk_rows=len(array), columns=[name])) as chunks:
                    looks = (recognise_format(plain_array(chunk.table, name)) for chunk in chunks)
                    found = next((other for other, _, is_open in looks if other and not is_open), found)
            if found is not None:
                formats[name] = found

    def _looked_up(self, table: pa.Table, formats: Mapping[str, str]) -> tuple[pa.Table, list[int]]:
        """Returns rows with their features, and how many have none in each group."""
        missing = []
        for group, features in self._groups:
            time_column = self._time_of(table, group)
            known = formats.get(time_column)
            # Rows to be answered have happened when they come, by whatever clock.
            if time_column and not self._now:
                check_not_ahead(instants(table, time_column, datetime_format=known), time_column)
            joined = join_features(table, features, group, time_column=time_column, time_format=known)
            table = joined.table
            missing.append(joined.num_missing)
        return table, missing

    def _unmatched(self, group: FeatureGroup, num_missing: int, *, num_rows: int) -> list[str]:
        if num_rows and num_missing == num_rows:
            when = f" up to {(self._time_column or group.timestamp)!r}" if group.timestamp else ""
            raise DataError(
                f"Expected rows with a match in the feature group {group.title!r}, but none of {num_rows:,} has a key "
                f"{group.key!r} in it{when}; look at the key and the times."
            )
        return [f"{num_missing:,} of {num_rows:,} rows have no match in {group.title}."] if num_missing else []

    def _joined(self, fingerprint: str) -> str:
        prints = [fingerprint, *(group.blake3 for group, _ in self._groups)]
        return content_hash("\n".join(prints).encode())

    @property
    def _group_prints(self) -> tuple[FilePrint, ...]:
        return tuple(
            FilePrint(name=f"feature group {group.title}", num_bytes=features.nbytes, blake3=group.blake3)
            for group, features in self._groups
        )

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
