"""Which sources are held in memory, and which stay on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app.config import DataConfig, ExperimentConfig
from app.data_source import source_of
from app.read_rows import read_rows


def test_a_folder_of_images_is_read_as_its_paths_however_little_memory_there_is(
    digit_folder: Path, tmp_path: Path
) -> None:
    config = ExperimentConfig(data=DataConfig(source=str(digit_folder), target="label", in_memory=1))
    rows = read_rows(source_of(config.data), config, folder=tmp_path)
    assert rows.stored is None
    assert rows.source.table.num_rows == 120
    assert list(tmp_path.iterdir()) == []


def test_a_table_with_bytes_among_its_columns_is_mapped_and_not_taken_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": [b"\xff\x00", b"\x01"], "y": [1, 2]}), tmp_path / "rows.parquet")
    config = ExperimentConfig(data=DataConfig(source=str(tmp_path / "rows.parquet"), target="y", in_memory=1))
    rows = read_rows(source_of(config.data), config, folder=tmp_path)
    assert rows.stored is None
    assert rows.source.table.column("content").to_pylist() == [b"\xff\x00", b"\x01"]
    assert sum(part.num_rows for part in rows.parts()) == 2
