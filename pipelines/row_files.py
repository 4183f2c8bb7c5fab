"""Files that a table is memory-mapped from, and where in them its values lie."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a file.

    Attributes:
        path: The file.
        offset: Where the part begins, in bytes.
        length: Its bytes; 0 stands for the whole file.
    """

    path: str
    offset: int = 0
    length: int = 0


@final
class RowFiles:
    """Mapped files that are removed when this is let go of, or the process ends, unless they were moved.

    Args:
        folder: The folder of the files, which is removed too.
        paths: The files, in Arrow's stream format.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._paths = tuple(paths)
        self._mapped = [pa.memory_map(str(path)) for path in paths]
        # A view of all of a mapped file, which copies nothing: where the file begins in memory.
        self._whole = [mapped.read_buffer(mapped.size()) for mapped in self._mapped]

    def tables(self) -> tuple[pa.Table, ...]:
        """Return the rows of each file, mapped."""
        return tuple(pa.ipc.open_stream(whole).read_all() for whole in self._whole)

    def parts_of(self, column: pa.ChunkedArray) -> list[FilePart]:
        """Return where each value of a column of bytes lies, by the name of the file; nowhere for one without bytes.

        Args:
            column: A column of `tables`, or a part of one.

        Raises:
            ValueError: It is a copy.
        """
        return [part for chunk in column.chunks for part in self._parts_of_chunk(chunk)]

    def _parts_of_chunk(self, chunk: pa.Array) -> list[FilePart]:
        if chunk.type == pa.null() or not len(chunk):
            return [FilePart("")] * len(chunk)
        _, ends, content = chunk.buffers()
        kind = np.dtype(np.int64 if pa.types.is_large_binary(chunk.type) else np.int32)
        places = np.frombuffer(ends, kind, len(chunk) + 1, chunk.offset * kind.itemsize).astype(np.int64)
        if places[0] == places[-1]:
            return [FilePart("")] * len(chunk)
        for path, whole in zip(self._paths, self._whole, strict=True):
            begin = content.address - whole.address
            if begin >= 0 and begin + content.size <= whole.size:
                lengths = np.diff(places).tolist()
                return [
                    FilePart(path.name, begin + place, length)
                    for place, length in zip(places.tolist(), lengths, strict=False)
                ]
        raise ValueError("the column is a copy: expected one that is mapped from the files")

    def move(self, folder: Path) -> None:
        """Move the files, under their names.

        Args:
            folder: Where they stay.
        """
        for path in self._paths:
            shutil.move(path, folder / path.name)
