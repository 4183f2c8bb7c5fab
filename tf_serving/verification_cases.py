"""Rows and the answers expected for them, in one file that needs no pickle to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]


def write_cases(
    path: Path,
    raw: Mapping[str, Column],
    expected: Mapping[str, Column],
    *,
    distances: Mapping[str, Column] | None = None,
) -> None:
    """Write rows and expected outputs for ``verify``.

    The file is an npz: ``header`` (UTF-8 JSON with the names in order), then ``raw_0``, ``expected_0``, ... for
    floats; text and bytes become ``raw_0`` (all bytes in a row) and ``raw_0_offsets`` (num_rows + 1,).

    Args:
        path: File to write, ending in ``.npz``.
        raw: Raw columns by name, each (num_rows,): float32 or text (object array of str or bytes).
        expected: Outputs by name, each (num_rows, ...): floats, or text of shape (num_rows,).
        distances: By name of a text output how far each row is from another text, in probability, (num_rows,) floats;
            what is nearer than the tolerance may be either. None where the best two ``probabilities`` say it.

    Raises:
        ValueError: There are no rows or outputs, the lengths differ, or a column has another type.
    """
    distances = {} if distances is None else distances
    lengths = {name: len(values) for name, values in (*raw.items(), *expected.items())}
    lengths |= {f"distance of {name}": len(values) for name, values in distances.items()}
    if not raw or not expected or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"Expected raw columns and outputs of one length of at least 1, received lengths {lengths}.")
    arrays: dict[str, Column] = {}
    header = {
        part: [
            {"name": name, "text": _add_column(arrays, f"{part}_{index}", name=name, values=values)}
            for index, (name, values) in enumerate(columns.items())
        ]
        for part, columns in (("raw", raw), ("expected", expected), ("distances", distances))
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with path.open("wb") as file:  # a handle, because numpy appends .npz to other names
        np.savez(file, allow_pickle=False, **arrays)


def _add_column(arrays: dict[str, Column], key: str, *, name: str, values: Column) -> bool:
    """Add one column to the arrays; return whether it is text."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        arrays[key] = values
        return False
    if values.dtype.kind not in "OSU" or values.ndim != 1:
        raise ValueError(
            f"Expected floats, or text of shape (num_rows,), for {name!r}, received {values.dtype} of shape "
            f"{values.shape}."
        )
    encoded = [value.encode() if isinstance(value, str) else value for value in values.tolist()]
    wrong = [value for value in encoded if not isinstance(value, bytes)]
    if wrong:
        raise ValueError(f"Expected text in {name!r}, received {type(wrong[0]).__name__} ({wrong[0]!r}).")
    arrays[key] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    arrays[f"{key}_offsets"] = np.cumsum([0, *(len(value) for value in encoded)], dtype=np.int64)
    return True
