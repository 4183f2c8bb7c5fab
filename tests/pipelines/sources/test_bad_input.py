"""What every source says of data that it cannot use: which file, where in it, and what to do."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.sources import Origin, open_source
from pipelines.sources.crc32c import masked_crc32c, masked_crc32c_of
from pipelines.sources.example_proto import example_class

FRAME = pd.DataFrame({"a": np.arange(200), "b": [f"text {row}" for row in range(200)]})


def records(frame: pd.DataFrame, *, kind: str = "int64_list") -> bytes:
    """A TFRecord file of one column."""
    content = b""
    for value in frame["a"].tolist():
        example = example_class()()
        getattr(example.features.feature["a"], kind).value.append(value)
        data = example.SerializeToString()
        length = struct.pack("<Q", len(data))
        content += length + struct.pack("<I", masked_crc32c_of(length))
        content += data + struct.pack("<I", int(masked_crc32c([data])[0]))
    return content


def stored(frame: pd.DataFrame, ending: str) -> bytes:
    sink = io.BytesIO()
    if ending == ".csv":
        frame.to_csv(sink, index=False)
    elif ending == ".csv.gz":
        sink.write(gzip.compress(frame.to_csv(index=False).encode(), mtime=0))
    elif ending == ".csv.zst":
        sink.write(pa.compress(frame.to_csv(index=False).encode(), codec="zstd", asbytes=True))
    elif ending == ".parquet":
        frame.to_parquet(sink)
    elif ending == ".feather":
        pyarrow.feather.write_feather(frame, sink)
    elif ending == ".jsonl":
        frame.to_json(sink, orient="records", lines=True)
    elif ending == ".xlsx":
        frame.to_excel(sink, index=False)
    elif ending == ".npz":
        np.savez(sink, a=frame["a"].to_numpy(), b=frame["b"].to_numpy("U"))
    else:
        sink.write(records(frame))
    return sink.getvalue()


CUT_OFF = {
    ".csv": r"Expected 2 fields in every row of '.*part-2\.csv', but line \d+ has 1",
    ".csv.gz": r"a complete gzip file, but '.*part-2\.csv\.gz' is cut off or broken near byte [\d,]+",
    ".csv.zst": r"a complete zstd file, but '.*part-2\.csv\.zst' is cut off or broken near byte [\d,]+",
    ".parquet": r"Expected a Parquet file, but '.*part-2\.parquet' cannot be read as one .* [\d,]+ bytes .*: fetch it",
    ".feather": r"Expected an Arrow or Feather file, but '.*part-2\.feather' cannot be read as one .*bytes .*: fetch",
    ".jsonl": r"Expected one JSON object .* of '.*part-2\.jsonl', but in the lines from byte [\d,]+ on .*rows count",
    ".xlsx": r"Expected a complete archive, but '.*part-2\.xlsx' is cut off or broken .* has [\d,]+ bytes",
    ".npz": r"Expected a NumPy file .*, but '.*part-2\.npz' cannot be read as one .* has [\d,]+ bytes",
    ".tfrecord": r"Expected a whole TFRecord file, but '.*part-2\.tfrecord' is cut off in the record at byte [\d,]+",
}


@pytest.mark.parametrize("ending", CUT_OFF)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_file_cut_off_in_the_middle_of_a_set_is_named_with_the_place(
    tmp_path: Path, ending: str, in_chunks: bool
) -> None:
    content = stored(FRAME, ending)
    for number in (1, 2, 3):
        # In the second line of a field, not at the end of a row.
        size = len(content) if number != 2 else content.rindex(b",") if ending == ".csv" else len(content) * 2 // 3
        (tmp_path / f"part-{number}{ending}").write_bytes(content[:size])
    source = open_source(str(tmp_path / f"part-*{ending}"))
    message = CUT_OFF[ending]
    if in_chunks and ending == ".csv":
        message = r"part-2\.csv' cannot be read as CSV after row .*other fields than the header"
    with pytest.raises(DataError, match=message):
        list(source.chunks(chunk_rows=50)) if in_chunks else source.read()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (FRAME.drop(columns="b"), r"'.*2\.parquet' lacks 'b', other than '.*1\.parquet'"),
        (FRAME.assign(c=1), r"'.*2\.parquet' has 'c' besides, other than '.*1\.parquet'"),
        (FRAME.rename(columns={"a": "A"}), r"'.*2\.parquet' lacks 'a' and has 'A' besides"),
        (FRAME.assign(a="x"), r"one type of column 'a' in every file, but it is int64 in '.*1.parquet' and string in"),
    ],
)
def test_files_of_a_set_must_have_one_form(tmp_path: Path, second: pd.DataFrame, message: str) -> None:
    FRAME.to_parquet(tmp_path / "1.parquet")
    second.to_parquet(tmp_path / "2.parquet")
    with pytest.raises(DataError, match=message):
        open_source(tmp_path).read()


def test_columns_of_a_set_may_stand_in_another_order_and_have_gaps_or_decimals(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(tmp_path / "1.parquet")
    pd.DataFrame({"b": [None, None], "a": [0.5, None]}).to_parquet(tmp_path / "2.parquet")
    table = open_source(tmp_path).read().table
    assert table.to_pydict() == {"a": [1.0, 2.0, 0.5, None], "b": ["x", "y", None, None]}


def test_csv_types_depend_on_all_files(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("zip,n\n12345,1\n")
    (tmp_path / "2.csv").write_text("zip,n\n01234,0.5\n")
    assert open_source(tmp_path).read().table.to_pydict() == {"zip": ["12345", "01234"], "n": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["absent-*.csv"], r"No file matches '.*absent-\*\.csv'"),
        (["rows.csv", "rows.parquet"], r"files of one format, received '.*rows\.csv', '.*rows\.parquet'"),
        (["empty"], r"in the folder '.*empty', but there are none"),
        (["rows.cvs"], r"There is no file|Did you mean '\.csv'"),
        ([], "Expected data: name a file"),
    ],
)
def test_places_that_hold_no_table(tmp_path: Path, places: list[str], message: str) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    FRAME.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        open_source(Origin(places=tuple(str(tmp_path / place) for place in places))).read()


def test_folders_name_columns(tmp_path: Path) -> None:
    for year, shop in ((2023, "a%20b"), (2024, "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / f"year={year}" / f"shop={shop}"
        folder.mkdir(parents=True)
        (folder / "rows.csv").write_text("n\n1\n2\n")
        (folder / "_SUCCESS").write_text("")
    table = open_source(tmp_path).read().table
    assert table.to_pydict() == {
        "n": [1, 2, 1, 2], "year": [2023, 2023, 2024, 2024], "shop": ["a b", "a b", None, None]
    }  # fmt: skip
    (tmp_path / "rows.csv").write_text("n\n1\n")
    with pytest.raises(DataError, match=r"folders of the same names in every file's path, but '.*"):
        open_source(tmp_path).read()


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zst", ".npz"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bomb{ending}"
    zeros = b"a\n" + b"0\n" * 1_000_000
    if ending == ".npz":
        np.savez_compressed(path, a=np.zeros(1_000_000))
    else:
        packed = gzip.compress(zeros, mtime=0) if ending == ".csv.gz" else pa.compress(zeros, "zstd", asbytes=True)
        path.write_bytes(packed)
    assert path.stat().st_size < 100_000
    source = open_source(Origin(places=(str(path),), max_bytes=1_000_000))
    with pytest.raises(DataError, match=r"to unpack to at most 1,000,000 bytes, but .* --max-file-size"):
        source.read()
    with pytest.raises(DataError, match="--max-file-size"):
        list(source.chunks(chunk_rows=1000))
    assert open_source(path).read().table.num_rows == 1_000_000


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match=r"Expected at most 100 bytes \(--max-file-size\), but '.*rows.csv' has 2,\d+"):
        open_source(Origin(places=(str(tmp_path / "rows.csv"),), max_bytes=100)).read()


def test_a_workbook_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * 300_000_000)
    with pytest.raises(DataError, match=r"book.xlsx' to unpack to at most 268,435,456 bytes, but it says 300,000,000"):
        open_source(tmp_path / "book.xlsx").read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], "checksum of record 1 at byte 0 does not fit"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "checksum of its length at byte 0 does not fit"),
        (lambda data: data + records(FRAME.head(1), kind="float_list"), "record 201 of .* has float"),
        (lambda data: data + framed(b"\xff\xff"), r"record 201 at byte [\d,]+ is none"),
        (lambda _: b"", "is empty"),
    ],
)
def test_damaged_records_are_refused(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "rows.tfrecord"
    path.write_bytes(records(FRAME))
    assert open_source(path).read().table.column("a").to_pylist() == list(range(200))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        open_source(path).read()


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    crc = struct.pack("<I", masked_crc32c_of(length)), struct.pack("<I", masked_crc32c_of(data))
    return length + crc[0] + data + crc[1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('[{"a": 1}]', "begins with a list; write its objects line by line"),
        ('{"a": 1}\n{"a": "x"}\n', "changed from number to string in row 1"),
        ('{"a": 1}\n{"a": \n', "Expected one JSON object"),
    ],
)
def test_json_that_is_no_table(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "rows.jsonl").write_text(lines)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "rows.jsonl").read()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), r"the shape \(2, 2, 2\)"),
        (np.array([{}, []], object), "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_no_table(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "rows.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "rows.npy").read()


def test_arrays_become_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.array([[1, 2], [3, 4]]), y=np.array(["a", "b"]))
    table = open_source(tmp_path / "rows.npz").read().table
    assert table.to_pydict() == {"x_1": [1, 3], "x_2": [2, 4], "y": ["a", "b"]}
    np.save(tmp_path / "rows.npy", np.array([(1, 0.5)], [("n", ">i4"), ("x", "f4")]))
    assert open_source(tmp_path / "rows.npy").read().table.to_pydict() == {"n": [1], "x": [0.5]}
    np.savez(tmp_path / "odd.npz", x=np.zeros(2), y=np.zeros(3))
    with pytest.raises(DataError, match=r"arrays of one length in '.*', received x of 2, y of 3"):
        open_source(tmp_path / "odd.npz").read()


def test_sheets_of_a_workbook(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as writer:
        FRAME.to_excel(writer, sheet_name="first", index=False)
        FRAME.head(3).to_excel(writer, sheet_name="second", index=False)
    found = open_source(path).read()
    assert found.notes == ("The sheet 'first' was read; the workbook has 'second' as well.",)
    assert open_source(f"{path}#second").read().table.num_rows == 3
    with pytest.raises(DataError, match=r"has no sheet 'secnd'\. Did you mean 'second'\? It has 'first', 'second'"):
        open_source(f"{path}#secnd").read()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * from nowhere", "no such table: nowhere"),
        ("select a from homes where a > 1000", "Expected rows, but the query 'select a .*' to sqlite.* returns none"),
        ("delete from homes", "Expected a query that returns rows"),
        ("select a, a from homes", "'a' names the columns 1, 2"),
        ("select a from homes union all select 'x'", "Expected numbers in column 'a', but 1 of 201 values are text"),
    ],
)
def test_queries_that_give_no_table(tmp_path: Path, sql: str, message: str) -> None:
    connection = sqlite3.connect(tmp_path / "rows.db")
    FRAME.to_sql("homes", connection, index=False)
    connection.close()
    source = open_source(Origin(sql=sql, url=f"sqlite:///{tmp_path / 'rows.db'}"))
    with pytest.raises(DataError, match=message):
        source.read()
    connection = sqlite3.connect(tmp_path / "rows.db")
    assert connection.execute("select count(*) from homes").fetchone() == (200,)
    connection.close()


def test_an_sqlite_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "shop.db").touch()
    source = open_source(Origin(sql="select 1", url=f"sqlite:///{tmp_path / 'shpo.db'}"))
    with pytest.raises(DataError, match=r"There is no file '.*shpo\.db'\. Did you mean 'shop\.db'\?"):
        source.read()
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (Origin(url="sqlite://"), "Expected a query for the database"),
        (Origin(sql="select 1"), "Expected a query and the URL of a database"),
        (Origin(sql="select 1", url="sqlite://", places=("a.csv",)), "received both: --sql and 'a.csv'"),
        (Origin(places=("tfds:a", "b.csv")), "Expected one source, received 2"),
        (Origin(places=("a.csv",), joins=("b.csv",)), "a table and its key, as in --join customers.csv:customer_id"),
        (Origin(places=("a.csv",), joins=("b.csv:",)), "Expected a key, as in --join"),
    ],
)
def test_origins_that_say_too_little_or_too_much(origin: Origin, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(origin)


def joined(folder: Path, rows: pd.DataFrame, table: pd.DataFrame, key: str = "id") -> pa.Table:
    rows.to_csv(folder / "rows.csv", index=False)
    table.to_csv(folder / "people.csv", index=False)
    join = f"{folder / 'people.csv'}:{key}"
    return open_source(Origin(places=(str(folder / "rows.csv"),), joins=(join,))).read()


def test_a_join_keeps_every_row_in_its_place(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": ["b", None, "z", "a", "b"], "age": [1, 2, 3, 4, 5]})
    found = joined(tmp_path, rows, pd.DataFrame({"id": ["a", "b"], "age": [50, 60], "town": ["x", "y"]}))
    assert found.table.to_pydict() == {
        "id": ["b", None, "z", "a", "b"],
        "age": [1, 2, 3, 4, 5],
        "people_age": [60, None, None, 50, 60],
        "town": ["y", None, None, "x", "y"],
    }
    assert found.notes == ("2 of 5 rows have no match in people.csv.",)


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        ({"id": [1, 1, 2, 1], "x": [0] * 4}, "id", r"each key once .* but 1 occur several times \(2 rows too many\)"),
        ({"id": [7, 8], "x": [0, 0]}, "id", "none of 2 rows has a match; look at the key"),
        ({"id": [1, 2]}, "ident", "The data has no key column 'ident'"),
        ({"no": [1, 2]}, "id", "Of the joined table '.*': The data has no key column 'id'.* two names, write FILE:id"),
        ({"id": [1, 2], "x": [0, 0]}, "id=nr", "Of the joined table '.*': The data has no key column 'nr'"),
    ],
)
def test_joins_that_cannot_be_made(tmp_path: Path, table: dict[str, list[int]], key: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        joined(tmp_path, pd.DataFrame({"id": [1, 2]}), pd.DataFrame(table), key)


def test_rows_that_have_all_columns_look_nothing_up(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    origin = Origin(places=(str(tmp_path / "rows.csv"),), joins=(f"{tmp_path / 'gone.csv'}:a",))
    (chunk,) = open_source(origin).chunks(chunk_rows=500, columns=["b"])
    assert chunk.table.column_names == ["b"]
    with pytest.raises(DataError, match="There is no file"):
        list(open_source(origin).chunks(chunk_rows=500, columns=["c"]))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("nothing", r"No prepared dataset 'nothing' is in '.*'.* Name the folder with --data-dir"),
        ("../etc", "Expected tfds:NAME, tfds:NAME/CONFIG"),
        ("homes:2.0.0", "has the versions '1.0.0', not '2.0.0'"),
        ("homes", r"dataset_info.json' cannot be read"),
        ("many", "has several configurations; name one, such as tfds:many/large"),
    ],
)
def test_datasets_that_are_not_prepared(tmp_path: Path, dataset: str, message: str) -> None:
    (tmp_path / "homes" / "1.0.0").mkdir(parents=True)
    (tmp_path / "many" / "large").mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        open_source(Origin(places=(f"tfds:{dataset}",), data_dir=str(tmp_path))).read()


def test_a_dataset_of_another_file_format_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "homes" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "riegeli", "splits": []}))
    with pytest.raises(DataError, match="to be stored as TFRecord, but it is riegeli"):
        open_source(Origin(places=("tfds:homes",), data_dir=str(tmp_path))).read()


def test_functions_that_no_other_process_can_import_are_refused() -> None:
    with pytest.raises(DataError, match="lambdas and functions inside functions cannot be used"):
        open_source(lambda: None).read()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("python:json", "expected python:module:function, received python:json"),
        ("python:json:lods", r"json has no function 'lods'\. Did you mean 'loads'\?"),
        ("python:no_such_module:rows", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_functions_that_are_not_there(place: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(place).read()


def test_urls_of_unknown_kinds_and_absent_files() -> None:
    with pytest.raises(DataError, match=r"a URL that fsspec can open, received 'nosuch://x/rows.csv'"):
        open_source("nosuch://me:secret@x/rows.csv?sig=secret").read()
    with pytest.raises(DataError, match=r"There is no file 'memory://absent/rows\.csv'"):
        open_source("memory://absent/rows.csv").read()


def test_parquet_keeps_its_partitions_in_memory(tmp_path: Path) -> None:
    import fsspec

    pq.write_to_dataset(pa.Table.from_pandas(FRAME.assign(p=FRAME["a"] % 2)), tmp_path / "set", partition_cols=["p"])
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "set"), "/a set", recursive=True)
    table = open_source("memory://a set").read().table
    assert sorted(table.column("a").to_pylist()) == list(range(200))
    assert set(table.column("p").to_pylist()) == {0, 1}
