"""From what a user names, paths, patterns, folders and URLs, to the files that make one table."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from pipelines.addresses import is_url, shown_place
from pipelines.errors import DataError, suggest_name
from pipelines.sources.formats import ARCHIVES, FORMATS
from pipelines.sources.stored_file import StoredFile, filesystem_of

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_PATTERN = ("*", "?", "[")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    """Files that make one table.

    Attributes:
        files: The files, in the order of their names.
        ending: Key of ``FORMATS``.
        sheet: What stood behind ``#`` of a workbook.
    """

    files: tuple[StoredFile, ...]
    ending: str
    sheet: str = ""


def find_files(places: Sequence[str], *, max_bytes: int = 0) -> FileSet:
    """Return the files that paths, patterns, folders and URLs name.

    Args:
        places: What the user gave, at least one. A folder stands for all files of known endings in it; names such as
            ``year=2024`` of its folders become columns.
        max_bytes: How large a file may be; 0 for the automatic limit on what is unpacked.

    Raises:
        DataError: Nothing is found, or the files are of several formats.
    """
    sheet = ""
    files: list[StoredFile] = []
    for place in places:
        path, separator, behind = place.rpartition("#")
        if separator and ending_of(path) in (".xlsx", ".xlsm") and not Path(place).exists():
            place, sheet = path, behind
        if place.startswith("file://"):
            place = unquote(urlparse(place).path)
        found = _found_remotely(place) if is_url(place) else _found_here(place)
        files += [StoredFile(name, partitions, max_bytes) for name, partitions in found]
    # The columns of one format and those of another have different types.
    formats = {ending: FORMATS[ending] for ending in (known_ending(file.name) for file in files)}
    if len({id(kind) for kind in formats.values()}) > 1:
        examples = [next(file.name for file in files if ending_of(file.name) == ending) for ending in formats]
        raise DataError(
            f"Expected files of one format, received {', '.join(map(repr, examples[:3]))}; read them separately."
        )
    names = [tuple(name for name, _ in file.partitions) for file in files]
    if len(set(names)) > 1:
        odd = next(file for file, found_names in zip(files, names, strict=True) if found_names != names[0])
        raise DataError(
            f"Expected folders of the same names in every file's path, but {odd.name!r} has others than "
            f"{files[0].name!r}."
        )
    return FileSet(files=tuple(files), ending=next(iter(formats)), sheet=sheet)


def ending_of(name: str) -> str:
    """Return the ending of a file's name in small letters, without .gz or .zst.

    Args:
        name: A path or URL.
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if len(suffixes) > 1 and suffixes[-1] in ARCHIVES:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def known_ending(name: str) -> str:
    """Return the ending of a file's name, which is a key of ``FORMATS``.

    Args:
        name: A path or URL.

    Raises:
        DataError: It is not known.
    """
    ending = ending_of(name)
    # TFRecord shards are named data.tfrecord-00000-of-00010.
    ending = ".tfrecord" if ending.startswith(".tfrecord-") else ending
    if ending in FORMATS:
        return ending
    raise DataError(
        f"Expected a file that ends in one of {', '.join(FORMATS)} (or with {' or '.join(ARCHIVES)} added), received "
        f"{name!r}.{suggest_name(ending, FORMATS) if ending else ''} Rename or convert it."
    )


_Found = list[tuple[str, tuple[tuple[str, str | None], ...]]]


def _found_here(place: str) -> _Found:
    path = Path(place)
    if path.is_dir():
        names = [str(file) for file in sorted(path.rglob("*")) if file.is_file()]
        return _of_folder(place, [os.path.relpath(name, place) for name in names], joined=os.path.join)
    if not path.exists() and any(mark in place for mark in _PATTERN):
        names = [name for name in sorted(glob.glob(place, recursive=True)) if Path(name).is_file()]
        if not names:
            raise DataError(f"No file matches {place!r}; quote the pattern, and look at its folder.")
        return [(name, ()) for name in names]
    return [(place, ())]


def _found_remotely(place: str) -> _Found:
    filesystem, path = filesystem_of(place)
    scheme = place.split("://")[0]
    try:
        if any(mark in path for mark in ("*", "[")):
            names = sorted(filesystem.glob(path))
            if not names:
                raise DataError(f"No file matches {shown_place(place)!r}.")
            return [(filesystem.unstrip_protocol(name), ()) for name in names]
        # A web server has no folders to list.
        if not scheme.startswith("http") and filesystem.isdir(path):
            names = [os.path.relpath(name, path) for name in sorted(filesystem.find(path))]
            return _of_folder(place, names, joined=lambda folder, name: f"{folder.rstrip('/')}/{name}")
    except DataError:
        raise
    except Exception as error:  # each file system has errors of its own, and their texts repeat the URL
        raise DataError(
            f"{shown_place(place)!r} cannot be listed ({type(error).__name__}); look at the address and at the "
            "credentials of the environment."
        ) from None
    return [(place, ())]


def _of_folder(folder: str, names: list[str], *, joined: Callable[[str, str], str]) -> _Found:
    found: _Found = []
    for name in names:
        parts = PurePosixPath(name.replace(os.sep, "/")).parts
        # What begins so is no data by the custom of Spark and Hive: _SUCCESS, _metadata, .crc.
        if any(part.startswith(("_", ".")) for part in parts):
            continue
        partitions = [part.partition("=") for part in parts[:-1] if "=" in part]
        found.append((joined(folder, name), tuple((key, _partition(value)) for key, _, value in partitions)))
    known = [(name, partitions) for name, partitions in found if _is_known(name)]
    if not known:
        raise DataError(
            f"Expected files that end in one of {', '.join(FORMATS)} in the folder {shown_place(folder)!r}, but there "
            "are none; name a file, or a pattern such as 'part-*.csv'."
        )
    return known


def _is_known(name: str) -> bool:
    try:
        known_ending(name)
    except DataError:
        return False
    return True


def _partition(text: str) -> str | None:
    return None if text == _NO_PARTITION else unquote(text)
