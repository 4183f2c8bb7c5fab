"""Images that stay on disk: a column that says of each where it lies and what is known of it; no TensorFlow.

Where all images together are too large to be held, this stands in their column instead of their bytes. What is
decided by it is what their bytes would decide: it has their hash and their header. An image is a file of its own, or a
part of a file of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.image_headers import ImageFormat, ImageHeader, read_header

READ_THREADS = 8
"""Files that are read at once."""

IMAGE_FILE = pa.struct(
    [
        pa.field("path", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("digest", pa.uint64()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("is_grey", pa.bool_()),
    ]
)
"""Type of a column of images that stay on disk."""

_MARK = "\0"  # no path has one


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image that stays on disk.

    Attributes:
        path: The file: an absolute path, or one relative to the folder of the table.
        digest: What `content_digest` says of its bytes.
        header: What is known of it without decoding it.
        offset: Where it begins in the file, in bytes.
        length: Its bytes; 0 where the file is the image.
    """

    path: str
    digest: int
    header: ImageHeader
    offset: int = 0
    length: int = 0


def is_image_file(kind: pa.DataType) -> bool:
    """Return whether a column of a type holds images that stay on disk.

    Args:
        kind: Type of a column.
    """
    return bool(kind == IMAGE_FILE)


def image_file_column(files: Sequence[ImageFile]) -> pa.Array:
    """Return files as a column.

    Args:
        files: One for each row.
    """
    rows = [
        {
            "path": file.path,
            "offset": file.offset,
            "length": file.length,
            "digest": file.digest,
            "format": file.header.format.value,
            "width": file.header.width,
            "height": file.header.height,
            "is_grey": file.header.is_grey,
        }
        for file in files
    ]
    return pa.array(rows, IMAGE_FILE)


def content_digest(content: bytes) -> int:
    """Return a hash of an image's bytes, in [0, 2**64).

    Args:
        content: The bytes. Images by the million must not meet in one hash, which a checksum of 32 bits would let them.
    """
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def content_digests(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return a hash of every image's bytes, ``(num_rows,)``, read from the column alone.

    Args:
        column: Bytes, or images that stay on disk.
    """
    if is_image_file(column.type):
        return np.array(pc.fill_null(pc.struct_field(column, "digest"), 0), np.uint64)
    return np.array([content_digest(value.as_py() or b"") for value in column], np.uint64)


def image_headers(column: pa.Array | pa.ChunkedArray) -> list[ImageHeader]:
    """Return what is known of every image without decoding it.

    Args:
        column: Bytes of images that can be decoded, or images that stay on disk.
    """
    if not is_image_file(column.type):
        return [read_header(value.as_py()) for value in column]
    return [
        ImageHeader(ImageFormat(row["format"]), row["width"], row["height"], row["is_grey"])
        for row in column.to_pylist()
    ]


def images_found(table: pa.Table, folder: Path) -> pa.Table:
    """Return a table with absolute paths of the images that stay on disk; one without such images as it is.

    Args:
        table: The rows.
        folder: The folder that relative paths are relative to.
    """
    for number, field in enumerate(table.schema):
        if not is_image_file(field.type):
            continue
        column = table.column(number).combine_chunks()
        parts = column.flatten()
        paths = pc.dictionary_encode(parts[0])
        absolute = pa.array([str(folder / path) for path in paths.dictionary.to_pylist()], pa.string())
        parts[0] = absolute.take(paths.indices)
        table = table.set_column(number, field.name, pa.StructArray.from_arrays(parts, fields=list(IMAGE_FILE)))
    return table


def image_places(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Return where every image lies in the form that `read_places` takes, ``(num_rows,)``.

    A place is a path; for a part of a file offset and length follow, with `_MARK` between.

    Args:
        column: Images that stay on disk.
    """
    fields = [pc.struct_field(column, name).to_pylist() for name in ("path", "offset", "length")]
    places = [_MARK.join(map(str, place)) if place[-1] else place[0] for place in zip(*fields, strict=True)]
    return np.array([place.encode() for place in places], dtype=np.bytes_)


def read_places(places: Sequence[bytes] | NDArray[Any]) -> NDArray[Any]:
    """Return the bytes of images as an object array ``(num_images,)``; for few at a time.

    Args:
        places: What `image_places` says of them.

    Raises:
        DataError: A file is no longer there.
    """
    found = np.empty(len(places), object)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        found[:] = list(pool.map(_content, places))
    return found


def file_contents(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Return the bytes of every image as an object array ``(num_rows,)``; for few rows at a time.

    Args:
        column: Images that stay on disk.

    Raises:
        DataError: A file is no longer there.
    """
    return read_places(image_places(column))


def _content(place: bytes) -> bytes:
    path, *part = place.decode().split(_MARK)
    offset, length = map(int, part) if part else (0, -1)
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise DataError(
            f"Expected the image {path!r}, which the run reads from its file, but it cannot be read "
            f"({error.strerror}); put it back, or start a new search."
        ) from error
