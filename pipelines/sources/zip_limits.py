"""Zip archives that are opened by other libraries: they must not unpack to more than the memory holds."""

from __future__ import annotations

import io
import zipfile

from pipelines.errors import DataError
from pipelines.sources.file_format import Content
from pipelines.sources.stored_file import unpacked_limit


def check_zip(content: Content, max_bytes: int) -> None:
    """Refuse an archive that says it unpacks to too much; the libraries read no more than it says.

    Args:
        content: The archive.
        max_bytes: The limit; 0 for the automatic one.

    Raises:
        DataError: It is too large, or no archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content.data)) as archive:
            num_bytes = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise DataError(
            f"Expected a complete archive, but {content.name!r} is cut off or broken ({error}); it has "
            f"{len(content.data):,} bytes: fetch or save it again."
        ) from error
    limit = max_bytes or unpacked_limit(len(content.data))
    if num_bytes > limit:
        raise DataError(
            f"Expected {content.name!r} to unpack to at most {limit:,} bytes, but it says {num_bytes:,}; if it is no "
            "bomb, allow more with --max-file-size."
        )
