"""Request log, table bodies and look-ups: what needs no model."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tf_serving.answer_table import AnswerTable
from tf_serving.server.beyond import bodies, request_log
from tf_serving.server.beyond.bodies import BODY_FORMATS, read_csv_body, read_parquet_body
from tf_serving.server.beyond.options import BeyondOptions, build_extensions
from tf_serving.server.beyond.precomputed import Precomputed
from tf_serving.server.beyond.request_log import LogSettings, RequestLog
from tf_serving.server.extensions import Arrays, Call, HttpRequest, SignatureView
from tf_serving.server.status import Code, ConfigurationError, ServingError


def texts(*values: bytes) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


INPUTS = {"age": np.array([39, np.nan], np.float32), "name": texts(b"Ada", b"Bob"), "zip": texts(b"123", b"123")}
OUTPUTS = {"p": np.array([[0.25, 0.75], [1, 0]], np.float32), "label": texts(b"no", b"yes")}


def call(inputs: Arrays | None = None, **changes: Any) -> Call:
    values: dict[str, Any] = {
        "model": "adult", "version": 3, "signature": "serving_default", "method": "predict", "protocol": "gRPC",
        "inputs": INPUTS if inputs is None else inputs, "outputs": (), "headers": {}, "request_id": "r1",
    }  # fmt: skip
    return Call(**{**values, **changes})


class Served:
    """Stands where the server's models are: one that takes ``INPUTS``."""

    def names(self) -> tuple[str, ...]:
        return ("adult",)

    def available(self, model: str) -> tuple[int, ...]:
        return (3,) if model == "adult" else ()

    def signatures(self, model: str, version: int) -> dict[str, SignatureView]:
        inputs = dict.fromkeys(INPUTS, ("string", (None,)))
        return {"serving_default": SignatureView(f"{model}/{version}", "", inputs, {})}  # type: ignore[arg-type]


def logged(settings: LogSettings, *calls: Call, outputs: Arrays | None = None) -> RequestLog:
    log = RequestLog(settings)
    log.start(Served())  # type: ignore[arg-type]  # all that it asks for
    for request in calls:
        assert log.before(request) is None
        log.after(request, OUTPUTS if outputs is None else outputs, error=None, seconds=0.25)
    log.close()
    return log


def frames(directory: Path) -> list[pd.DataFrame]:
    return [pq.read_table(path).to_pandas() for path in sorted(directory.glob("*.parquet"))]


# The request log.


def test_a_row_of_the_log_is_a_row_of_a_request(tmp_path: Path) -> None:
    log = logged(LogSettings(directory=tmp_path / "log"), call(), call(request_id="r2"))
    (frame,) = frames(tmp_path / "log")
    assert log.written == len(frame) == 4
    assert frame["request_id"].tolist() == ["r1", "r1", "r2", "r2"]
    assert frame["row"].tolist() == [0, 1, 0, 1]
    assert frame["input.name"].tolist() == ["Ada", "Bob"] * 2
    assert frame["input.age"].isna().tolist() == [False, True] * 2
    assert frame["output.p"][0].tolist() == [0.25, 0.75]
    assert frame["output.label"].tolist() == ["no", "yes"] * 2
    first = frame.iloc[0]
    assert (first["model"], first["version"], first["protocol"], first["seconds"]) == ("adult", 3, "gRPC", 0.25)
    assert str(frame["time"].dtype) == "datetime64[us, UTC]"
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "log").glob("*.parquet")] == [0o600]


def test_columns_are_hashed_or_left_out(tmp_path: Path) -> None:
    settings = LogSettings(directory=tmp_path, hashed=("zip", "age"), omitted=("name",))
    logged(settings, call())
    logged(settings, call())  # a server that was started again
    frame = pd.concat(frames(tmp_path))
    assert "input.name" not in frame
    assert len(set(frame["input.zip"])) == 1
    assert len(set(frame["input.age"])) == 2
    content = b"".join(path.read_bytes() for path in tmp_path.glob("*.parquet"))
    assert b"Ada" not in content
    assert b"123" not in frame["input.zip"].str.cat().encode() or len(frame["input.zip"].iloc[0]) == 32
    key = tmp_path / request_log.SALT_FILE
    assert (key.stat().st_size, key.stat().st_mode & 0o777) == (32, 0o600)


def test_equal_rows_of_several_texts_have_equal_hashes(tmp_path: Path) -> None:
    rows = texts(b"1", b"23", b"1", b"23", b"12", b"3").reshape(3, 2)
    logged(LogSettings(directory=tmp_path, hashed=("zip",)), call({"zip": rows}), outputs={"p": np.zeros(3)})
    (frame,) = frames(tmp_path)
    first, second, third = frame["input.zip"]
    assert (first == second, first == third) == (True, False)


def test_serialized_examples_are_not_logged(tmp_path: Path) -> None:
    logged(
        LogSettings(directory=tmp_path, omitted=("name",)), call({"inputs": texts(b"Ada", b"Bob")}, method="classify")
    )
    (frame,) = frames(tmp_path)
    assert not [name for name in frame if name.startswith("input.")]
    assert len(frame) == 2


def test_models_and_versions_have_files_of_their_own(tmp_path: Path) -> None:
    logged(LogSettings(directory=tmp_path), call(), call(version=4), call({"x": np.ones(2)}), call(model="b"))
    assert sorted(path.name.split("-")[0] for path in tmp_path.glob("*.parquet")) == ["adult", "adult", "adult", "b"]


def test_files_are_closed_after_so_many_rows(tmp_path: Path) -> None:
    logged(LogSettings(directory=tmp_path, file_rows=4), *[call() for _ in range(6)])
    assert [len(frame) for frame in frames(tmp_path)] == [4, 4, 4]


def test_only_a_sample_is_logged(tmp_path: Path) -> None:
    log = logged(LogSettings(directory=tmp_path, sample=0.3), *[call() for _ in range(600)])
    assert log.dropped == 0
    assert log.written / 2 == pytest.approx(180, abs=60)


def test_a_slow_disk_drops_rows_and_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "QUEUE_REQUESTS", 4)
    log = RequestLog(LogSettings(directory=tmp_path))
    hold = threading.Event()
    add = log._add
    monkeypatch.setattr(log, "_add", lambda *entry: (hold.wait(5), add(*entry)))
    log.start(Served())  # type: ignore[arg-type]
    for _ in range(20):
        log.after(call(), OUTPUTS, error=None, seconds=0.0)
    hold.set()
    log.close()
    assert log.dropped >= 15
    assert log.dropped + log.written / 2 == 20


def test_a_full_disk_drops_rows_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr}")
    try:
        rng = np.random.default_rng(0)
        large = {"x": rng.normal(size=20_000)}
        settings = LogSettings(directory=disk, file_rows=20_000)
        log = logged(settings, *[call(large, outputs=("y",)) for _ in range(3)], outputs={"y": large["x"]})
        assert (log.dropped, log.written) == (60_000, 0)
        assert [record.getMessage() for record in caplog.records if "request log" in record.getMessage()] == [
            "The request log cannot be written ([Errno 28] No space left on device); 20000 rows were dropped so far"
        ]
        assert not list(disk.iterdir())  # nothing half-written
        log = logged(settings, call())  # and it goes on when there is room
        assert log.written == 2
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_log_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"Cannot write the request log to .*/file: "):
        RequestLog(LogSettings(directory=tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"--request_log_sample is 1.5: expected a share above 0, at most 1"):
        LogSettings(directory=tmp_path, sample=1.5)
    with pytest.raises(ConfigurationError, match="The column 'a' is both hashed and left out"):
        LogSettings(directory=tmp_path, hashed=("a",), omitted=("a", "b"))


def test_a_misspelt_column_is_refused_before_it_is_logged(tmp_path: Path) -> None:
    log = RequestLog(LogSettings(directory=tmp_path, hashed=("zip",), omitted=("nmae",)))
    with pytest.raises(
        ConfigurationError, match="No model takes 'nmae', which the request log is to hash or leave out"
    ):
        log.start(Served())  # type: ignore[arg-type]


# Table bodies.

SIGNATURE = SignatureView(
    name="serving_default",
    method_name="tensorflow/serving/predict",
    inputs={
        "age": ("float32", (None,)), "code": ("string", (None,)), "is_new": ("bool", (None,)), "n": ("int8", (None,))
    },
    outputs={},
)  # fmt: skip
CSV = b'further,code,age,is_new,n\n1,007,39,true,5\n2,"a, b",,no,-128\n'


def parquet(frame: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.to_parquet(content)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["text/csv", "application/vnd.apache.parquet"])
def test_tables_become_inputs(kind: str) -> None:
    frame = pd.DataFrame({"code": ["007", "a, b"], "age": [39, None], "is_new": [True, False], "n": [5, -128]})
    arrays = BODY_FORMATS[kind](CSV if kind == "text/csv" else parquet(frame), SIGNATURE)
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "age": "float32", "code": "object", "is_new": "bool", "n": "int8",
    }  # fmt: skip
    np.testing.assert_array_equal(arrays["age"], np.array([39, np.nan], np.float32))
    assert arrays["code"].tolist() == [b"007", b"a, b"]
    assert arrays["is_new"].tolist() == [True, False]
    assert arrays["n"].tolist() == [5, -128]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty; give a header and rows"),
        (b"age,code\n", "has a header and no row below it"),
        (CSV.replace(b"age", b"agee"), r"The data has no column 'age'. Did you mean 'agee'\?"),
        (CSV.replace(b"39", b"old"), "Expected float32 in the column 'age', received 'old' in row 1"),
        (CSV.replace(b"no", b"perhaps"), "Expected bool in the column 'is_new', received 'perhaps' in row 2"),
        (CSV.replace(b"-128", b"-129"), "Expected int8 in the column 'n', received -129 in row 2"),
        (CSV.replace(b"-128", b"1.5"), "Expected int8 in the column 'n', received 1.5 in row 2"),
        (CSV + b"1,2\n", "Expected 5 fields in every row of 'the body', but line 4 has 2"),
        (b"PAR1", "'the body' is Parquet; name it .parquet"),
    ],
)
def test_bodies_that_do_not_fit_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(ServingError, match=message) as raised:
        read_csv_body(body, SIGNATURE)
    assert raised.value.code is Code.INVALID_ARGUMENT


def test_bodies_of_the_wrong_format_or_model_are_refused() -> None:
    with pytest.raises(ServingError, match="Expected a Parquet file, but 'the body' cannot be read as one"):
        read_parquet_body(CSV, SIGNATURE)
    wide = SignatureView("s", "m", {"x": ("float32", (None, 20))}, {})
    with pytest.raises(ServingError, match=r"the input 'x' has the shape \[None, 20\]"):
        read_csv_body(b"x\n1\n", wide)
    times = pd.DataFrame({"x": pd.to_datetime(["2024-01-01"])})
    narrow = SignatureView("s", "m", {"x": ("float32", (None,))}, {})
    with pytest.raises(ServingError, match="Expected numbers in the column 'x', received timestamp"):
        read_parquet_body(parquet(times), narrow)


def test_a_few_bytes_of_parquet_become_no_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = SignatureView("s", "m", {"x": ("string", (None,))}, {})
    # One value, which the file stores once for all rows.
    bomb = parquet(pd.DataFrame({"x": ["a" * 1_000] * 20_000, "other": 1.0}))
    assert len(bomb) < 10_000
    assert read_parquet_body(bomb, narrow)["x"].tolist() == [b"a" * 1_000] * 20_000
    with monkeypatch.context() as patch:
        patch.setattr(bodies, "MAX_BYTES", 10_000_000)
        with pytest.raises(ServingError, match="Expected at most 10,000,000 bytes of rows, but the body unpacks to mo"):
            read_parquet_body(bomb, narrow)
    monkeypatch.setattr(bodies, "MAX_ROWS", 1_000)
    with pytest.raises(ServingError, match="Expected at most 1,000 rows, but the body has 20,000"):
        read_parquet_body(bomb, narrow)


# Look-ups.


@pytest.fixture
def precomputed(tmp_path: Path) -> Precomputed:
    path = tmp_path / "answers.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (id INTEGER PRIMARY KEY, label TEXT, p REAL)")
        connection.executemany("INSERT INTO answers VALUES (?, ?, ?)", [(1, "yes", 0.5), (2, "größe", None)])
    connection.close()
    return Precomputed(AnswerTable(str(path), key="id"))


def looked_up(precomputed: Precomputed, method: str, *, key: str = "", body: bytes = b"") -> Any:
    (route,) = [route for route in precomputed.routes() if route.method == method]
    request = HttpRequest(method, "/", "", {}, body, "p", "r")
    response = route.handler(request, {"key": key}, None)  # type: ignore[arg-type]  # it asks no model
    assert response.status == 200
    return json.loads(response.body)


def test_answers_are_looked_up(precomputed: Precomputed) -> None:
    assert looked_up(precomputed, "GET", key="2") == {"answer": {"label": "größe", "p": None}}
    answers = looked_up(precomputed, "POST", body=b'{"keys": ["1", 7, 2]}')["answers"]
    assert answers == [{"label": "yes", "p": 0.5}, None, {"label": "größe", "p": None}]
    precomputed.close()


@pytest.mark.parametrize(
    ("method", "key", "body", "code", "message"),
    [
        ("GET", "%37", b"", Code.NOT_FOUND, "There is no answer for id '7'"),
        ("POST", "", b"{", Code.INVALID_ARGUMENT, "JSON Parse error: "),
        ("POST", "", b"[1]", Code.INVALID_ARGUMENT, r'Expected \{"keys": \[...\]\}'),
        ("POST", "", b'{"keys": 1}', Code.INVALID_ARGUMENT, r'Expected \{"keys": \[...\]\}'),
        ("POST", "", b'{"keys": [1.5]}', Code.INVALID_ARGUMENT, "text or a whole number as a key, received '1.5'"),
        ("POST", "", b'{"keys": [' + b"1," * 10_000 + b"1]}", Code.INVALID_ARGUMENT, "at most 10,000 keys at once"),
        ("POST", "", b'{"keys": [' + b"[" * 1_000 + b"]" * 1_001 + b"}", Code.INVALID_ARGUMENT, "nested deeper than 8"),
        ("POST", "", b" " * 1_100_000, Code.INVALID_ARGUMENT, "at most 1,048,576 bytes of keys"),
    ],
)
def test_other_look_ups_are_refused(
    precomputed: Precomputed, method: str, key: str, body: bytes, code: Code, message: str
) -> None:
    with pytest.raises(ServingError, match=message) as raised:
        looked_up(precomputed, method, key=key, body=body)
    assert raised.value.code is code
    precomputed.close()


def test_a_database_that_fails_is_no_mistake_of_the_client(precomputed: Precomputed, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "answers.db") as connection:
        connection.execute("DROP TABLE answers")
    connection.close()
    with pytest.raises(ServingError, match="Cannot read the table 'answers'") as raised:
        looked_up(precomputed, "GET", key="1")
    assert raised.value.code is Code.UNAVAILABLE
    precomputed.close()


# All options together.


def test_nothing_is_on_unless_asked() -> None:
    extensions = build_extensions(BeyondOptions())
    assert extensions == type(extensions)()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precomputed": "a.db"}, "--precomputed needs --key: the column by which answers are looked up"),
        ({"precomputed": "absent.db", "key": "id"}, "There is no file 'absent.db'"),
        ({"key": "id"}, "--key has no effect without --precomputed"),
        ({"route_header": "x"}, "--route_header has no effect without --route"),
        ({"cache_seconds": 5.0}, "--cache_seconds has no effect without --cache_mb"),
        ({"request_log_hash": ("a",)}, "--request_log_hash has no effect without --request_log"),
        ({"rate_limit": -1.0}, "--rate_limit is -1: expected requests per second above zero"),
        ({"api_keys": "absent"}, "Cannot read the API keys in absent"),
        ({"cache_mb": -1.0}, "--cache_mb is -1 for 300 s: expected both above zero"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_extensions(BeyondOptions(**options))


def test_flags_ask_for_what_there_is_beyond(tmp_path: Path) -> None:
    from tf_serving.server.flags import parse_flags, usage

    flags = [
        "--model_base_path=/models/a", "--route=1:90,2:10", "--route", "b=1:1", "--shadow=2", "--cache_mb=1",
        "--pages", "--table_bodies", f"--request_log={tmp_path}", "--request_log_hash=a,b", "--request_log_omit=c",
        "--rate_limit=5",
    ]  # fmt: skip
    extensions = parse_flags(flags).settings.extensions
    assert (len(extensions.gates), len(extensions.routers), len(extensions.hooks)) == (1, 1, 3)
    assert {route.pattern for route in extensions.routes} >= {"/v1/shadow", "/openapi.json"}
    assert set(extensions.body_formats) == set(BODY_FORMATS)
    assert "--request_log_hash=()" in usage()
    assert parse_flags(flags[:1]).settings.extensions == type(extensions)()
    with pytest.raises(ConfigurationError, match="--cache_mb is a number, not 'much'"):
        parse_flags([flags[0], "--cache_mb=much"])
