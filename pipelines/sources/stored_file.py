"""The bytes of one file, on this machine or behind a URL, unpacked and never more of them than allowed."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast, final

import pyarrow as pa

from pipelines.addresses import is_url, shown_place
from pipelines.errors import DataError, suggest_name

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_GROWTH = 100
"""An archive may grow this many times when it is unpacked; tables rarely shrink to less than a thirtieth."""
_FREE_BYTES = 1 << 28
"""What any archive may unpack to, whatever its own size."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is read as a table, or as a part of one.

    Attributes:
        place: Path or URL.
        partitions: Columns that its folders name, such as ``year=2024``, with their values as text.
        max_bytes: How large it may be, also when it is unpacked; 0 for the automatic limit on what is unpacked.
    """

    place: str
    partitions: tuple[tuple[str, str | None], ...] = ()
    max_bytes: int = 0

    @property
    def name(self) -> str:
        """The place as messages show it."""
        return shown_place(self.place)

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the file as it is stored; it can be read and positioned.

        Raises:
            DataError: It is absent, a folder, cannot be read, or is larger than allowed.
        """
        with _told(self.name), contextlib.ExitStack() as stack:
            if is_url(self.place):
                file = stack.enter_context(_opened_url(self.place))
            else:
                require_file(Path(self.place))
                file = stack.enter_context(Path(self.place).open("rb"))
            if self.max_bytes:
                size = file.seek(0, io.SEEK_END)
                file.seek(0)
                if size > self.max_bytes:
                    raise DataError(
                        f"Expected at most {self.max_bytes:,} bytes (--max-file-size), but {self.name!r} has {size:,}; "
                        "raise the limit or give a smaller file."
                    )
            yield file

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[IO[bytes]]:
        """Open the file as a stream; gzip and zstd are recognised by their first bytes, not by the name.

        Raises:
            DataError: As for `opened`; while reading, that the archive is broken or unpacks to more than is allowed.
        """
        with self.opened() as file:
            magic = file.read(4)
            file.seek(0)
            if magic.startswith(_GZIP_MAGIC):
                yield cast(IO[bytes], _Unpacked(gzip.GzipFile(fileobj=file), file, self, kind="gzip"))
            elif magic == _ZSTD_MAGIC:
                stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
                yield cast(IO[bytes], _Unpacked(stream, file, self, kind="zstd"))
            else:
                yield file

    def is_packed(self) -> bool:
        """Return whether the file is a gzip or zstd archive.

        Raises:
            DataError: As for `opened`.
        """
        with self.opened() as file:
            magic = file.read(4)
        return magic.startswith(_GZIP_MAGIC) or magic == _ZSTD_MAGIC

    def read(self) -> bytes:
        """Return the whole content, unpacked.

        Raises:
            DataError: As for `unpacked`, or the file is empty.
        """
        with self.unpacked() as file:
            content = file.read()
        if not content.strip():
            raise DataError(
                f"Expected a table, but the file {self.name!r} is empty; give a file with a header and rows."
            )
        return content


@final
class _Unpacked(io.RawIOBase):
    """An unpacked archive that tells where it breaks and ends before it fills the memory."""

    def __init__(self, stream: Any, packed: IO[bytes], file: StoredFile, *, kind: str) -> None:
        super().__init__()
        self._stream, self._packed, self._file, self._kind = stream, packed, file, kind
        self._num_bytes = 0
        size = packed.seek(0, io.SEEK_END)
        packed.seek(0)
        self._limit = file.max_bytes or unpacked_limit(size)

    def readable(self) -> bool:
        """Return whether it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` unpacked bytes, all of them for -1; b"" at the end."""
        blocks = []
        wanted = size if size >= 0 else self._limit + 1
        while wanted > 0 and (block := self._block(min(wanted, 1 << 24))):
            blocks.append(block)
            wanted -= len(block)
            if size >= 0:
                break
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _block(self, size: int) -> bytes:
        try:
            block = bytes(self._stream.read(size))
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise DataError(
                f"Expected a complete {self._kind} file, but {self._file.name!r} is cut off or broken near byte "
                f"{self._packed.tell():,} ({str(error).rstrip('.')}); fetch it again."
            ) from error
        self._num_bytes += len(block)
        if self._num_bytes > self._limit:
            raise DataError(
                f"Expected {self._file.name!r} to unpack to at most {self._limit:,} bytes, but it goes on after that; "
                "if it is no bomb, allow more with --max-file-size."
            )
        return block


def unpacked_limit(num_bytes: int) -> int:
    """Return how many bytes an archive may unpack to, if the user set no limit.

    Args:
        num_bytes: Size of the archive.
    """
    return max(_FREE_BYTES, _MAX_GROWTH * num_bytes)


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


def filesystem_of(place: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL and the path in it.

    Args:
        place: The URL.

    Raises:
        DataError: The protocol is unknown, or needs a package that is not installed.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise DataError(f"Expected a URL that fsspec can open, received {shown_place(place)!r} ({error}).") from error
    return filesystem, path


@contextlib.contextmanager
def _opened_url(place: str) -> Iterator[IO[bytes]]:
    filesystem, path = filesystem_of(place)
    try:
        file = filesystem.open(path, "rb")
    except FileNotFoundError as error:
        raise DataError(f"There is no file {shown_place(place)!r}; give the URL of an existing file.") from error
    except Exception as error:  # each file system has errors of its own
        # Their texts repeat the URL, user and query included.
        raise DataError(
            f"The file {shown_place(place)!r} cannot be opened ({type(error).__name__}); look at the address and at "
            "the credentials of the environment."
        ) from None
    # A file in memory is one object with one position, whoever opens it; two that read at once need one each.
    with io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else file as own:
        yield own


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"The file {name!r} cannot be read ({error.strerror or error}).") from error


def _absent(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no file {str(path)!r}: its folder {str(folder)!r} does not exist."
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    return f"There is no file {str(path)!r}.{suggest_name(path.name, names)} Give the path of an existing file."
