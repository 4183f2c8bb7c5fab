"""A folder of images whose subfolders are the classes: a table of paths and labels, whose images are read later."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import final

import pyarrow as pa

from pipelines.errors import DataError, list_names
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Loaded, Parsed, Source, wanted_columns

IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".gif", ".bmp"})
"""Endings of image files, in small letters."""

FOREIGN_ENDINGS = frozenset({".webp", ".tif", ".tiff", ".heic", ".avif"})
"""Endings of images that TensorFlow cannot decode: read as images, so that their headers are told of."""

IMAGE, LABEL = "image", "label"
"""Columns of a folder of images."""

_TABLE_ENDINGS = frozenset({".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".xlsx", ".arrow", ".feather"})
_LOOK_AT = 1_000

PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
"""Names of the folders of a data set that somebody has split, in small letters."""


def is_image_folder(place: str) -> bool:
    """Return whether a place is a folder of images and not one of tables.

    Args:
        place: What the user gave.
    """
    root = Path(place)
    if not place or not root.is_dir():
        return False
    images = 0
    for number, path in enumerate(_files_below(root)):
        ending = path.suffix.lower()
        if ending in _TABLE_ENDINGS:
            return False
        images += names_image(path)
        if number >= _LOOK_AT:
            break
    return images > 0


def names_image(path: str | Path) -> bool:
    """Return whether a path ends as that of an image does, be it one that can be decoded or not.

    Args:
        path: A path.
    """
    return Path(path).suffix.lower() in IMAGE_ENDINGS | FOREIGN_ENDINGS


@final
class ImageFolderSource(Source):
    """The images of a folder, the name of the folder that each lies in as its label.

    Args:
        folder: A folder with one folder for each class; images right in it have no label.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def folder(self) -> str:
        """What the paths are relative to."""
        return str(self._folder)

    def check_classes(self) -> None:
        """Check that there are classes to tell apart, which new images need not have.

        Raises:
            DataError: All images are of one class, or of none, or the folders are the parts of a data set.
        """
        images = [name for name in self._names() if names_image(name)]
        self._check_parts(images)
        classes = {_label(name) for name in images}
        if len(classes) != 1:
            return
        (only,) = classes
        where = f"the folder {only!r}" if only else "no folder of a class"
        empty = _without_images(self._folder, images)
        raise DataError(
            f"Expected at least two folders with images in {self.name!r}, one for each class, but all {len(images):,} "
            f"images lie in {where}{f' ({list_names(empty)} without an image)' if empty else ''}; put the images of "
            f"each class into a folder of its own."
        )

    def _check_parts(self, images: list[str]) -> None:
        """Refuse a folder with ``train/cat`` and ``test/cat``, which would be two classes."""
        parts: dict[str, set[str]] = {}
        for name in images:
            part, *folders = name.split("/")[:-1] or [""]
            parts.setdefault(part, set()).add("/".join(folders))
        shared = sorted({""}.union(*parts.values()) - {""})
        twice = next((name for name in shared if sum(name in found for found in parts.values()) > 1), None)
        if twice is None or not all(part.lower() in PARTS for part in parts):
            return
        first, second = sorted(part for part, found in parts.items() if twice in found)[:2]
        largest = next((part for part in parts if part.lower().startswith("train")), first)
        raise DataError(
            f"Expected a folder for each class right in {self.name!r}, but its folders {list_names(sorted(parts))} are "
            f"parts of a data set: '{first}/{twice}' and '{second}/{twice}' would be two classes. Give one of them, "
            f"such as {str(self._folder / largest)!r}: rows to test on are set aside from it."
        )

    def load(self, options: ReadOptions) -> Loaded:
        """Return a row for each image."""
        del options
        names = self._names()
        images = [name for name in names if names_image(name)]
        if not images:
            raise DataError(
                f"Expected images ({', '.join(sorted(IMAGE_ENDINGS))}) in the folder {self.name!r}, but there are none."
            )
        notes = _notes(self._folder, images, num_others=len(names) - len(images))
        labels = [_label(name) for name in images]
        if set(labels) == {None}:
            return Loaded(parsed=Parsed(table=pa.table({IMAGE: images}), notes=notes))
        loose = [name for name, label in zip(images, labels, strict=True) if label is None]
        if loose:
            raise DataError(
                f"Expected every image of {self.name!r} in the folder of its class, but {loose[0]!r} lies beside the "
                f"classes{f', with {len(loose) - 1:,} more' if len(loose) > 1 else ''}; move or remove what lies there."
            )
        table = pa.table({IMAGE: pa.array(images, pa.string()), LABEL: pa.array(labels, pa.string())})
        return Loaded(parsed=Parsed(table=table, notes=notes))

    def _names(self) -> list[str]:
        names = [path.relative_to(self._folder).as_posix() for path in _files_below(self._folder)]
        others = [name for name in names if names_image(name) and not _is_utf8(name)]
        if others:
            shown = os.fsencode(others[0]).decode("utf-8", "backslashreplace")
            raise DataError(
                f"Expected images in {self.name!r} whose names are UTF-8, but those of {len(others):,} are in another "
                f"encoding, the first '{shown}'; rename them (convmv -f latin1 -t utf8 -r --notest FOLDER)."
            )
        return names

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield one table; it holds paths, not images."""
        del chunk_rows
        table = self.load(options).parsed.table
        yield table.select(wanted_columns(table.column_names, columns))


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in the order of their names; hidden ones are left out, links are not followed."""
    for path, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        yield from (Path(path, name) for name in sorted(names) if not name.startswith("."))


def _is_utf8(name: str) -> bool:
    """Return whether a name can be written down; bytes that are none stand for themselves in names of Python."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(name: str) -> str | None:
    """Return the class of an image: the folder right below the root, or the folders joined."""
    parent = os.path.dirname(name)
    return parent or None


def _without_images(folder: Path, images: list[str]) -> list[str]:
    """Return the folders in which there is no image, nor in one below them."""
    classes = {os.path.dirname(name) for name in images} - {""}
    above = {parent for name in classes for parent in map(str, Path(name).parents)}
    found = {
        os.path.relpath(path, folder)
        for path, subfolders, _ in os.walk(folder)
        if path != str(folder) and not any(part.startswith(".") for part in Path(path).relative_to(folder).parts)
    }
    return sorted(found - classes - above)


def _notes(folder: Path, images: list[str], *, num_others: int) -> tuple[str, ...]:
    notes = []
    if empty := _without_images(folder, images):
        notes.append(f"Without an image, and so no class: {list_names(empty)}.")
    if num_others:
        notes.append(f"{num_others:,} files that are no images are left out.")
    return tuple(notes)
