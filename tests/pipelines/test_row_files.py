from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.row_files import RowFiles

IMAGES = [b"first", None, b"", b"fourth", b"fifth"]


def row_files(folder: Path) -> RowFiles:
    folder.mkdir()
    path = folder / "0.arrow"
    table = pa.table({"number": range(5), "image": pa.array(IMAGES, pa.binary())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return RowFiles(folder, [path])


def test_a_part_of_a_file_is_the_value(tmp_path: Path) -> None:
    files = row_files(tmp_path / "rows")
    (table,) = files.tables()
    data = (tmp_path / "rows" / "0.arrow").read_bytes()
    for column in (table.column("image"), table.column("image").cast(pa.large_binary()), table.column("image")[2:]):
        parts = files.parts_of(column)
        found = [data[part.offset : part.offset + part.length] for part in parts]
        assert found == [value.as_py() or b"" for value in column]
        assert {part.path for part in parts if part.length} == {"0.arrow"}
    missing = pa.chunked_array([pa.nulls(2)])
    assert [part.length for part in files.parts_of(missing)] == [0, 0]


def test_a_copy_of_a_column_lies_in_no_file(tmp_path: Path) -> None:
    files = row_files(tmp_path / "rows")
    with pytest.raises(ValueError, match="the column is a copy: expected one that is mapped from the files"):
        files.parts_of(pa.chunked_array([pa.array(IMAGES, pa.binary())]))


def test_files_go_when_they_are_let_go_of_and_stay_where_they_are_moved(tmp_path: Path) -> None:
    files = row_files(tmp_path / "rows")
    (table,) = files.tables()
    files.move(tmp_path)
    del files
    assert not (tmp_path / "rows").exists()
    assert (tmp_path / "0.arrow").is_file()
    assert table.column("image").to_pylist() == IMAGES
