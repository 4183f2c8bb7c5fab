"""The bytes of a file, decompressed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from pipelines.errors import DataError, suggest_name

_GZIP_MAGIC = b"\x1f\x8b"


def read_stored_bytes(path: Path) -> bytes:
    """Return the content of a file; gzip is recognised by its first bytes, not by its name.

    Args:
        path: The file.

    Raises:
        DataError: The file is absent, a folder, not readable, empty, or a broken gzip.
    """
    require_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"The file {str(path)!r} cannot be read ({error.strerror}).") from error
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"Expected a complete gzip file, but {str(path)!r} is cut off or broken ({error}); fetch it again."
            ) from error
    if not content.strip():
        raise DataError(f"Expected a table, but the file {str(path)!r} is empty; give a file with a header and rows.")
    return content


def require_file(path: Path) -> None:
    """Refuse a path that is no file.

    Args:
        path: The file.

    Raises:
        DataError: Nothing is there, in which case the nearest file name is offered, or a folder.
    """
    if path.is_dir():
        raise DataError(f"Expected a file, received the folder {str(path)!r}; name a file in it.")
    if not path.exists():
        raise DataError(_absent(path))


def _absent(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no file {str(path)!r}: its folder {str(folder)!r} does not exist."
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    return f"There is no file {str(path)!r}.{suggest_name(path.name, names)} Give the path of an existing file."
