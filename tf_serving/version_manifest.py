"""The manifest of a version directory: SHA-256 and size of every file, so that a changed export is noticed.

It proves that the files are those that were verified at export. It is no signature: who can write the directory can
write the manifest too.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tf_serving.errors import VerificationError

MANIFEST_PATH = "assets.extra/manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the manifest knows of one file.

    Attributes:
        sha256: Hexadecimal digest of the content.
        size: Length in bytes.
    """

    sha256: str
    size: int


def write_manifest(directory: Path) -> None:
    """Write the manifest of everything below the directory.

    Args:
        directory: A version directory whose other files are complete.

    Raises:
        VerificationError: The directory holds something that is neither a file nor a directory.
    """
    files = {path: {"sha256": record.sha256, "size": record.size} for path, record in _records(directory).items()}
    text = json.dumps({"format": FORMAT_VERSION, "files": files}, indent=1, sort_keys=True)
    target = directory / MANIFEST_PATH
    target.parent.mkdir(exist_ok=True)
    target.write_text(text + "\n", encoding="utf-8")


def verify_manifest(directory: Path) -> dict[str, FileRecord]:
    """Check that the directory holds exactly the files of its manifest, unchanged, and return them.

    No path is built from the manifest: the directory is walked, and what is found is compared.

    Args:
        directory: A version directory.

    Raises:
        VerificationError: The manifest is missing or not readable, or a file was changed, added or removed.
    """
    expected = _read(directory)
    found = _records(directory)
    for path in sorted(expected.keys() | found.keys()):
        if path not in found:
            raise VerificationError(f"{directory} lacks {path!r}, which its manifest lists; export the model again.")
        if path not in expected:
            raise VerificationError(
                f"{directory} holds {path!r}, which its manifest does not list; remove it or export the model again."
            )
        if found[path] != expected[path]:
            raise VerificationError(
                f"{path!r} in {directory} was changed after the export (expected {expected[path].size} bytes with "
                f"SHA-256 {expected[path].sha256[:12]}..., found {found[path].size} bytes with "
                f"{found[path].sha256[:12]}...); export the model again."
            )
    return found


def _read(directory: Path) -> dict[str, FileRecord]:
    path = directory / MANIFEST_PATH
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VerificationError(f"{directory} has no {MANIFEST_PATH}: it is not a complete export of tamiz.") from error
    except (OSError, ValueError) as error:
        raise VerificationError(f"Cannot read {path}: {error}; export the model again.") from error
    try:
        version = content["format"]
        records = {
            path: FileRecord(sha256=str(record["sha256"]), size=int(record["size"]))
            for path, record in content["files"].items()
        }
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise VerificationError(f"{path} is not a manifest of tamiz; export the model again.") from error
    if version != FORMAT_VERSION:
        raise VerificationError(
            f"{path} has format {version!r}, this version of tamiz reads {FORMAT_VERSION}; update tamiz."
        )
    return records


def _records(directory: Path) -> dict[str, FileRecord]:
    records = {}
    for folder, subfolders, names in os.walk(directory):
        for name in [*subfolders, *names]:
            path = Path(folder, name)
            relative = path.relative_to(directory).as_posix()
            # A link or device could show other content at the next look.
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise VerificationError(f"{relative!r} in {directory} is not a plain file; export the model again.")
            if path.is_file() and relative != MANIFEST_PATH:
                records[relative] = _record(path)
    return records


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(sha256=digest, size=file.tell())
