"""The images of a table: paths become the bytes of the files, and what cannot be decoded is found at once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import has_bytes, is_bytes, require_column
from pipelines.errors import DataError, list_names
from pipelines.image_headers import BrokenImageError, ImageHeader, looks_like_image, read_header
from pipelines.image_references import (
    READ_THREADS,
    ImageFile,
    content_digest,
    content_digests,
    image_file_column,
    is_image_file,
)
from pipelines.row_files import FilePart, RowFiles
from pipelines.sources.image_folder import names_image
from pipelines.sources.source import SourceTable

PATH_COLUMN = "__tamiz_path__"
"""Column beside the images that says where each came from: a path, or a row of the source."""

BROKEN_SHARE = 0.01
"""Images that cannot be decoded are left out up to this share; more are an error."""

_LOOK_AT = 200
_MOST = 0.9


@dataclass(frozen=True, slots=True)
class _Image:
    """One image that was looked at; it has a header unless it has a problem, and its bytes where they are kept."""

    sha256: bytes
    digest: int = 0
    header: ImageHeader | None = None
    content: bytes = b""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """A column of images, where each came from, and where they stay; none where their bytes are held."""

    name: str
    images: list[_Image]
    places: list[str]
    parts: list[FilePart] | None = None

    @property
    def broken(self) -> list[int]:
        """Rows whose image cannot be decoded."""
        return [row for row, image in enumerate(self.images) if image.header is None]

    def column(self, rows: Sequence[int]) -> pa.Array:
        """Return the images of rows that are not broken."""
        if self.parts is None:
            return pa.array([self.images[row].content for row in rows], pa.large_binary())
        found = [(self.parts[row], self.images[row].digest, self.images[row].header) for row in rows]
        return image_file_column(
            [
                ImageFile(path=part.path, offset=part.offset, length=part.length, digest=digest, header=header)
                for part, digest, header in found
                if header is not None
            ]
        )


def with_images(
    source: SourceTable, *, kinds: Mapping[str, str], in_memory: float = math.inf, files: RowFiles | None = None
) -> SourceTable:
    """Return a table whose column of images, if it has one, holds their bytes, or says where they are.

    A column holds images when it is bytes that begin as one does, or text that names image files in the folder of the
    table. Images that are absent or cannot be decoded are left out, up to `BROKEN_SHARE`. Every image is read once,
    however many there are.

    Args:
        source: What was read.
        kinds: What the user says of columns: ``image`` for a column of images, any other kind for one that is none.
        in_memory: Bytes of images beyond which they stay on disk; see `pipelines.image_references`.
        files: The files that the table is mapped from, if it is; images that are bytes stay in them, and paths are the
            names of these files.

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
    found = _looked_at(source, names[0], in_memory=in_memory, files=files)
    notes = _checked_problems(found)
    kept = np.setdiff1d(np.arange(source.table.num_rows), found.broken)
    place = source.table.column_names.index(found.name)
    # The images first: to take rows is to copy them.
    table = source.table.set_column(place, found.name, pa.nulls(source.table.num_rows)).take(pa.array(kept))
    table = table.set_column(place, found.name, found.column(kept.tolist()))
    table = table.append_column(PATH_COLUMN, pa.array([found.places[row] for row in kept], pa.string()))
    return replace(
        source,
        table=table,
        fingerprint=_fingerprint(source, found),
        notes=(*source.notes, *notes, *_animations(found)),
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
    source = SourceTable(table=table, description="", fingerprint="", folder=folder)
    found = _looked_at(source, name, in_memory=math.inf)
    if found.broken:
        row = found.broken[0]
        raise DataError(
            f"Expected images that can be decoded in column {name!r}, but {len(found.broken):,} of "
            f"{table.num_rows:,} cannot, the first {found.places[row]!r} in row {row + 1:,}: "
            f"{found.images[row].problem}; mend or remove them."
        )
    return table.set_column(table.column_names.index(name), name, found.column(range(table.num_rows)))


def names_images(first: pa.Table, *, kinds: Mapping[str, str]) -> bool:
    """Return whether a table has a column of paths of images.

    Args:
        first: Its first rows.
        kinds: What the user says of columns, as for `with_images`.
    """
    source, names = _image_columns(SourceTable(table=first, description="", fingerprint=""), kinds)
    return any(_is_text(source.table.schema.field(name).type) for name in names)


def image_column(table: pa.Table) -> str | None:
    """Return the column of images of a table that `with_images` returned; None where there is none.

    Args:
        table: The rows.
    """
    if PATH_COLUMN not in table.column_names:
        return None
    before: list[str] = table.column_names[: table.column_names.index(PATH_COLUMN)]
    for name in before:
        column = table.column(name)
        if is_image_file(column.type):
            return name
        if pa.types.is_large_binary(column.type) and looks_like_image(column[0].as_py() or b""):
            return name
    return None


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
    return content_digests(table.column(name))


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
        return has_bytes(column.type)
    present = _first_values(column)
    if kind == "image" and not (is_bytes(column.type) or _is_text(column.type)):
        raise DataError(f"Column {name!r} is {column.type}, which cannot be used as image: expected bytes or paths.")
    if kind == "image":
        return True
    if not present or not (is_bytes(column.type) or _is_text(column.type)):
        return False
    looks: Callable[[Any], bool] = looks_like_image if is_bytes(column.type) else names_image
    return sum(map(looks, present)) >= _MOST * len(present)


def _first_values(column: pa.ChunkedArray) -> list[Any]:
    """Return the first values that are there; the column, which may be larger than memory, is not copied."""
    found: list[Any] = []
    for start in range(0, len(column), _LOOK_AT):
        found += column.slice(start, _LOOK_AT).drop_null().slice(0, _LOOK_AT - len(found)).to_pylist()
        if len(found) == _LOOK_AT:
            break
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _looked_at(source: SourceTable, name: str, *, in_memory: float, files: RowFiles | None = None) -> _Found:
    """Read every image of a column once."""
    column = source.table.column(name)
    if _is_text(column.type):
        return _from_files(source, name, in_memory=in_memory)
    places = [f"row {row + 1:,}" for row in range(len(column))]
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    stay = files is not None and column.nbytes > in_memory
    with ThreadPoolExecutor(READ_THREADS) as pool:
        images = list(pool.map(partial(_of_value, keep=not stay), column))
    return _Found(name, images, places, files.parts_of(column) if files is not None and stay else None)


def _of_value(value: pa.Scalar, *, keep: bool) -> _Image:
    image = _image(value.as_py() or b"")
    return image if keep else replace(image, content=b"")


def _from_files(source: SourceTable, name: str, *, in_memory: float) -> _Found:
    """Read the files that a column names; a path that leaves the folder is refused before any is read."""
    root = Path(source.folder or ".").resolve()
    texts = source.table.column(name).to_pylist()
    paths = [None if text is None else root / text for text in texts]
    for row, (text, path) in enumerate(zip(texts, paths, strict=True)):
        if path is not None and _leads_out(path, root):
            raise DataError(
                f"Expected images in the folder {str(root)!r}, but {text!r} in row {row + 1:,} of column {name!r} "
                "leads out of it; copy the images into the folder."
            )
    places = [f"row {row + 1:,}" if text is None else text for row, text in enumerate(texts)]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        stay = sum(pool.map(_num_bytes, paths)) > in_memory
        read = partial(_read, keep=not stay)
        images = list(pool.map(read, paths))
    return _Found(name, images, places, [FilePart(str(path)) for path in paths] if stay else None)


def _leads_out(path: Path, root: Path) -> bool:
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):
        return False  # links in a circle, or a zero byte: it leads nowhere, and is told when it is read


def _num_bytes(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_size
    except (OSError, ValueError):
        return 0


def _read(path: Path | None, *, keep: bool) -> _Image:
    if path is None:
        return _nothing("no path is given")
    try:
        image = _image(path.read_bytes())
    except FileNotFoundError:
        return _nothing("there is no such file")
    except OSError as error:
        return _nothing(f"it cannot be read: {error.strerror}")
    except ValueError:
        return _nothing("it is no path")
    return image if keep else replace(image, content=b"")


def _nothing(problem: str) -> _Image:
    return _Image(hashlib.sha256().digest(), problem=problem)


def _image(content: bytes) -> _Image:
    sha256 = hashlib.sha256(content).digest()
    try:
        return _Image(sha256, content_digest(content), read_header(content), content)
    except BrokenImageError as error:
        return _Image(sha256, problem=str(error))


def _checked_problems(found: _Found) -> list[str]:
    """Return a sentence on what is left out.

    Raises:
        DataError: It is more than may be.
    """
    broken, total = len(found.broken), len(found.images)
    if not broken:
        return []
    told: dict[str, list[str]] = {}
    for row in found.broken[:3]:
        told.setdefault(found.images[row].problem, []).append(repr(found.places[row]))
    first = "; ".join(f"{', '.join(names)}: {problem}" for problem, names in told.items())
    if broken > BROKEN_SHARE * total:
        raise DataError(
            f"Expected images that can be decoded, but {broken:,} of {total:,} in column {found.name!r} cannot, such "
            f"as {first}; mend or remove them (up to {BROKEN_SHARE:.0%} are left out)."
        )
    return [f"{broken:,} of {total:,} images cannot be decoded and are left out: {first}."]


def _animations(found: _Found) -> list[str]:
    """Return a sentence on images of several frames."""
    headers = [(row, image.header) for row, image in enumerate(found.images)]
    moving = [found.places[row] for row, header in headers if header is not None and header.is_animated]
    if not moving:
        return []
    if len(moving) == 1:
        return [f"{moving[0]!r} is an animation; its first frame counts."]
    return [f"{len(moving):,} images are animations, such as {moving[0]!r}; the first frame counts."]


def _fingerprint(source: SourceTable, found: _Found) -> str:
    """Return that of a table whose images are in it, else a SHA-256 of the table and of all images, in their order."""
    if not _is_text(source.table.schema.field(found.name).type):
        return source.fingerprint
    digest = hashlib.sha256(source.fingerprint.encode())
    for image in found.images:
        digest.update(image.sha256)
    return digest.hexdigest()
