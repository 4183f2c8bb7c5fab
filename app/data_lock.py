"""Lock files: what data was when somebody looked at it, so that a search on other data is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.errors import RunDirectoryError, told_as_disk_error
from app.run_directory import read_json, write_json
from pipelines.addresses import is_path
from pipelines.sources import FilePrint, SourceFacts

_VERSION = 2
# What DVC tracks stands below "outs"; other hashes are those of the .dvc file itself and of where data came from.
_DVC_OUTS = re.compile(r"^outs:[^\n]*\n((?:[ \t#-][^\n]*\n?|\n)*)", re.MULTILINE)
_DVC_HASH = re.compile(r"^\s*-?\s*md5:\s*([0-9a-f]{32}(?:\.dir)?)\s*$", re.MULTILINE)


def file_records(table: SourceFacts) -> list[dict[str, Any]]:
    """Returns the files of a source for a manifest or a lock file, with the hash of DVC where it tracks them.

    Args:
        table: What was read.
    """
    return [asdict(file) | _dvc(file) for file in table.files]


def write_lock(table: SourceFacts, path: Path) -> None:
    """Writes a lock file.

    Args:
        table: What was read.
        path: The file.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    record = {
        "lock": _VERSION,
        "description": table.description,
        "fingerprint": table.fingerprint,
        "files": file_records(table),
    }
    with told_as_disk_error(path):
        write_json(path, record)


def check_lock(table: SourceFacts, path: Path) -> None:
    """Checks that data is what a lock file says.

    Args:
        table: What was read.
        path: The lock file.

    Raises:
        RunDirectoryError: The data is another, or the file is no lock file.
    """
    record = read_json(path)
    if not isinstance(record, Mapping) or not {"lock", "fingerprint", "files"} <= set(record):
        raise RunDirectoryError(f"{path} is no lock file: expected one written by `tamiz data lock`")
    if record["lock"] != _VERSION:
        raise RunDirectoryError(
            f"{path} is a lock file of version {record['lock']}, expected {_VERSION}, which has BLAKE3 hashes of the "
            f"files: lock the data anew with `tamiz data lock`"
        )
    if record["fingerprint"] == table.fingerprint:
        return
    locked = {_name(file["name"]): file["blake3"] for file in record["files"]}
    found = {_name(file.name): file.blake3 for file in table.files}
    changed = [name for name in found if name in locked and found[name] != locked[name]]
    added = [name for name in found if name not in locked]
    gone = [name for name in locked if name not in found]
    parts = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("changed:", changed), ("new:", added), ("missing:", gone))
        if names
    ]
    raise RunDirectoryError(
        f"{table.description} is not what {path} locked ({record['description']}; "
        f"{'; '.join(parts) or 'other rows'}): restore the data, or lock it anew with `tamiz data lock`"
    )


def _name(place: str) -> str:
    """Returns the last part of a name: a data set may have moved."""
    return place.rsplit("/", maxsplit=1)[-1]


def _dvc(file: FilePrint) -> dict[str, str]:
    """Returns the hash that DVC has of a file, or of the nearest folder around it that it tracks as one."""
    if not is_path(file.name):
        return {}
    path = Path(file.name)
    for place in (path, *path.parents):
        beside = place.with_name(f"{place.name}.dvc") if place.name else place
        if not beside.is_file():
            continue
        outs = _DVC_OUTS.search(beside.read_text(encoding="utf-8", errors="replace"))
        found = _DVC_HASH.search(outs[1]) if outs else None
        return {"dvc_md5": found[1]} if found else {}
    return {}
