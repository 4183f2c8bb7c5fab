"""Data from a real PostgreSQL, where one is installed; and what is told, and kept, of its password."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from app.arguments import DataArguments, SearchArguments, experiment_config
from app.config import DataConfig, ExperimentConfig
from app.data_files import write_data
from app.data_source import read_source, source_of
from app.data_stage import prepare_data
from app.read_rows import read_rows
from app.run_directory import RunDirectory
from pipelines.errors import DataError
from pipelines.sources import Origin, open_source

PASSWORDS = ("s3cr et/@", "s3cr%20et%2F%40")


@pytest.fixture(scope="module")
def birds(postgresql: str, penguins: pd.DataFrame) -> str:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgresql)
    penguins.to_sql("birds", engine, index=False)
    engine.dispose()
    return postgresql


def test_rows_are_those_of_the_file(birds: str, penguins_csv: Path) -> None:
    query = "select *, '10%:x' as share, 1::bigint as one from birds"
    source = open_source(Origin(sql=query, url=birds))
    found, expected = source.read(), open_source(penguins_csv).read()
    assert found.table.column_names == [*expected.table.column_names, "share", "one"]
    names = expected.table.column_names
    assert found.table.select(names).to_pydict() == expected.table.to_pydict()
    chunks = list(source.chunks(chunk_rows=100))
    assert [chunk.table.num_rows for chunk in chunks] == [100, 100, 100, 44]
    assert set(found.table.column("share").to_pylist()) == {"10%:x"}
    other = open_source(Origin(sql=f"{query} order by random()", url=birds)).read()
    assert other.fingerprint == found.fingerprint


def test_rows_come_through_a_cursor_of_the_server_and_may_stay_on_disk(birds: str, tmp_path: Path) -> None:
    query = "select *, (select count(*) from pg_cursors) as cursors from birds"
    config = ExperimentConfig(data=DataConfig(target="species", in_memory=1))
    source = open_source(Origin(sql=query, url=birds))
    rows = read_rows(source, config, folder=tmp_path)
    assert rows.stored is not None
    assert set(rows.source.table.column("cursors").to_pylist()) == {1}
    held = source.read()
    assert pa.concat_tables(rows.parts()).equals(held.table)
    assert rows.source.facts == held.facts


def test_no_file_of_a_run_holds_the_password(birds: str, tmp_path: Path) -> None:
    arguments = SearchArguments(data=DataArguments(sql="select * from birds", url=birds), target="species")
    config = experiment_config(arguments)
    assert config.data.url.startswith("postgresql+psycopg://me:***@127.0.0.1:")
    source = source_of(config.data, url=birds)
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(prepare_data(read_source(source, config), config), config, directory=staged)
    written = b"".join(path.read_bytes() for path in directory.path.rglob("*") if path.is_file())
    assert b"me:***@" in written
    assert not any(password.encode() in written for password in PASSWORDS)
    assert not any(password in source.name for password in PASSWORDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("me:s3cr%20et%2F%40@", "me:wr%20ong@"), 'password authentication failed for user "me"'),
        (("127.0.0.1", "127.0.0.1:1/x?dead="), "failed: "),
        (("/postgres", "/nothing"), 'database "nothing" does not exist'),
    ],
)
def test_what_cannot_be_reached_is_told_without_the_password(
    birds: str, change: tuple[str, str], message: str
) -> None:
    source = open_source(Origin(sql="select * from birds", url=birds.replace(*change)))
    with pytest.raises(DataError, match=message) as caught:
        source.read()
    told = str(caught.value)
    assert "The query 'select * from birds' to postgresql+psycopg://me:***@127.0.0.1" in told
    assert not any(password in told for password in (*PASSWORDS, "wr ong", "wr%20ong"))
    assert caught.value.__cause__ is None
