"""Tables of answers in a real PostgreSQL, where one is installed (Debian: ``apt-get install postgresql``)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.answer_files import answer_writer
from app.errors import RunDirectoryError
from tf_serving.answer_table import AnswerTable, AnswerTableError


def programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of an empty database of a server of its own."""
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg")
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root; Debian's package brings a user.
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if as_user:
        shutil.chown(folder, "postgres", "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=120, **as_user)  # type: ignore[call-overload]

    try:
        run("initdb", "--auth=trust", "--username=me", "--encoding=UTF8", "--locale=C", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://me:secret@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def part(start: int, num_rows: int, label: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": np.arange(start, start + num_rows),
            "label": [f'{label} "é" {row}' for row in range(num_rows)],
            "p of 1%": np.linspace(0, 1, num_rows, dtype=np.float32),
            "is_sure": np.arange(num_rows) % 2 == 0,
        }
    )


def test_answers_are_written_in_parts_and_looked_up(database: str) -> None:
    place = f'{database}#odd " name'
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


def test_missing_answers_and_text_keys(database: str) -> None:
    place = f"{database}#gaps"
    with answer_writer(place, key="code") as writer:
        writer.write(pd.DataFrame({"code": ["007", "x' OR 1=1 --"], "p": [np.nan, 1.0]}))
    table = AnswerTable(place, key="code")
    assert table.look_up(["007", "x' OR 1=1 --", "7"]) == [{"p": None}, {"p": 1.0}, None]
    table.close()


def test_readers_see_a_whole_table_while_it_is_replaced(database: str) -> None:
    place = f"{database}#replaced"
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


def test_what_fails_half_way_leaves_the_table_as_it_was(database: str) -> None:
    place = f"{database}#kept"
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
        AnswerTable(f"{database}#nowhere", key="id")
    with pytest.raises(AnswerTableError, match="has no column 'code' but 'id', 'label', 'p of 1%', 'is_sure'"):
        AnswerTable(place, key="code")
