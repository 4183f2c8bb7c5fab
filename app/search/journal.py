"""The journal: append-only JSON lines, the only memory a search needs.

A line is complete when its newline is there. A process that is killed, a full disk or a power cut can leave one torn
line, always the last; it is ignored on reading and cut off on reopening. Numbers that are not finite are written as
null, since JSON has none.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast, final

VERSION = 1

_DECODER = json.JSONDecoder()

Record = dict[str, object]


class JournalError(ValueError):
    """The journal cannot be read; the message says where and what to do."""


@final
class Journal:
    """An open journal; use `Journal.open`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = file.tell()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, end: int | None = None) -> Journal:
        """Open for appending; a new file gets its first record, an old one loses a torn tail.

        Args:
            path: the file.
            end: where its last complete record ends, in bytes, if the caller has just read it; None reads it here.

        Raises:
            JournalError: a broken line that is not the last, or a journal from a newer version.
            OSError: the file cannot be opened or written.
        """
        place = Path(path)
        if end is None:
            end = max((end for _, end in replay(place)), default=0) if place.exists() else 0
        file = cast(BinaryIO, place.open("r+b" if place.exists() else "x+b", buffering=0))
        try:
            file.truncate(end)
            file.seek(end)
            journal = cls(file)
            if not end:
                journal.append({"event": "journal", "version": VERSION}, durable=True)
                _sync_directory(place.parent)
        except BaseException:
            file.close()
            raise
        return journal

    def append(self, record: Mapping[str, object], *, durable: bool = False) -> None:
        """Write one record as one line.

        Args:
            record: JSON types only; NaN and infinities become null.
            durable: also wait until the disk has it (a trial's start and end). Otherwise the line survives the death of
                this process, but perhaps not that of the machine.

        Raises:
            OSError: the disk is full or gone; the journal is left without the record.
        """
        line = json.dumps(_without_nan(record), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
            if durable:
                os.fsync(self._file.fileno())
        except BaseException:
            # Half a line must not be glued to the next record.
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end += len(line)

    def close(self) -> None:
        """Put everything on the disk and close the file."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> list[Record]:
    """All complete records, the first being {"event": "journal", "version": 1}; a torn last line is left out.

    Raises:
        JournalError: a broken line that is not the last, or a journal from a newer version.
        OSError: the file cannot be read.
    """
    return [record for record, _ in replay(path)]


def replay(path: str | os.PathLike[str]) -> Iterator[tuple[Record, int]]:
    """The records of `read` one after the other, and where in the file each ends, in bytes.

    A long journal need not be in memory as a whole.

    Raises:
        JournalError: a broken line that is not the last, or a journal from a newer version.
        OSError: the file cannot be read.
    """
    place = Path(path)
    with place.open("rb") as file:
        yield from _records(file, place)


def _records(file: BinaryIO, path: Path) -> Iterator[tuple[Record, int]]:
    """Each record, and where in the file it ends."""
    end = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return  # torn
        record = _record(line)
        if record is None:
            if not file.read(1):
                return
            raise JournalError(
                f"Line {number} of {path} is broken: expected a JSON object, got {line.rstrip()[:60]!r}. "
                "Only the last line may be torn; restore the file from a copy, or cut it before this line."
            )
        if number == 1:
            _check_header(record, path)
        end += len(line)
        yield record, end


def _record(line: bytes) -> Record | None:
    try:
        record = _DECODER.decode(line.decode())
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _check_header(record: Record, path: Path) -> None:
    version = record.get("version")
    if record.get("event") != "journal" or not isinstance(version, int):
        raise JournalError(f"{path} is not a journal of tamiz: its first line is {record!r}.")
    if version > VERSION:
        raise JournalError(
            f"{path} has version {version}; this tamiz reads versions up to {VERSION}. "
            "Install the newer tamiz that wrote it."
        )


def _without_nan(content: object) -> object:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _without_nan(item) for key, item in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(item) for item in content]
    return content


def _sync_directory(directory: Path) -> None:
    """Make the new file's name durable as well as its content."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
