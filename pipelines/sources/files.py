"""Tables in files: one or many, plain or packed, in folders, behind patterns or URLs."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa

from pipelines.addresses import is_url, shown_place
from pipelines.content_hash import content_hash, stream_hash
from pipelines.errors import DataError
from pipelines.sources.csv_file import convert_text
from pipelines.sources.file_format import Content, check_same_columns
from pipelines.sources.formats import FORMATS, SPARSE, SparseFormat
from pipelines.sources.options import ReadOptions
from pipelines.sources.places import FileSet, find_files
from pipelines.sources.source import FilePrint, Loaded, Source, complete, wanted_columns
from pipelines.sources.stored_file import StoredFile

_GROWTH = {".parquet": 5, ".feather": 2, ".arrow": 1}
"""About how many times its size a file takes in memory; 1 for text, whose numbers are about as long as 8 bytes."""


@final
class FileSource(Source):
    """Files of one format as one table.

    Args:
        places: Paths, patterns such as ``part-*.csv``, folders or URLs that fsspec opens.
        max_bytes: How large a file may be, also when it is unpacked; 0 for the automatic limit on what is unpacked.

    Raises:
        DataError: No place is given.
    """

    def __init__(self, places: Sequence[str], *, max_bytes: int = 0) -> None:
        if not places:
            raise DataError("Expected data: name a file, a folder, a pattern or a URL.")
        self._places, self._max_bytes = tuple(places), max_bytes

    @property
    def name(self) -> str:
        """The place, or the first of several."""
        first = shown_place(self._places[0])
        return first if len(self._places) == 1 else f"{first} and {len(self._places) - 1:,} more"

    @property
    def folder(self) -> str:
        """The folder of the first file; "" for a URL."""
        place = self._set.files[0].place
        return "" if is_url(place) else str(Path(place).parent)

    @property
    def is_stored(self) -> bool:
        """They do."""
        return True

    @property
    def has_fixed_columns(self) -> bool:
        """Not those whose rows may leave columns out."""
        return self._set.ending not in SPARSE

    @cached_property
    def _set(self) -> FileSet:
        return find_files(self._places, max_bytes=self._max_bytes)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files that the places stand for.

        Raises:
            DataError: Nothing is found, or the files are of several formats.
        """
        return self._set.files

    def num_bytes(self) -> int | None:
        """Return an estimate by the size of the files and how tightly their format packs."""
        total = 0
        for file in self._set.files:
            with file.opened() as stored:
                total += stored.seek(0, io.SEEK_END) * (_GROWTH.get(self._set.ending, 1) if not file.is_packed() else 6)
        return total

    def prints(self) -> tuple[str, tuple[FilePrint, ...]]:
        """Return the hashes of the files, read a block at a time."""
        found = []
        for file in self._set.files:
            with file.unpacked() as content:
                blake3, num_bytes = stream_hash(content)
            found.append(FilePrint(name=file.name, num_bytes=num_bytes, blake3=blake3))
        return _joined(found), tuple(found)

    def remarks(self) -> tuple[str, ...]:
        """Return how many files there are, if there are several."""
        num_files = len(self._set.files)
        return (f"{num_files:,} files were read as one table.",) if num_files > 1 else ()

    def load(self, options: ReadOptions) -> Loaded:
        """Read all files."""
        options = self._complete(options)
        prints: list[FilePrint] = []

        def contents() -> Iterator[Content]:
            for file in self._set.files:
                data = file.read()
                prints.append(FilePrint(name=file.name, num_bytes=len(data), blake3=content_hash(data)))
                yield Content(file.name, data)

        parsed = FORMATS[self._set.ending].parse(contents(), options)
        table = self._with_partitions(parsed.table, parsed.part_rows, options)
        notes = (*self.remarks(), *parsed.notes)
        return Loaded(
            parsed=replace(parsed, table=table, notes=notes), fingerprint=_joined(prints), files=tuple(prints)
        )

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file after the other."""
        options = self._complete(options)
        file_format = FORMATS[self._set.ending]
        partitions = [name for name, _ in self._set.files[0].partitions]
        inside = None if columns is None else [name for name in columns if name not in partitions]
        sparse = SPARSE.get(self._set.ending)
        known = None if sparse is None else self._names_of(sparse, inside)
        names: list[str] = []
        for number, file in enumerate(self._set.files):
            for table in file_format.stream(file, options, columns=inside, chunk_rows=chunk_rows):
                if known is not None:
                    table = complete(table, wanted_columns(known, inside))
                names = names or table.column_names
                if table.column_names != names:
                    check_same_columns(names, table.column_names, first=self._set.files[0].name, other=file.name)
                    table = table.select(names)
                rows = np.zeros(len(self._set.files), np.int64)
                rows[number] = table.num_rows
                table = self._with_partitions(table, tuple(rows.tolist()), options)
                yield table.select(wanted_columns(table.column_names, columns))

    def _names_of(self, sparse: SparseFormat, wanted: Collection[str] | None) -> list[str]:
        """Return the columns of all files together, as `load` has them; the first, if they have all wanted."""
        names: dict[str, None] = {}
        for file in self._set.files:
            found: dict[str, None] = {}
            with file.unpacked() as content:
                for table in sparse.tables(content, file.name):
                    found |= dict.fromkeys(table.column_names)
                    if wanted is not None and set(wanted) <= {*names, *found}:
                        return list(names | found)
            names |= dict.fromkeys(sorted(found) if sparse.by_name else found)
        return list(names)

    def _complete(self, options: ReadOptions) -> ReadOptions:
        return replace(options, sheet=self._set.sheet, max_bytes=self._max_bytes, name=self.name)

    def _with_partitions(self, table: pa.Table, part_rows: tuple[int, ...], options: ReadOptions) -> pa.Table:
        """Append the columns that the folders name; their types depend on all files, as those of a CSV file do."""
        files = self._set.files
        for number, (name, _) in enumerate(files[0].partitions):
            if name in table.column_names:
                continue  # some writers keep the column in the file as well
            texts = pa.chunked_array([pa.array([file.partitions[number][1] for file in files], pa.string())])
            keep_text = name in options.text_columns
            values = convert_text(texts, missing=pa.array([""]), decimal=".", keep_text=keep_text)
            rows = np.repeat(np.arange(len(files)), part_rows)
            table = table.append_column(name, values.take(pa.array(rows)))
        return table


def _joined(prints: Sequence[FilePrint]) -> str:
    """Return one fingerprint; that of a single file is its own, wherever it lies."""
    if len(prints) == 1:
        return prints[0].blake3
    return content_hash("\n".join(file.blake3 for file in prints).encode())
