"""What is held in memory has to fit there, which is asked before it is read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from pipelines import free_memory
from pipelines.errors import DataError
from pipelines.feature_groups import read_group, register
from pipelines.sources import Origin, open_source


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 KiB free in a container that has used 900 of 1,000 bytes, 50 of them for files."""
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:       8 kB\n")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 50\n")
    monkeypatch.setattr(free_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "_CONTAINER", tmp_path)
    return tmp_path


def test_the_free_memory_is_that_of_the_narrower_of_machine_and_container(machine: Path) -> None:
    assert free_memory.free_memory() == 150
    (machine / "memory.max").write_text("max\n")
    assert free_memory.free_memory() == 8192
    (machine / "meminfo").unlink()
    assert free_memory.free_memory() is None
    free_memory.require_memory(10**15, "a table")


@pytest.mark.usefixtures("machine")
def test_tables_to_look_up_that_do_not_fit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    pd.DataFrame({"id": range(1_000), "age": range(1_000)}).to_csv(tmp_path / "people.csv", index=False)
    pd.DataFrame({"id": [1], "y": [1]}).to_csv(tmp_path / "rows.csv", index=False)
    source = open_source(Origin(places=(str(tmp_path / "rows.csv"),), joins=(f"{tmp_path / 'people.csv'}:id",)))
    message = r"Expected the joined table '.*people.csv' to fit into memory, .* 0.0 GiB and 0.0 GiB are free; leave"
    with pytest.raises(DataError, match=message):
        source.read()
    group = register(tmp_path / "store", pa.table({"id": range(99), "age": range(99)}), name="people", key="id")
    with pytest.raises(DataError, match="Expected the feature group 'people@1' to fit into memory"):
        read_group(tmp_path / "store", group)
