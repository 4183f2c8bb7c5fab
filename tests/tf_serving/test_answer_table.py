from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tf_serving.answer_table import AnswerTable, AnswerTableError, is_table, table_place


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "answers.db"
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE answers (id INTEGER PRIMARY KEY, label TEXT, "probability of ""x""" REAL)')
        connection.executemany("INSERT INTO answers VALUES (?, ?, ?)", [(i, f"class {i}", i / 8) for i in range(2000)])
        connection.execute('CREATE TABLE "odd "" name" (code TEXT PRIMARY KEY, prediction REAL)')
        connection.executemany('INSERT INTO "odd "" name" VALUES (?, ?)', [("007", 1.0), ("x' OR 1=1 --", 2.0)])
    connection.close()
    return path


@pytest.fixture(params=["file", "sqlalchemy"])
def place(request: pytest.FixtureRequest, database: Path) -> str:
    """The same table through Python's own SQLite and through SQLAlchemy, as another database would be read."""
    if request.param == "file":
        return str(database)
    pytest.importorskip("sqlalchemy")
    return f"sqlite+pysqlite:///{database}"


def test_answers_come_in_the_order_of_the_keys(place: str) -> None:
    table = AnswerTable(place, key="id")
    assert table.columns == ("label", 'probability of "x"')
    answers = table.look_up([7, "3", 7, 999_999, "abc", "1" * 30])
    assert answers[0] == {"label": "class 7", 'probability of "x"': 0.875}
    assert answers[1] == {"label": "class 3", 'probability of "x"': 0.375}
    assert answers[2] == answers[0]
    assert answers[3:] == [None, None, None]
    assert len([row for row in table.look_up(range(1500)) if row]) == 1500
    table.close()


def test_keys_may_have_all_64_bits(place: str, database: Path) -> None:
    least, most = -(2**63), 2**63 - 1
    with sqlite3.connect(database) as connection:
        connection.executemany("INSERT INTO answers VALUES (?, ?, ?)", [(least, "least", 0.0), (most, "most", 1.0)])
    connection.close()
    table = AnswerTable(place, key="id")
    found = table.look_up([least, most, str(most), least - 1, most + 1])
    assert [row and row["label"] for row in found] == ["least", "most", "most", None, None]
    table.close()


def test_names_and_keys_are_data_not_sql(place: str) -> None:
    table = AnswerTable(f'{place}#odd " name', key="code")
    assert table.look_up(["007", "x' OR 1=1 --", "y"]) == [{"prediction": 1.0}, {"prediction": 2.0}, None]
    table.close()


def test_threads_share_a_table(place: str) -> None:
    table = AnswerTable(place, key="id")
    with ThreadPoolExecutor(8) as pool:
        for number, (answer,) in enumerate(pool.map(lambda key: table.look_up([key]), range(200))):
            assert answer is not None
            assert answer["label"] == f"class {number}"
    table.close()


def test_a_replaced_table_is_read_anew(database: Path) -> None:
    table = AnswerTable(str(database), key="id")
    assert table.look_up([1])[0] == {"label": "class 1", 'probability of "x"': 0.125}
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE answers SET label = 'new'")
    connection.close()
    answer = table.look_up([1])[0]
    assert answer is not None
    assert answer["label"] == "new"
    table.close()


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        ("#absent", "id", "There is no table 'absent' of .*; write it with `tamiz predict"),
        ("", "ID2", "has no column 'ID2' but 'id', 'label'"),
    ],
)
def test_a_table_or_key_that_is_none_is_refused(place: str, table: str, key: str, message: str) -> None:
    with pytest.raises(AnswerTableError, match=message):
        AnswerTable(place + table, key=key)


def test_keys_that_are_none_are_refused(place: str) -> None:
    table = AnswerTable(place, key="id")
    for key in (1.5, True, None, ["a"]):
        with pytest.raises(AnswerTableError, match="text or a whole number as a key, received"):
            table.look_up([key])  # type: ignore[list-item]
    with pytest.raises(AnswerTableError, match="at most 10,000 keys at once, received 10,001"):
        table.look_up(range(10_001))
    table.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnswerTableError, match="There is no file"):
        AnswerTable(str(tmp_path / "no.db"), key="id")
    (tmp_path / "text.db").write_text("this is no database" * 100)
    with pytest.raises(AnswerTableError, match=r"Cannot read the table 'answers' of .*: file is not a database"):
        AnswerTable(str(tmp_path / "text.db"), key="id")
    with pytest.raises(AnswerTableError, match=r"a database file \(.db, .sqlite, .sqlite3\) or URL, received 'a.csv'"):
        table_place("a.csv")


def test_a_database_that_is_not_there_is_told_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(
        AnswerTableError, match=r"Cannot read the table 'churn' of postgresql.*me:.*@127.0.0.1:1"
    ) as raised:
        AnswerTable("postgresql+psycopg://me:secret@127.0.0.1:1/x#churn", key="id")
    assert "secret" not in str(raised.value)
    with pytest.raises(AnswerTableError, match="Cannot read the table 'answers' of nosuch://"):
        AnswerTable("nosuch://somewhere", key="id")


def test_places_are_told_from_files() -> None:
    assert [is_table(text) for text in ("a.db", "a.sqlite3#t", "postgresql://x", "a.csv", "a.parquet", "db")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    place = table_place("sqlite:///folder/a.db#t")
    assert (place.file, place.table) == (Path("folder/a.db"), "t")
