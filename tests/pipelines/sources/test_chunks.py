from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.sources import ReadOptions, csv_stream, json_lines, open_source, read_table, tfrecord_file
from pipelines.sources.crc32c import masked_crc32c_of
from pipelines.sources.example_proto import example_class


def whole(path: Path, *, chunk_rows: int, options: ReadOptions | None = None) -> pa.Table:
    chunks = list(open_source(path).chunks(options, chunk_rows=chunk_rows))
    assert all(chunk.table.num_rows <= chunk_rows for chunk in chunks)
    starts = np.cumsum([0] + [chunk.table.num_rows for chunk in chunks])[:-1]
    assert [chunk.first_row for chunk in chunks] == starts.tolist()
    return pa.concat_tables([chunk.table for chunk in chunks], promote_options="permissive")


def store(folder: Path, content: str | bytes, *, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["data.csv", "data.csv.gz", "data.parquet"])
def test_chunks_hold_what_the_file_holds(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"a": np.arange(1000) / 8, "b": [f'x,"{row}\n' for row in range(1000)], "c": [None, 1] * 500})
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    expected = read_table(path).table
    for chunk_rows in (7, 1000, 5000):
        assert whole(path, chunk_rows=chunk_rows).to_pydict() == expected.to_pydict()


def example(values: dict[str, int]) -> bytes:
    """A record of a TFRecord file."""
    message = example_class()()
    for name, value in values.items():
        message.features.feature[name].int64_list.value.append(value)
    content = message.SerializeToString()
    length = struct.pack("<Q", len(content))
    return b"".join(part + struct.pack("<I", masked_crc32c_of(part)) for part in (length, content))


@pytest.mark.parametrize("ending", ["jsonl", "tfrecord"])
def test_columns_may_turn_up_late(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(tfrecord_file, "_BATCH_RECORDS", 4)
    rows: list[dict[str, int]] = [{"b": row} | ({"a": row, "z": 1} if row > 15 else {}) for row in range(20)]
    write = example if ending == "tfrecord" else lambda row: json.dumps(row).encode() + b"\n"
    for number, part in enumerate([rows, rows[:3]]):
        (tmp_path / f"{number}.{ending}").write_bytes(b"".join(map(write, part)))
    expected = open_source(tmp_path).read().table
    assert expected.column_names == (["b", "a", "z"] if ending == "jsonl" else ["a", "b", "z"])
    assert whole(tmp_path, chunk_rows=6).to_pydict() == expected.to_pydict()
    found = [chunk.table for chunk in open_source(tmp_path).chunks(chunk_rows=6, columns={"a", "b"})]
    assert pa.concat_tables(found, promote_options="permissive").to_pydict() == expected.drop_columns(["z"]).to_pydict()


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("\r\n\n a ;b\n1,5; x \n2,5;NA\n".encode("utf-8-sig"), ReadOptions()),
        ("a\tb\n1\tgröße\n".encode("utf-16"), ReadOptions()),
        ("a,b\n1,größe\n".encode("cp1252"), ReadOptions()),
        ("a,b\n1,größe\n".encode("latin-1"), ReadOptions(encoding="latin-1")),
        (b"a,b\n1,-\n2,-\n", ReadOptions(missing_values=("-",))),
        (b"code,b\n1,2\n2,3\n", ReadOptions(text_columns=("code",))),
    ],
)
def test_encoding_delimiter_decimal_and_missing_are_recognised_alike(
    tmp_path: Path, content: bytes, options: ReadOptions
) -> None:
    path = store(tmp_path, content)
    assert whole(path, chunk_rows=10, options=options).equals(read_table(path, options=options).table)


def test_an_encoding_is_recognised_behind_the_first_block(tmp_path: Path) -> None:
    path = store(tmp_path, b"a,b\n" + b"1,plain\n" * 300_000 + "2,größe\n".encode("cp1252"))
    assert whole(path, chunk_rows=100_000).column("b")[-1].as_py() == "größe"


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_only_wanted_columns_are_read_unless_one_is_absent(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"a": [1], "b": [2], "c": [3]})
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    (chunk,) = open_source(path).chunks(chunk_rows=10, columns=["c", "a"])
    assert chunk.table.column_names == ["a", "c"]
    (chunk,) = open_source(path).chunks(chunk_rows=10, columns=["c", "absent"])
    assert chunk.table.column_names == ["a", "b", "c"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.integers()), min_size=1))
def test_any_text_comes_back(tmp_path: Path, rows: list[tuple[str, int]]) -> None:
    path = tmp_path / "any.csv"
    pd.DataFrame(rows, columns=["text", "number"]).to_csv(path, index=False, quoting=2)
    options = ReadOptions(text_columns=("text", "number"))
    expected = read_table(path, options=options).table
    assert whole(path, chunk_rows=3, options=options).to_pydict() == expected.to_pydict()


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "data.csv", "is empty; give a file with a header and rows"),
        (b"a,b\n", "data.csv", "has a header and no row below it"),
        (b"a,a\n1,2\n", "data.csv", "'a' names the columns 1, 2"),
        (
            b"a,b\n" + b"1,2\n" * 9 + b"1,2,3\n",
            "data.csv",
            "cannot be read as CSV after row .*other fields than the header",
        ),
        (b'a,b\n1,2\n3,"4\n', "data.csv", "Expected every quote in .* to be closed"),
        (b"a,b\n1,\x00\n", "data.csv", "is not text"),
        (b"a,b\n" + b"1,2\n" * 300_000 + b"1,\x00\n", "data.csv", "holds NUL characters"),
        ("a,b\n1,größe\n".encode() + b"2,\xff\n", "data.csv", "0xFF at offset .* is none; name the right one"),
        (gzip.compress(b"a,b\n1,2\n" * 1000, mtime=0)[:-9], "data.csv.gz", "is cut off or broken"),
        (b"a,b\n1,2\n", "data.parquet", "Expected a Parquet file"),
        (b"a,b\n1,2\n", "data.sas", "Expected a file that ends in one of .csv"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, content: bytes, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        whole(store(tmp_path, content, name=name), chunk_rows=10)


def test_an_encoding_that_is_none_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path, "a,b\n1,größe\n")
    with pytest.raises(DataError, match="name of an encoding such as utf-8, cp1252 or utf-16, received 'utf-99'"):
        whole(path, chunk_rows=10, options=ReadOptions(encoding="utf-99"))
    with pytest.raises(DataError, match="Expected text in ascii"):
        whole(path, chunk_rows=10, options=ReadOptions(encoding="ascii"))


def test_a_missing_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    store(tmp_path, "a\n1\n")
    with pytest.raises(DataError, match=r"Did you mean 'data.csv'\?"):
        whole(tmp_path / "date.csv", chunk_rows=10)


def test_quotes_that_stand_anywhere_are_read_as_at_once(tmp_path: Path) -> None:
    rows = "".join(f'{row},pipe of 5" and more,x\n' if row % 1_000 == 7 else f"{row},plain,y\n" for row in range(9_000))
    path = store(tmp_path, "number,what,kind\n" + rows)
    assert whole(path, chunk_rows=1_000).equals(read_table(path).table)


def test_codes_and_decimals_behind_the_first_block_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_stream, "_BLOCK_BYTES", 1_000)
    lines = [f"{row},{row},{row},a {row}\n" for row in range(1_000)]
    late = [f"007,{row}.5, NA ,b\n" for row in range(1_000)]
    path = store(tmp_path, "code,size,gaps,word\n" + "".join(lines + late))
    tables = list(open_source(path).chunks(chunk_rows=10_000))
    first, last = tables[0].table, tables[-1].table
    assert [str(field.type) for field in first.schema] == ["int64", "int64", "int64", "string"]
    assert last.column("code")[-1].as_py() == "007"
    assert last.column("size")[-1].as_py() == 999.5
    assert last.column("gaps").null_count == last.num_rows


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-99, 99), st.floats(allow_nan=False, width=16)),
            st.sampled_from(["", " NA", "x", "007", "0x1F", "1.5", 'a "b"', "two\nlines", "c,d"]),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_small_blocks_give_what_the_whole_file_gives(tmp_path: Path, rows: list[tuple[float | None, str]]) -> None:
    path = tmp_path / "small.csv"
    pd.DataFrame({"number": [row[0] for row in rows], "word": [row[1] for row in rows]}).to_csv(path, index=False)
    options = ReadOptions(text_columns=("word",))
    expected = read_table(path, options=options).table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_stream, "_BLOCK_BYTES", 40)
        found = whole(path, chunk_rows=1_000, options=options)
    assert found.column("word").to_pylist() == expected.column("word").to_pylist()
    assert found.column("number").cast(pa.float64()).equals(expected.column("number").cast(pa.float64()))
