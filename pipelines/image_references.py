"""Images that stay in their files: a column that says of each where it lies and what is known of it; no TensorFlow.

Where all images together are too large to be held, this stands in their column instead of their bytes. What is
decided by it is what their bytes would decide: it has their hash and their header.
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
        pa.field("digest", pa.uint64()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("is_grey", pa.bool_()),
    ]
)
"""Type of a column of images that stay in their files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image that stays in its file.

    Attributes:
        path: Its absolute path.
        digest: What `content_digest` says of its bytes.
        header: What is known of it without decoding it.
    """

    path: str
    digest: int
    header: ImageHeader


def is_image_file(kind: pa.DataType) -> bool:
    """Return whether a column of a type holds images that stay in their files.

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
        column: Bytes, or images that stay in their files.
    """
    if is_image_file(column.type):
        return np.array(pc.fill_null(pc.struct_field(column, "digest"), 0), np.uint64)
    return np.array([content_digest(value.as_py() or b"") for value in column], np.uint64)


def image_headers(column: pa.Array | pa.ChunkedArray) -> list[ImageHeader]:
    """Return what is known of every image without decoding it.

    Args:
        column: Bytes of images that can be decoded, or images that stay in their files.
    """
    if not is_image_file(column.type):
        return [read_header(value.as_py()) for value in column]
    return [
        ImageHeader(ImageFormat(row["format"]), row["width"], row["height"], row["is_grey"])
        for row in column.to_pylist()
    ]


def file_paths(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Return where every image lies, ``(num_rows,)``.

    Args:
        column: Images that stay in their files.
    """
    paths = pc.struct_field(column, "path").to_pylist()
    return np.array([path.encode() for path in paths], dtype=np.bytes_)


def file_contents(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Return the bytes of every image as an object array ``(num_rows,)``; for few rows at a time.

    Args:
        column: Images that stay in their files.

    Raises:
        DataError: A file is no longer there.
    """
    found = np.empty(len(column), object)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        found[:] = list(pool.map(_content, pc.struct_field(column, "path").to_pylist()))
    return found


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"Expected the image {path!r}, which the run reads from its file, but it cannot be read "
            f"({error.strerror}); put it back, or start a new search."
        ) from error
