"""The state of a trial on disk: a JSON header and raw arrays; nothing that could run code when it is read.

Keras' own formats start the optimizer anew; here every variable of model and optimizer is kept, so that a trial
goes on bit for bit. One flat file is written in about a millisecond for a small network, which is what lets every
epoch be saved.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zlib
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
    everything = [array for group in arrays.values() for array in group]
    buffers = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in everything]
    checksum = 0
    for buffer in buffers:
        checksum = zlib.crc32(buffer, checksum)
    text = json.dumps({"header": header, "layout": layout, "checksum": checksum}).encode()
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(MAGIC + len(text).to_bytes(8, "little") + zlib.crc32(text).to_bytes(4, "little") + text)
            for buffer in buffers:
                file.write(buffer)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
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
    size = len(MAGIC)
    if content[:size] != MAGIC:
        raise CheckpointError(f"{path} is no state file of this version of tamiz")
    start = size + 12
    end = start + int.from_bytes(content[size : size + 8], "little")
    text = content[start:end]
    # The sums stand for what a power failure can do to a file that was never forced to the disk.
    if not text or zlib.crc32(text).to_bytes(4, "little") != content[size + 8 : start]:
        raise CheckpointError(f"{path} is damaged: its header is not what was written")
    described = json.loads(text)
    if zlib.crc32(memoryview(content)[end:]) != described["checksum"]:
        raise CheckpointError(f"{path} is damaged: its arrays are not what was written")
    groups: dict[str, list[NDArray[Any]]] = {}
    for name, group in described["layout"].items():
        groups[name] = []
        for dtype, shape in group:
            count = int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(content, np.dtype(dtype), count, end).reshape(shape)
            groups[name].append(array)
            end += array.nbytes
    return groups, described["header"]
