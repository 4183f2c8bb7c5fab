"""Feature groups: versions that never change, joins that know nothing of the future, keys that would multiply rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import feature_groups, stored_rows
from pipelines.errors import DataError
from pipelines.feature_groups import (
    find_group,
    groups_of,
    join_features,
    latest_rows,
    read_group,
    register,
)
from pipelines.sources import ReadOptions, open_source
from pipelines.sources.feature_source import FeatureSource

PEOPLE = pa.table(
    {
        "id": [1, 2, 1, 3],
        "day": ["2024-01-01", "2024-01-05", "2024-01-10", "2024-01-02"],
        "income": [10.0, 20.0, 11.0, 30.0],
        "city": ["Rome", "Oslo", "Bonn", "Rome"],
    }
)


@given(
    features=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=40, unique=True),
    rows=st.lists(st.tuples(st.integers(0, 6), st.integers(-2, 33)), min_size=1, max_size=40),
    text=st.booleans(),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_gets_the_latest_value_that_is_not_from_after_its_time(
    features: list[tuple[int, int]], rows: list[tuple[int, int]], text: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = tmp_path_factory.mktemp("store")
    key = (lambda number: f"k{number}") if text else (lambda number: number)
    table = pa.table(
        {"id": [key(k) for k, _ in features], "t": [t for _, t in features], "known": [float(t) for _, t in features]}
    )
    group = register(store, table, name="g", key="id", timestamp="t")
    left = pa.table({"id": [key(k) for k, _ in rows], "t": [t for _, t in rows]})
    joined = join_features(left, read_group(store, group), group, time_column="t")
    found = joined.table["known"].to_pylist()
    for (who, when), value in zip(rows, found, strict=True):
        before = [t for k, t in features if k == who and t <= when]
        assert value == (max(before) if before else None)
    assert joined.table.select(["id", "t"]).equals(left)
    assert joined.num_missing == found.count(None)


def test_a_value_from_later_in_the_same_second_is_not_known_yet(tmp_path: Path) -> None:
    times = ["2024-05-01T12:00:00.100", "2024-05-01T12:00:00.900"]
    group = register(tmp_path, pa.table({"id": [1, 1], "t": times, "known": times}), name="g", key="id", timestamp="t")
    rows = pa.table({"id": [1, 1, 1], "t": [f"2024-05-01T12:00:00.{part}" for part in ("05", "5", "9")]})
    joined = join_features(rows, read_group(tmp_path, group), group, time_column="t")
    assert joined.table["known"].to_pylist() == [None, times[0], times[1]]


def test_versions_are_kept_apart_and_checked(tmp_path: Path) -> None:
    first = register(tmp_path, PEOPLE, name="people", key="id", timestamp="day", source="people.csv")
    second = register(tmp_path, PEOPLE.slice(0, 2), name="people", key="id", timestamp="day")
    assert [group.title for group in groups_of(tmp_path)] == ["people@1", "people@2"]
    assert find_group(tmp_path, "people") == second
    assert find_group(tmp_path, "people@1") == first
    assert read_group(tmp_path, first).num_rows == 4
    path = tmp_path / "people" / "2" / "data.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"'people@2' is not what was registered: .* has changed"):
        read_group(tmp_path, second)
    with pytest.raises(DataError, match="has the versions 1, 2, not '3'"):
        find_group(tmp_path, "people@3")
    with pytest.raises(DataError, match=r"no feature group 'peopel' in the store .* Did you mean 'people'\?"):
        find_group(tmp_path, "peopel")
    assert groups_of(tmp_path / "absent") == []


def test_rows_on_disk_are_registered_as_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "CHUNK_ROWS", 10)
    monkeypatch.setattr(feature_groups, "_PART_ROWS", 7)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": [f"k{number}" for number in rng.integers(0, 9, 60)], "at": rng.permutation(60)})
    frame = frame.assign(city=np.where(frame["at"] % 5, "Rome", None), late=np.where(frame["at"] < 50, 1.0, 0.5))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    source = open_source(tmp_path / "rows.csv")
    stored = stored_rows.store_rows(source, ReadOptions(), folder=tmp_path)
    assert len(stored.table.to_batches()) > 1
    found = []
    for table in (source.read().table, stored.table):
        group = register(tmp_path / "store", table, name="people", key="id", timestamp="at")
        found.append(read_group(tmp_path / "store", group))
    assert found[0].equals(found[1])
    expected = frame.assign(code=pd.factorize(frame["id"])[0]).sort_values(["code", "at"])
    assert found[0]["id"].to_pylist() == expected["id"].tolist()
    assert found[0]["late"].to_pylist() == expected["late"].tolist()


def test_what_is_served_are_the_latest_values(tmp_path: Path) -> None:
    group = register(tmp_path, PEOPLE, name="people", key="id", timestamp="day")
    rows = latest_rows(read_group(tmp_path, group), group).to_pandas().set_index("id").sort_index()
    assert rows["city"].to_dict() == {1: "Bonn", 2: "Oslo", 3: "Rome"}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"name": "1st"}, "Expected a letter and then letters, digits and '_' as the group's name"),
        ({}, {"key": "idd"}, r"The data has no key column 'idd'\. Did you mean 'id'\?"),
        ({"id": [1, None, 1, 3]}, {}, "Expected a key in every row of 'id', but 1 are missing, the first in row 2"),
        ({}, {"timestamp": ""}, r"but 1 rows are too many, the first 1 in the rows 1 and 3: a join would multiply"),
        ({"day": ["2024-01-01"] * 4}, {}, "once at one time of 'day', but 1 rows are too many, the first 1 at 2024"),
        ({"day": ["2024-01-01", "soon", "2024-01-02", "2024-01-03"]}, {}, "received 'soon' in row 2"),
        ({"day": ["2024-01-01", "2999-01-05", "2024-01-02", "2024-01-03"]}, {}, "1 lie more than a day ahead .* row 2"),
        (
            {"day": ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00", "2024-01-03T00:00:00Z", "2024-01-04T00:00:00Z"]},
            {},
            "'2024-01-02T00:00:00' in row 2 has none; their order is not known",
        ),
    ],
)
def test_groups_that_cannot_be_joined_are_refused(
    change: dict[str, list[object]], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    table = pa.table({name: change.get(name, PEOPLE[name]) for name in PEOPLE.column_names})
    with pytest.raises(DataError, match=message):
        register(tmp_path, table, **{"name": "people", "key": "id", "timestamp": "day", **options})
    assert groups_of(tmp_path) == []


def test_a_source_looks_groups_up_at_the_time_of_its_rows(tmp_path: Path) -> None:
    register(tmp_path, PEOPLE, name="people", key="id", timestamp="day")
    orders = pd.DataFrame({"id": [1, 1, 2, 9], "when": ["2024-01-03", "2024-02-01", "2024-01-01", "2024-02-01"]})
    orders["city"] = "here"
    read = FeatureSource(open_source(orders), ["people"], store=tmp_path, time_column="when").read()
    assert read.table["people_city"].to_pylist() == ["Rome", "Bonn", None, None]
    assert read.table["income"].to_pylist() == [10.0, 11.0, None, None]
    assert read.notes == ("2 of 4 rows have no match in people@1.",)
    assert read.files[-1].name == "feature group people@1"
    source = FeatureSource(open_source(orders), ["people"], store=tmp_path, time_column="when")
    chunks = list(source.chunks(chunk_rows=3, columns={"income", "when"}))
    assert pa.concat_tables(chunk.table for chunk in chunks)["income"].to_pylist() == [10.0, 11.0, None, None]
    latest = FeatureSource(open_source(orders[["id"]]), ["people@1"], store=tmp_path, now=True).read()
    assert latest.table["income"].to_pylist() == [11.0, 11.0, 20.0, None]


def test_the_parts_of_a_source_read_their_times_alike(tmp_path: Path) -> None:
    known = [f"2024-{month:02}-01" for month in range(1, 13)]
    features = pa.table({"id": [1] * 12, "day": known, "since": known})
    register(tmp_path, features, name="g", key="id", timestamp="day")
    # Of the first rows the day could be the month: 05/03/2024 is in March all the same.
    days = pd.DataFrame({"id": 1, "when": [f"{day:02}/03/2024" for day in range(1, 29)]})
    days.to_csv(tmp_path / "days.csv", index=False)
    source = FeatureSource(open_source(tmp_path / "days.csv"), ["g"], store=tmp_path, time_column="when")
    since = [value for chunk in source.chunks(chunk_rows=5) for value in chunk.table["since"].to_pylist()]
    assert since == source.read().table["since"].to_pylist() == ["2024-03-01"] * 28
    few = FeatureSource(
        open_source(days[:3]),
        ["g"],
        store=tmp_path,
        time_column="when",
        now=True,
        time_formats={"when": "%d/%m/%Y"},
    )
    assert few.read().table["since"].to_pylist() == ["2024-03-01"] * 3


def test_rows_without_a_time_or_a_match_are_refused(tmp_path: Path) -> None:
    register(tmp_path, PEOPLE, name="people", key="id", timestamp="day")
    frame = pd.DataFrame({"id": [1, 2], "when": ["2024-01-03", "2024-02-01"]})
    with pytest.raises(DataError, match=r"'people@1' has timestamps: name it with --time-column, or call it 'day'"):
        FeatureSource(open_source(frame), ["people"], store=tmp_path).read()
    early = frame.assign(when="2020-01-01")
    with pytest.raises(DataError, match="but none of 2 has a key 'id' in it up to 'when'"):
        FeatureSource(open_source(early), ["people"], store=tmp_path, time_column="when").read()
    numbers = frame.assign(when=[1.0, 2.0])
    with pytest.raises(DataError, match="dates on one side and numbers on the other"):
        FeatureSource(open_source(numbers), ["people"], store=tmp_path, time_column="when").read()
    later = frame.assign(when="2999-01-01")
    with pytest.raises(DataError, match="Expected times in 'when' up to now, but 2 lie more than a day ahead"):
        FeatureSource(open_source(later), ["people"], store=tmp_path, time_column="when").read()
    # Rows that are to be answered may be planned ones, whether they come in parts or at once.
    planned = FeatureSource(open_source(later), ["people"], store=tmp_path, time_column="when", now=True)
    (chunk,) = planned.chunks(chunk_rows=10)
    assert planned.read().table["income"].to_pylist() == chunk.table["income"].to_pylist() == [11.0, 20.0]
