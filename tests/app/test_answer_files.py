from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.answer_files import answer_writer, check_output
from app.errors import RunDirectoryError
from tf_serving.answer_table import AnswerTable


def part(start: int, num_rows: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": np.arange(start, start + num_rows),
            "label": [f'it\'s "{row}"' for row in range(start, start + num_rows)],
            "p": np.linspace(0, 1, num_rows, dtype=np.float32),
        }
    )


def write(output: str | Path, *parts: pd.DataFrame, key: str = "", replace: bool = False) -> None:
    with answer_writer(output, key=key, replace=replace) as writer:
        for answers in parts:
            if answers.empty:
                raise ValueError("half way")
            writer.write(answers)


FAILURE = pd.DataFrame()


def output_of(folder: Path, name: str) -> str:
    if name.startswith("sqlite+"):
        pytest.importorskip("sqlalchemy")
        return f"{name}:///{folder / 'answers.db'}"
    return str(folder / name)


def read(output: str) -> pd.DataFrame:
    if output.endswith(".parquet"):
        return pd.read_parquet(output)
    if output.endswith(".csv"):
        return pd.read_csv(output)
    with closing(sqlite3.connect(output.partition(":///")[2] or output)) as connection:
        return pd.read_sql("SELECT * FROM answers", connection)


TABLES = ("answers.db", "sqlite+pysqlite")


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", *TABLES])
def test_parts_become_one_whole(tmp_path: Path, name: str) -> None:
    output = output_of(tmp_path, name)
    check_output(output)
    with answer_writer(output, key="id") as writer:
        writer.write(part(0))
        writer.write(part(4))
    pd.testing.assert_frame_equal(read(output), pd.concat([part(0), part(4)], ignore_index=True), check_dtype=False)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", *TABLES])
def test_an_error_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    output = output_of(tmp_path, name)
    write(output, part(0), key="id")
    with pytest.raises(ValueError, match=r"^half way$"):
        write(output, part(50), FAILURE, key="id", replace=True)
    pd.testing.assert_frame_equal(read(output), part(0), check_dtype=False)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_leaves_no_new_database(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^half way$"):
        write(tmp_path / "new.db", FAILURE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_only_replaced_when_asked(tmp_path: Path, name: str) -> None:
    output = output_of(tmp_path, name)
    write(output, part(0), key="id")
    with pytest.raises(RunDirectoryError, match="exists: name another table, or say --replace"):
        write(output)
    write(output, part(10), key="id", replace=True)
    table = AnswerTable(output, key="id")
    assert table.look_up([0, 10]) == [None, {"label": 'it\'s "10"', "p": 0.0}]
    table.close()


def test_the_old_answers_are_read_until_all_new_ones_are_there(tmp_path: Path) -> None:
    output = str(tmp_path / "answers.db")
    write(output, part(0), key="id")
    table = AnswerTable(output, key="id")
    with closing(sqlite3.connect(output)) as connection:
        connection.execute("CREATE VIEW labels AS SELECT label FROM answers")
    with answer_writer(output, key="id", replace=True) as writer:
        for start in (10, 60_010):
            writer.write(part(start, 60_000))  # 3 MB, more than SQLite keeps in its cache
            assert table.look_up([0, 10])[1] is None
    assert table.look_up([0, 10])[0] is None
    table.close()
    with closing(sqlite3.connect(output)) as connection:
        assert connection.execute("SELECT count(*) FROM labels").fetchone() == (120_000,)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone() == (1,)


@pytest.mark.parametrize("name", TABLES)
def test_a_key_that_is_not_unique_or_missing_is_refused(tmp_path: Path, name: str) -> None:
    output = output_of(tmp_path, name)
    with pytest.raises(RunDirectoryError, match="a value of the key 'id' occurs twice"):
        write(output, part(0), part(3), key="id")
    with pytest.raises(RunDirectoryError, match="a value of the key 'code' is missing"):
        write(output, pd.DataFrame({"code": ["a", None], "p": [1.0, 2.0]}), key="code")


def test_missing_answers_are_null(tmp_path: Path) -> None:
    output = str(tmp_path / "answers.db")
    with answer_writer(output) as writer:
        writer.write(pd.DataFrame({"key": [None, "a"], "p": [np.nan, 1.0]}))
    with closing(sqlite3.connect(output)) as connection:
        assert connection.execute("SELECT * FROM answers").fetchall() == [(None, None), ("a", 1.0)]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a.txt", "expected a name ending in .parquet or .csv, a database such as answers.db#TABLE, or a database URL"),
        ("no/a.csv", "cannot write no/a.csv: the folder no does not exist"),
        ("no/a.db#t", "cannot write no/a.db: the folder no does not exist"),
        ("sqlite:///no/a.db", "cannot write no/a.db: the folder no does not exist"),
    ],
)
def test_places_that_cannot_be_written_are_refused_at_once(output: str, message: str) -> None:
    with pytest.raises(RunDirectoryError, match=message):
        check_output(output)


def test_a_database_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all" * 100)
    with pytest.raises(RunDirectoryError, match=r"cannot write table 'answers' of .*file is not a database"):
        write(tmp_path / "text.db")
    pytest.importorskip("psycopg")
    with pytest.raises(RunDirectoryError, match="cannot write table 'answers' of postgresql") as raised:
        write("postgresql+psycopg://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(raised.value)
    with pytest.raises(RunDirectoryError, match="cannot write table 'answers' of nosuch://"):
        write("nosuch://x")


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot write .*a.csv: Is a directory"):
        write(tmp_path / "a.csv", part(0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]
