"""Rows that a server meets and a training set does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tf_serving.odd_images import ODD_IMAGES

Column = NDArray[Any]

# One row, an odd few, TensorFlow Serving's default maximum batch; the caller adds all rows at once.
BATCH_SIZES = (1, 7, 1_000)

_FLOAT32 = np.finfo(np.float32)
HOSTILE_NUMBERS = (
    0.0,
    -0.0,
    1e30,
    -1e30,
    float(_FLOAT32.max),
    float(_FLOAT32.min),
    float(_FLOAT32.tiny),
    float(_FLOAT32.smallest_subnormal),
    -float(_FLOAT32.smallest_subnormal),
    16_777_217.0,  # the first integer that float32 rounds
    float("inf"),
    float("-inf"),
)
UNSEEN_CATEGORY = "an unseen category \u2014 ni\u00f1o \u65e5\u672c".encode()
HOSTILE_TEXTS = (
    UNSEEN_CATEGORY,
    b" ",
    b"NaN",
    b"0",
    b"1e400",
    b"9999-99-99T99:99:99",
    b"0001-01-01T00:00:00",
    b"\x00",
    b"before\x00after",
    b"\xff\xfe\x80 not UTF-8",
    "\u0130\u0131\u00df \U0001f600 e\u0301".encode(),
    b"x" * 20_000,
)
MAX_SINGLE_COLUMN_ROWS = 256


def hostile_rows(raw: Mapping[str, Column], *, images: Collection[str] = ()) -> dict[str, Column]:
    """Build rows with everything missing, one column missing, unseen, empty, very long and extreme values.

    Each row is the first given row with some values replaced, so that one hostile value does not hide another.

    Args:
        raw: Raw columns by name, each (num_rows,) with at least one row: float32 with NaN for missing, or an
            object array of bytes with b"" for missing.
        images: Columns of encoded images: they are replaced by odd images only, as what is no image has no answer.

    Returns:
        Raw columns of the same names and types; at most about 550 rows.

    Raises:
        ValueError: There is no row to start from.
    """
    if not raw or any(len(values) == 0 for values in raw.values()):
        raise ValueError("Expected at least one column and one row to build hostile rows from, received none.")
    template = {name: values[0] for name, values in raw.items()}
    numeric = [name for name, values in raw.items() if values.dtype.kind == "f"]
    text = [name for name in raw if name not in {*numeric, *images}]
    missing: dict[str, Any] = {name: np.nan if name in set(numeric) else b"" for name in raw if name not in images}
    changes: list[dict[str, Any]] = [{}, missing]
    changes += [{name: missing[name]} for name in list(missing)[:MAX_SINGLE_COLUMN_ROWS]]
    changes += [{name: UNSEEN_CATEGORY} for name in text[:MAX_SINGLE_COLUMN_ROWS]]
    if text:
        changes += [dict.fromkeys(text, value) for value in HOSTILE_TEXTS]
    if numeric:
        changes += [dict.fromkeys(numeric, value) for value in HOSTILE_NUMBERS]
    changes += [{name: image} for name in images for image in ODD_IMAGES]
    rows = [template | change for change in changes]
    return {
        name: np.array([row[name] for row in rows], dtype=np.float32 if name in set(numeric) else object)
        for name in raw
    }
