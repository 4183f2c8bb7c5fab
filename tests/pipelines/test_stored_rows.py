from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines import stored_rows
from pipelines.row_hash import hash_rows
from pipelines.sources import ReadOptions, csv_stream, open_source, read_table
from pipelines.stored_rows import StoredRows, TypesDifferError, store_rows

OPTIONS = ReadOptions()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "CHUNK_ROWS", 100)
    monkeypatch.setattr(csv_stream, "_BLOCK_BYTES", 2_000)


def stored_and_read(path: Path, folder: Path) -> tuple[StoredRows, pa.Table]:
    return store_rows(open_source(path), OPTIONS, folder=folder), read_table(path, options=OPTIONS).table


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_are_stored_as_they_are_read_at_once(tmp_path: Path, ending: str) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "whole then decimal": [*range(500), *np.arange(500) / 8],
            "late": [None] * 900 + [3.5] * 100,
            "word": generator.choice(np.array(["a", "b, c", None], object), 1_000),
            "truth": generator.random(1_000) < 0.5,
            "y": generator.integers(0, 3, 1_000),
        }
    )
    path = tmp_path / f"rows.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    stored, table = stored_and_read(path, tmp_path)
    assert stored.table.cast(stored.schema).equals(table)
    places, chunks = zip(*stored.chunks(), strict=True)
    assert pa.concat_tables(chunks).equals(table)
    assert [place.start for place in places][1:] == [place.stop for place in places][:-1]
    content = [name for name in table.column_names if name != "y"]
    expected = hash_rows(table, columns=content, seed=7)
    assert np.array_equal(stored.identities(without=["y"], seed=7), expected)


def test_text_that_turns_up_late_keeps_the_numbers_before_it_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("code,y\n" + "".join(f"{row}.50,1\n" for row in range(3_000)) + "late,2\n")
    stored, table = stored_and_read(path, tmp_path)
    assert table.column("code")[0].as_py() == "0.50"
    assert stored.table.cast(stored.schema).equals(table)


def test_a_source_that_knows_its_types_and_breaks_them_is_refused(tmp_path: Path) -> None:
    parts = {"part-1.parquet": pd.DataFrame({"x": [1, 2]}), "part-2.parquet": pd.DataFrame({"x": ["a", "b"]})}
    for name, frame in parts.items():
        frame.to_parquet(tmp_path / name)
    with pytest.raises(TypesDifferError, match=r"Expected one type of value in column 'x' of .*--feature x=categ"):
        store_rows(open_source(str(tmp_path / "part-*.parquet")), OPTIONS, folder=tmp_path / "rows")


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n1,2\n3,4\n")
    stored = store_rows(open_source(path), OPTIONS, folder=tmp_path / "rows")
    assert list((tmp_path / "rows").iterdir()) == []
    assert stored.table.column("x").to_pylist() == [1, 3]
