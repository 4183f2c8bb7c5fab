from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.sources import open_source


def test_rows_may_end_with_their_last_value(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    # Written row by row: such a workbook does not say how large its sheet is.
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rows")
    for row in (["x", "y", "z"], [1, 2.5, "a"], [4], [5, None, None], [6, None, "b", "more"]):
        sheet.append(row)
    book.save(tmp_path / "rows.xlsx")
    assert open_source(tmp_path / "rows.xlsx").read().table.to_pydict() == {
        "x": [1, 4, 5, 6],
        "y": [2.5, None, None, None],
        "z": ["a", None, None, "b"],
        "column_4": [None, None, None, "more"],
    }
