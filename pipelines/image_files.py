"""The images of a table: paths become the bytes of the files, and what cannot be decoded is found at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import is_bytes, require_column
from pipelines.errors import DataError, list_names
from pipelines.image_headers import BrokenImageError, looks_like_image, read_header
from pipelines.sources.image_folder import IMAGE_ENDINGS
from pipelines.sources.source import SourceTable

PATH_COLUMN = "__tamiz_path__"
"""Column beside the images that says where each came from: a path, or a row of the source."""

BROKEN_SHARE = 0.01
"""Images that cannot be decoded are left out up to this share; more are an error."""

_THREADS = 8
_LOOK_AT = 200
_MOST = 0.9


@dataclass(frozen=True, slots=True)
class _Found:
    """A column of images: its bytes, where each came from, and why one has none."""

    name: str
    contents: list[bytes]
    places: list[str]
    problems: dict[int, str]


def with_images(source: SourceTable, *, kinds: Mapping[str, str]) -> SourceTable:
    """Return a table whose column of images, if it has one, holds their bytes.

    A column holds images when it is bytes that begin as one does, or text that names image files in the folder of the
    table. Images that are absent or cannot be decoded are left out, up to `BROKEN_SHARE`.

    Args:
        source: What was read.
        kinds: What the user says of columns: ``image`` for a column of images, any other kind for one that is none.

    Raises:
        DataError: There are several columns of images, paths leave the folder, or too many images are broken.
    """
    source, names = _image_columns(source, kinds)
    if len(names) > 1:
        raise DataError(
            f"Expected one column of images, received {list_names(names)}; drop the others "
            f"(--feature {names[1]}=ignore)."
        )
    if not names:
        return source
    found = _loaded(source, names[0])
    _read_headers(found)
    notes = _checked_problems(found)
    kept = np.setdiff1d(np.arange(source.table.num_rows), list(found.problems))
    images = pa.array([found.contents[row] for row in kept], pa.large_binary())
    table = source.table.take(pa.array(kept))
    table = table.set_column(table.column_names.index(found.name), found.name, images)
    table = table.append_column(PATH_COLUMN, pa.array([found.places[row] for row in kept], pa.string()))
    return replace(
        source, table=table, fingerprint=_fingerprint(source, found.contents), notes=(*source.notes, *notes)
    )


def with_image_bytes(table: pa.Table, name: str, *, folder: str) -> pa.Table:
    """Return a table whose column of images holds their bytes, for a model that knows the column; no row is left out.

    Args:
        table: The rows; bytes, or paths in the folder.
        name: The column of images.
        folder: The folder that paths are relative to; "" for where the program runs.

    Raises:
        DataError: The column is absent, a path leaves the folder, or an image cannot be decoded.
    """
    require_column(table, name, role="column")
    found = _loaded(SourceTable(table=table, description="", fingerprint="", folder=folder), name)
    _read_headers(found)
    if found.problems:
        row = min(found.problems)
        raise DataError(
            f"Expected images that can be decoded in column {name!r}, but {len(found.problems):,} of "
            f"{table.num_rows:,} cannot, the first {found.places[row]!r} in row {row + 1:,}: {found.problems[row]}; "
            "mend or remove them."
        )
    images = pa.array(found.contents, pa.large_binary())
    return table.set_column(table.column_names.index(name), name, images)


def image_column(table: pa.Table) -> str | None:
    """Return the column of images of a table that `with_images` returned; None where there is none.

    Args:
        table: The rows.
    """
    if PATH_COLUMN not in table.column_names:
        return None
    before: list[str] = table.column_names[: table.column_names.index(PATH_COLUMN)]
    found = [name for name in before if pa.types.is_large_binary(table.schema.field(name).type)]
    return next(name for name in found if looks_like_image(table.column(name)[0].as_py() or b""))


def split_content(table: pa.Table, image: str, *, roles: Sequence[str | None]) -> pa.Table:
    """Return what rows are split by: the image alone makes a row what it is, whatever stands beside it.

    The column has the same name wherever the images come from, so that the same images are split alike.

    Args:
        table: The rows.
        image: The column of images.
        roles: Target, group and time column; None for one that there is not.
    """
    found = table.select([name for name in dict.fromkeys(filter(None, roles)) if name != image])
    return found.append_column(PATH_COLUMN, table.column(image))


def image_hashes(table: pa.Table, name: str) -> NDArray[np.uint64]:
    """Return a hash of every image's bytes, ``(num_rows,)``.

    Args:
        table: The rows.
        name: The column of images.
    """
    digests = (hashlib.blake2b(value.as_py(), digest_size=8).digest() for value in table.column(name))
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def kept_together(
    splits: NDArray[np.int8], hashes: NDArray[np.uint64], labels: NDArray[np.generic]
) -> NDArray[np.int8]:
    """Return splits in which equal images are in one: those that were in several, or have several labels, train.

    Equal images have equal ranks and so mostly one split, but each class is cut by itself, and an image with two labels
    is in two classes.

    Args:
        splits: ``Split`` values of shape ``(num_rows,)``.
        hashes: Hash of every row's image, ``(num_rows,)``.
        labels: Target of every row, ``(num_rows, ...)``.
    """
    _, image = np.unique(hashes, return_inverse=True)
    in_several = _num_distinct(image, splits) > 1
    return np.where((in_several | (_num_distinct(image, labels) > 1))[image], np.int8(0), splits)


def duplicate_notes(
    hashes: NDArray[np.uint64], labels: NDArray[np.generic], places: pa.ChunkedArray, *, together: bool = True
) -> list[str]:
    """Return sentences on images that are there more than once, and on those of them whose labels differ.

    Args:
        hashes: Hash of every row's image, ``(num_rows,)``.
        labels: Target of every row, ``(num_rows, ...)``.
        places: Where every image came from.
        together: Whether equal images were kept in one split.
    """
    _, image, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    repeated = int((counts > 1).sum())
    if not repeated:
        return []
    rows = int(counts[counts > 1].sum())
    where = "; each stays in one split" if together else ""
    notes = [f"{repeated:,} images are there more than once, in {rows:,} rows{where}."]
    several = np.flatnonzero(_num_distinct(image, labels) > 1)
    if several.size:
        first = np.flatnonzero(image == several[0])
        names = list_names([places[int(row)].as_py() for row in first], limit=3)
        notes.append(
            f"{several.size:,} images have labels that differ, such as {names}, which are the same picture"
            f"{'; all of them are training rows' if together else ''}."
        )
    return notes


def _num_distinct(image: NDArray[np.intp], labels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return how many different labels each image has, ``(num_images,)``."""
    _, label = np.unique(labels, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([image, label.reshape(-1)], axis=1), axis=0)
    return np.bincount(pairs[:, 0])


def _image_columns(source: SourceTable, kinds: Mapping[str, str]) -> tuple[SourceTable, list[str]]:
    """Return the columns of images, and the table without the names of files whose bytes stand beside them."""
    names = [name for name in source.table.column_names if _holds_images(source, name, kinds.get(name))]
    paths = [name for name in names if kinds.get(name) != "image" and _is_text(source.table.schema.field(name).type)]
    if not paths or len(paths) == len(names):
        return source, names
    note = f"Left out: {list_names(paths)}, which names files of images that are there."
    table = source.table.drop_columns(paths)
    return replace(source, table=table, notes=(*source.notes, note)), [name for name in names if name not in paths]


def _holds_images(source: SourceTable, name: str, kind: str | None) -> bool:
    column = source.table.column(name)
    if kind is not None and kind != "image":
        return False
    if pa.types.is_struct(column.type):
        fields = {field.name: field.type for field in column.type}
        return is_bytes(fields.get("bytes", pa.null()))
    present = column.drop_null().slice(0, _LOOK_AT).to_pylist()
    if kind == "image" and not (is_bytes(column.type) or _is_text(column.type)):
        raise DataError(f"Column {name!r} is {column.type}, which cannot be used as image: expected bytes or paths.")
    if kind == "image":
        return True
    if is_bytes(column.type):
        return bool(present) and all(map(looks_like_image, present))
    if not _is_text(column.type) or not present:
        return False
    named = sum(Path(text).suffix.lower() in IMAGE_ENDINGS for text in present)
    return named >= _MOST * len(present)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _loaded(source: SourceTable, name: str) -> _Found:
    column = source.table.column(name)
    if _is_text(column.type):
        return _from_files(source, name)
    places = [f"row {row + 1:,}" for row in range(len(column))]
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    contents = [value.as_py() or b"" for value in column]
    return _Found(name, contents, places, {})


def _from_files(source: SourceTable, name: str) -> _Found:
    """Read the files that a column names; a path that leaves the folder is refused before any is read."""
    root = Path(source.folder or ".").resolve()
    texts = source.table.column(name).to_pylist()
    paths = [None if text is None else root / text for text in texts]
    for row, (text, path) in enumerate(zip(texts, paths, strict=True)):
        if path is not None and not path.resolve().is_relative_to(root):
            raise DataError(
                f"Expected images in the folder {str(root)!r}, but {text!r} in row {row + 1:,} of column {name!r} "
                "leads out of it; copy the images into the folder."
            )
    problems: dict[int, str] = {}
    contents: list[bytes] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for row, (content, problem) in enumerate(_in_order(pool, paths)):
            contents.append(content)
            if problem:
                problems[row] = problem
    places = [f"row {row + 1:,}" if text is None else text for row, text in enumerate(texts)]
    return _Found(name, contents, places, problems)


def _in_order(pool: ThreadPoolExecutor, paths: Sequence[Path | None]) -> Iterator[tuple[bytes, str]]:
    yield from pool.map(_read, paths)


def _read(path: Path | None) -> tuple[bytes, str]:
    if path is None:
        return b"", "no path is given"
    try:
        return path.read_bytes(), ""
    except FileNotFoundError:
        return b"", "there is no such file"
    except OSError as error:
        return b"", f"it cannot be read: {error.strerror}"


def _read_headers(found: _Found) -> None:
    """Add what is wrong with the images that were read to their problems."""
    for row, content in enumerate(found.contents):
        if row not in found.problems:
            try:
                read_header(content)
            except BrokenImageError as error:
                found.problems[row] = str(error)


def _checked_problems(found: _Found) -> list[str]:
    """Return a sentence on what is left out.

    Raises:
        DataError: It is more than may be.
    """
    broken, total = len(found.problems), len(found.contents)
    if not broken:
        return []
    rows = sorted(found.problems)
    first = "; ".join(f"{found.places[row]!r}: {found.problems[row]}" for row in rows[:3])
    if broken > BROKEN_SHARE * total:
        raise DataError(
            f"Expected images that can be decoded, but {broken:,} of {total:,} in column {found.name!r} cannot, such "
            f"as {first}; mend or remove them (up to {BROKEN_SHARE:.0%} are left out)."
        )
    return [f"{broken:,} of {total:,} images cannot be decoded and are left out: {first}."]


def _fingerprint(source: SourceTable, contents: Sequence[bytes]) -> str:
    """Return a SHA-256 of the table and of all images, in their order."""
    digest = hashlib.sha256(source.fingerprint.encode())
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
