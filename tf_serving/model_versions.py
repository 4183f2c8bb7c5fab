"""The directories TensorFlow Serving reads: ``<base>/<model name>/<integer version>/``.

Names that become paths are validated here and nowhere else. A version is written to a hidden sibling directory
and appears under its number by one rename, so that a server polling the directory never sees half a model.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import time
from hashlib import sha256
from pathlib import Path

from tf_serving.errors import ExportError

MODEL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", re.ASCII)
VERSION = re.compile(r"[0-9]{1,18}", re.ASCII)  # 18 digits always fit TensorFlow Serving's int64
STAGING = re.compile(r"\.export-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}", re.ASCII)
FOREIGN_STAGING_SECONDS = 86_400.0


def check_model_name(name: str) -> str:
    """Return the name if it may become a directory and a part of a URL.

    Args:
        name: Up to 128 letters, digits, ``_``, ``-`` and ``.``, not starting with a dot.

    Raises:
        ValueError: The name holds anything else.
    """
    return _checked(name, "model name", remedy="choose another name")


def check_file_name(name: str) -> str:
    """Return the name if it is a plain file name, without any way to leave its directory.

    Args:
        name: Up to 128 letters, digits, ``_``, ``-`` and ``.``, not starting with a dot.

    Raises:
        ValueError: The name holds anything else.
    """
    return _checked(name, "file name", remedy="rename the file")


def _checked(name: str, what: str, *, remedy: str) -> str:
    if not MODEL_NAME.fullmatch(name):
        raise ValueError(
            f"Expected a {what} of letters, digits, '_', '-' and '.' (at most 128, not starting with '.'), "
            f"received {name[:80]!r}; {remedy}."
        )
    return name


def versions(directory: Path) -> tuple[int, ...]:
    """Return the versions found in a model's directory, in ascending order.

    Args:
        directory: ``<base>/<model name>``; may be missing. Everything but integer directories is ignored,
            as TensorFlow Serving does.
    """
    return tuple(sorted({int(entry.name) for entry in _numbered(directory) if entry.is_dir()}))


def next_version(directory: Path) -> int:
    """Return the version after the highest one present; 1 in an empty or missing directory.

    Args:
        directory: ``<base>/<model name>``. Files with a number for a name count too: they are in the way.
    """
    return max((int(entry.name) for entry in _numbered(directory)), default=0) + 1


def create_staging(directory: Path) -> Path:
    """Create the hidden directory in which a version is prepared, and return it.

    What dead exports left behind is removed first.

    Args:
        directory: ``<base>/<model name>``; created when missing, its last part is a validated model name.

    Raises:
        ValueError: The name of the directory is not a model name.
        ExportError: The directory cannot be written.
    """
    check_model_name(directory.name)
    staging = directory / f".export-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        remove_stale_stagings(directory)
        # Not tempfile.mkdtemp: its mode 0700 would survive the rename and lock out a server run by another user.
        staging.mkdir()
    except OSError as error:
        raise ExportError(
            f"Cannot write the export to {directory}: {error.strerror}; choose a writable place."
        ) from error
    return staging


def remove_stale_stagings(directory: Path) -> None:
    """Remove hidden directories whose export died before it published.

    A process of this host is dead when its id is gone. Those of another host (a shared volume) cannot be asked and
    are left alone for a day.

    Args:
        directory: ``<base>/<model name>``.
    """
    for entry in directory.iterdir():
        match = STAGING.fullmatch(entry.name)
        if match and not entry.is_symlink() and _is_stale(entry, host=match[1], process=int(match[2])):
            shutil.rmtree(entry, ignore_errors=True)


def discard(staging: Path) -> None:
    """Remove a prepared version that is not to be published.

    Args:
        staging: What ``create_staging`` returned.

    Raises:
        ValueError: The path is not a staging directory.
    """
    shutil.rmtree(_checked_staging(staging), ignore_errors=True)


def publish(staging: Path) -> Path:
    """Give a prepared version its number, by one rename, and return the new directory.

    Args:
        staging: What ``create_staging`` returned, complete.

    Raises:
        ValueError: The path is not a staging directory.
        ExportError: The directory cannot be renamed.
    """
    directory = _checked_staging(staging).parent
    while True:
        target = directory / str(next_version(directory))
        try:
            os.rename(staging, target)
        except OSError as error:
            if target.exists():  # another process published between the look and the rename
                continue
            raise ExportError(
                f"Cannot publish the export as {target}: {error.strerror}; check the directory and export again."
            ) from error
        sync_directory(directory)
        return target


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk where the file system can.

    Args:
        directory: An existing directory.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _numbered(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return [entry for entry in directory.iterdir() if VERSION.fullmatch(entry.name)]


def _checked_staging(staging: Path) -> Path:
    if not STAGING.fullmatch(staging.name):
        raise ValueError(f"Expected the hidden directory of a prepared export, received {str(staging)!r}.")
    return staging


def _host() -> str:
    # Eight hexadecimal digits rather than the name itself: host names may hold anything.
    return sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_stale(entry: Path, *, host: str, process: int) -> bool:
    if host == _host():
        return not _is_alive(process)
    try:
        return time.time() - entry.stat().st_mtime > FOREIGN_STAGING_SECONDS
    except OSError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
