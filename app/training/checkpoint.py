"""The state of a trial on disk: a JSON header and raw arrays; nothing that could run code when it is read.

Keras' own formats start the optimizer anew; here every variable of model and optimizer is kept, so that a trial
goes on bit for bit. One flat file is written in well under a millisecond for a small network, which is what lets
every epoch be saved.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"tamiz-state-1\n"

Arrays = Sequence[NDArray[Any]]


class CheckpointError(Exception):
    """A state file is damaged or belongs to another network."""


class DiskFullError(Exception):
    """There is no room left to write a state file."""


def save_state(path: Path, *, arrays: Mapping[str, Arrays], header: Mapping[str, Any]) -> None:
    """Writes arrays and a JSON header; the file is there whole or not at all.

    Args:
        path: The file; its folder is made if missing.
        arrays: Name of a group -> its arrays, in order.
        header: JSON values kept beside them.

    Raises:
        DiskFullError: The disk is full or over quota.
    """
    layout = {name: [(array.dtype.name, array.shape) for array in group] for name, group in arrays.items()}
    text = json.dumps({"header": header, "layout": layout}).encode()
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(MAGIC + len(text).to_bytes(8, "little") + text)
            for group in arrays.values():
                for array in group:
                    file.write(np.ascontiguousarray(array).data if array.size else b"")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"the disk is full: could not write {path}; free some space, then go on with `tamiz resume`"
            ) from error
        raise


def load_state(path: Path) -> tuple[dict[str, list[NDArray[Any]]], dict[str, Any]]:
    """Reads what `save_state` wrote.

    Args:
        path: The file.

    Returns:
        The groups of arrays, and the header.

    Raises:
        CheckpointError: The file is damaged.
    """
    content = path.read_bytes()
    start = len(MAGIC) + 8
    try:
        if content[: len(MAGIC)] != MAGIC:
            raise CheckpointError(f"{path} is no state file of this version of tamiz")
        end = start + int.from_bytes(content[len(MAGIC) : start], "little")
        described = json.loads(content[start:end])
        groups: dict[str, list[NDArray[Any]]] = {}
        for name, group in described["layout"].items():
            groups[name] = []
            for dtype, shape in group:
                count = int(np.prod(shape, dtype=np.int64))
                array = np.frombuffer(content, np.dtype(dtype), count, end).reshape(shape)
                groups[name].append(array)
                end += array.nbytes
        return groups, described["header"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
