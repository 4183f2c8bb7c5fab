from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.sources import FORMATS, ReadOptions, SourceTable, read_table
from pipelines.sources.stored_file import StoredFile


def _read(
    folder: Path, content: str | bytes, *, name: str = "data.csv", options: ReadOptions | None = None
) -> SourceTable:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return read_table(path, options=options)


def _types(table: pa.Table) -> list[str]:
    return [str(field.type) for field in table.schema]


def test_types_are_found_column_by_column(tmp_path: Path) -> None:
    text = "whole,real,truth,text,code,none\n1,2.5,true,x,007,NA\n-2,1e3,False,,012,\n,.5,,y z,3,?\n"
    table = _read(tmp_path, text).table
    assert _types(table) == ["int64", "double", "bool", "string", "string", "null"]
    assert table.to_pydict() == {
        "whole": [1, -2, None],
        "real": [2.5, 1000.0, 0.5],
        "truth": [True, False, None],
        "text": ["x", None, "y z"],
        "code": ["007", "012", "3"],
        "none": [None, None, None],
    }


def test_plain_file_needs_no_notes(tmp_path: Path) -> None:
    source = _read(tmp_path, "a,b\n1,2\n")
    assert source.notes == ()
    assert source.description == "data.csv: 1 rows, 2 columns"
    assert len(source.fingerprint) == 64


def test_blanks_around_values_and_names_are_stripped(tmp_path: Path) -> None:
    assert _read(tmp_path, " a , b\n 1 , x \n").table.to_pydict() == {"a": [1], "b": ["x"]}


def test_quoted_fields_may_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    assert _read(tmp_path, 'a,b\n"x, ""y""\nz",1\n').table.to_pydict() == {"a": ['x, "y"\nz'], "b": [1]}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_read(tmp_path: Path, line_end: str) -> None:
    assert _read(tmp_path, line_end.join(["a,b", "1,2", "3,4"])).table.to_pydict() == {"a": [1, 3], "b": [2, 4]}


@pytest.mark.parametrize(("delimiter", "name"), [(";", "';'"), ("\t", "'tab'"), ("|", "'|'")])
def test_delimiter_is_recognised(tmp_path: Path, delimiter: str, name: str) -> None:
    source = _read(tmp_path, f'a{delimiter}b\n1{delimiter}"x,y"\n2{delimiter}z\n')
    assert source.table.to_pydict() == {"a": [1, 2], "b": ["x,y", "z"]}
    assert source.notes == (f"Delimiter recognised as {name}.",)


def test_decimal_comma_is_recognised(tmp_path: Path) -> None:
    source = _read(tmp_path, "a;b\n1,5;x\n-2;y,5\n")
    assert source.table.to_pydict() == {"a": [1.5, -2.0], "b": ["x", "y,5"]}
    assert "Decimal comma recognised." in source.notes


def test_decimal_point_stays_with_semicolons(tmp_path: Path) -> None:
    assert _read(tmp_path, "a;b\n1.5;2\n2.5;3\n").table.to_pydict() == {"a": [1.5, 2.5], "b": [2, 3]}


def test_delimiter_and_decimal_can_be_stated(tmp_path: Path) -> None:
    options = ReadOptions(delimiter=":", decimal=",")
    source = _read(tmp_path, "a:b\n1,5:2\n", options=options)
    assert source.table.to_pydict() == {"a": [1.5], "b": [2]}
    assert source.notes == ()


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", ()),
        ("utf-8-sig", ()),
        ("cp1252", ("Encoding recognised as cp1252.",)),
        ("utf-16", ("Encoding recognised as utf-16.",)),
    ],
)
def test_encoding_is_recognised(tmp_path: Path, encoding: str, note: tuple[str, ...]) -> None:
    source = _read(tmp_path, "año,b\né,1\n".encode(encoding))
    assert source.table.to_pydict() == {"año": ["é"], "b": [1]}
    assert source.notes == note


def test_encoding_can_be_stated(tmp_path: Path) -> None:
    options = ReadOptions(encoding="cp437")
    assert _read(tmp_path, "a\né\n".encode("cp437"), options=options).table.to_pydict() == {"a": ["é"]}


def test_gzip_is_read_and_has_the_fingerprint_of_its_content(tmp_path: Path) -> None:
    content = b"a,b\n1,2\n"
    packed = _read(tmp_path, gzip.compress(content), name="x.csv.gz")
    assert packed.table.to_pydict() == {"a": [1], "b": [2]}
    assert packed.fingerprint == _read(tmp_path, content).fingerprint
    assert packed.fingerprint != _read(tmp_path, b"a,b\n1,3\n").fingerprint


def test_missing_values_can_be_stated(tmp_path: Path) -> None:
    options = ReadOptions(missing_values=("-999", "unknown"))
    table = _read(tmp_path, "a,b\n1,unknown\n-999,NA\n,x\n", options=options).table
    assert table.to_pydict() == {"a": [1, None, None], "b": [None, "NA", "x"]}


def test_text_columns_keep_their_text(tmp_path: Path) -> None:
    options = ReadOptions(text_columns=("a", "c"))
    table = _read(tmp_path, "a,b,c\n1.50,1.50,\ntrue,2,\n", options=options).table
    assert table.to_pydict() == {"a": ["1.50", "true"], "b": [1.5, 2.0], "c": [None, None]}


def test_hexadecimal_digits_are_text(tmp_path: Path) -> None:
    assert _read(tmp_path, "a,b\n0x1F,1\n0x20,2\n").table.to_pydict()["a"] == ["0x1F", "0x20"]


def test_columns_without_a_name_are_named_by_position(tmp_path: Path) -> None:
    source = _read(tmp_path, ",b\n1,2\n")
    assert source.table.column_names == ["column_1", "b"]
    assert source.notes == ("1 column(s) without a name were named by their position.",)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "i": pd.array([1, None], "Int16"),
            "f": np.array([1.5, np.nan], np.float32),
            "c": pd.Categorical(["x", None]),
            "b": [True, False],
            "t": pd.Series([pd.Timestamp("2020-01-01 10:00"), pd.NaT]),
            "s": [" 12 ", ""],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet").table
    assert _types(table) == ["int64", "double", "string", "bool", "timestamp[us]", "string"]
    assert table.column("s").to_pylist() == ["12", None]
    assert table.column("f").to_pylist() == [1.5, None]
    assert read_table(frame).table.equals(table)


def test_parquet_index_is_left_out(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2]}, index=[5, 9]).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").table.column_names == ["a"]


def test_frame_with_objects_is_settled() -> None:
    frame = pd.DataFrame(
        {
            "text": pd.Series(["x", None, "y"], dtype=object),
            "truth": pd.Series([True, None, False], dtype=object),
            "number": pd.Series([1, None, 2.5], dtype=object),
            "zoned": pd.date_range("2020-01-01", periods=3, tz="Europe/Madrid"),
            "length": pd.to_timedelta([1, 2, 3], unit="s"),
            "huge": np.array([1, 2, 2**64 - 1], np.uint64),
            7: [1, 2, 3],
        }
    )
    table = read_table(frame).table
    assert _types(table) == ["string", "bool", "double", "timestamp[us]", "double", "double", "int64"]
    assert table.column_names[-1] == "7"
    assert str(table.column("zoned")[0].as_py()) == "2019-12-31 23:00:00"


def test_frame_fingerprint_follows_the_values_and_not_the_index() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    fingerprint = read_table(frame).fingerprint
    assert read_table(frame.set_index(pd.Index([7, 8]))).fingerprint == fingerprint
    assert read_table(frame.assign(a=[1, 3])).fingerprint != fingerprint
    assert read_table(frame.rename(columns={"a": "c"})).fingerprint != fingerprint


def test_arrow_table_in_chunks_is_the_table() -> None:
    table = pa.table({"a": [1, 2, 3, 4]})
    chunks = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert read_table(chunks).fingerprint == read_table(table).fingerprint


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**53), 2**53),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(categories=("L", "P", "Zs")), min_size=1).map(lambda text: "x" + text + "x"),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_written_as_csv_is_read_again(tmp_path: Path, rows: list[tuple[int, float, str]]) -> None:
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    table = read_table(tmp_path / "a.csv").table
    assert table.column("a").to_pylist() == [row[0] for row in rows]
    assert table.column("b").cast(pa.float64()).to_pylist() == [row[1] for row in rows]
    assert table.column("c").to_pylist() == [row[2] for row in rows]


# Bad input


def test_missing_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "credit.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"There is no file '.*credits\.csv'\. Did you mean 'credit\.csv'\?"):
        read_table(tmp_path / "credits.csv")
    with pytest.raises(DataError, match=r"its folder '.*nowhere' does not exist"):
        read_table(tmp_path / "nowhere" / "a.csv")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected files that end in one of \.csv, .* in the folder .* there are none"):
        read_table(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", ["", " \n\n"])
def test_empty_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match=r"Expected a table, but the file '.*' is empty"):
        _read(tmp_path, content, name=f"data{name}")


@pytest.mark.parametrize("content", ["a,b", "a,b\n", "a,b\r\n\r\n", "a,b\n\n\n"])
def test_header_only_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"Expected rows, but '.*data\.csv' has a header and no row below it; give"):
        _read(tmp_path, content)


def test_table_without_rows_or_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected rows, but 'DataFrame' has a header and no row"):
        read_table(pd.DataFrame({"a": []}))
    with pytest.raises(DataError, match="Expected a table, but DataFrame has no columns"):
        read_table(pd.DataFrame())
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"Expected rows, but '.*a\.parquet' has a header"):
        read_table(tmp_path / "a.parquet")


def test_duplicate_column_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected different column names, but 'a' names the columns 1, 3 of "):
        _read(tmp_path, "a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match="Expected different column names, but 'a' names the columns 1, 2 of the DataF"):
        read_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3\n", "Expected 2 fields in every row of '.*', but line 3 has 1: '3'"),
        ("\n\na,b\n1,2\n\n1,2,3\n", "Expected 2 fields in every row of '.*', but line 6 has 3: '1,2,3'"),
        ('a,b\n"x\ny",2\n1,2,3\n', "Expected 2 fields in every row of '.*', but line 4 has 3"),
        ("a,b\n" + "1,2\n" * 50_000 + "3\n", "Expected 2 fields in every row of '.*', but line 50002 has 1"),
        ('a,b\n"1,2\n3,4\n', "Expected 2 fields in every row of '.*', but line 2 has 1"),
        ('a,b\n5,6\n1,"2\n3,4\n', "Expected every quote in '.*' to be closed, but the one opened in line 3 is not"),
    ],
)
def test_ragged_rows_are_refused_with_their_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.random.default_rng(0).bytes(5_000), r"is not text \(a NUL byte at offset \d+\)"),
        (bytes([1, 2, 3, 4, 65]) * 100, r"is not text \(400 control characters\)"),
        (b"PK\x03\x04 more", "is a zip archive or an Excel sheet; save it as CSV"),
        (b"PAR1 more", "is Parquet; name it .parquet"),
    ],
)
def test_binary_garbage_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("a\né\n".encode("cp1252"), "utf-8", "Expected text in utf-8 in '.*', but byte 0xE9 at offset 2 is none"),
        ("ñ\né\n".encode() + b"\xe9x\n", None, "Expected text in utf-8 in '.*', but byte 0xE9 at offset 6 is none"),
        (b"a\n\x81\n", None, "Expected text in cp1252 in '.*', but byte 0x81 at offset 2 is none"),
        (b"a\n1\n", "klingon", "Expected the name of an encoding such as utf-8, cp1252 or utf-16, received 'klingon'"),
        (b"a\n\x00\n", "cp1252", "holds NUL characters; it is not a CSV file in cp1252"),
    ],
)
def test_wrong_encoding_is_refused_with_the_offset(
    tmp_path: Path, content: bytes, encoding: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, content, options=ReadOptions(encoding=encoding))


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a complete gzip file, but '.*' is cut off or broken"):
        _read(tmp_path, gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-9], name="a.csv.gz")


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a Parquet file, but '.*' cannot be read as one"):
        _read(tmp_path, "a,b\n1,2\n", name="a.parquet")


def test_unknown_ending_and_unknown_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in one of \.csv, .*received '.*a\.sas'"):
        _read(tmp_path, "a", name="a.sas")
    with pytest.raises(DataError, match=r"Expected paths or URLs, a DataFrame, an Arrow table or .*, received int"):
        read_table(3)


def test_frame_column_that_mixes_numbers_and_text_is_refused() -> None:
    frame = pd.DataFrame({"a": [1, None, "x", 2]})
    with pytest.raises(
        DataError, match="Expected numbers in column 'a', but 1 of 3 values are text, the first 'x' in row 3"
    ):
        read_table(frame)
    assert read_table(frame, options=ReadOptions(text_columns=("a",))).table.column("a")[2].as_py() == "x"


def test_frame_column_of_other_objects_is_refused() -> None:
    with pytest.raises(DataError, match="Expected one type of value in column 'a', received objects that Arrow cannot"):
        read_table(pd.DataFrame({"a": [{}, [], 1]}))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(DataError, match="Expected one character as the delimiter, received ';;'"):
        ReadOptions(delimiter=";;")
    with pytest.raises(DataError, match=r"Expected '.' or ',' as the decimal mark, received 'x'"):
        ReadOptions(decimal="x")


def test_two_may_read_a_file_in_memory_at_once() -> None:
    import fsspec

    content = b"a,b\n" + b"1,2\n" * 100
    with fsspec.open("memory://two/rows.csv", "wb") as file:
        file.write(content)
    stored = StoredFile("memory://two/rows.csv")
    with stored.opened() as one:
        assert one.read(100) == content[:100]
        with stored.opened() as other:
            assert other.read(4) == content[:4]
        assert one.read() == content[100:]
