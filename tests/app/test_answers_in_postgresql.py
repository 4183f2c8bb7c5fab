"""Tables of answers in a real PostgreSQL, where one is installed (Debian: ``apt-get install postgresql``)."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest

from app.answer_files import answer_writer
from app.errors import RunDirectoryError
from tf_serving.answer_table import AnswerTable, AnswerTableError


def part(start: int, num_rows: int, label: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": np.arange(start, start + num_rows),
            "label": [f'{label} "é" {row}' for row in range(num_rows)],
            "p of 1%": np.linspace(0, 1, num_rows, dtype=np.float32),
            "is_sure": np.arange(num_rows) % 2 == 0,
        }
    )


def test_answers_are_written_in_parts_and_looked_up(postgresql: str) -> None:
    place = f'{postgresql}#odd " name'
    with answer_writer(place, key="id") as writer:
        for start in range(0, 5_000, 1_000):
            writer.write(part(start, 1_000))
    table = AnswerTable(place, key="id")
    assert table.columns == ("label", "p of 1%", "is_sure")
    assert table.look_up([2_001, "999999", "x", 4_000]) == [
        {"label": 'a "é" 1', "p of 1%": pytest.approx(1 / 999), "is_sure": False},
        None,
        None,
        {"label": 'a "é" 0', "p of 1%": 0.0, "is_sure": True},
    ]
    assert len([row for row in table.look_up(range(3_000)) if row]) == 3_000
    table.close()


def test_missing_answers_and_text_keys(postgresql: str) -> None:
    place = f"{postgresql}#gaps"
    with answer_writer(place, key="code") as writer:
        writer.write(pd.DataFrame({"code": ["007", "x' OR 1=1 --"], "p": [np.nan, 1.0]}))
    table = AnswerTable(place, key="code")
    assert table.look_up(["007", "x' OR 1=1 --", "7"]) == [{"p": None}, {"p": 1.0}, None]
    table.close()


def test_readers_see_a_whole_table_while_it_is_replaced(postgresql: str) -> None:
    place = f"{postgresql}#replaced"
    with answer_writer(place, key="id") as writer:
        writer.write(part(0, 100, "old"))
    with pytest.raises(RunDirectoryError, match="exists: name another table, or say --replace"), answer_writer(place):
        pass
    table = AnswerTable(place, key="id")
    seen: list[set[str]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append({str(row["label"])[:3] if row else "none" for row in table.look_up(range(100))})

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for label in ("new", "old") * 5:
            with answer_writer(place, key="id", replace=True) as writer:
                writer.write(part(0, 60, label))
                writer.write(part(60, 40, label))
    finally:
        stop.set()
        reader.join()
    table.close()
    assert seen
    assert all(labels in ({"old"}, {"new"}) for labels in seen)


def test_what_fails_half_way_leaves_the_table_as_it_was(postgresql: str) -> None:
    place = f"{postgresql}#kept"
    with answer_writer(place, key="id") as writer:
        writer.write(part(0, 3))

    def overlap() -> None:
        with answer_writer(place, key="id", replace=True) as writer:
            writer.write(part(10, 3))
            writer.write(part(12, 3))

    with pytest.raises(RunDirectoryError, match="a value of the key 'id' occurs twice"):
        overlap()
    table = AnswerTable(place, key="id")
    assert [bool(row) for row in table.look_up([0, 10])] == [True, False]
    table.close()
    with pytest.raises(AnswerTableError, match=r"There is no table 'nowhere' of postgresql.*me:\*\*\*@"):
        AnswerTable(f"{postgresql}#nowhere", key="id")
    with pytest.raises(AnswerTableError, match="has no column 'code' but 'id', 'label', 'p of 1%', 'is_sure'"):
        AnswerTable(place, key="code")
