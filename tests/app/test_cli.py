"""Every bad input: one line, exit code 2, no traceback, nothing half-written. None of these reaches TensorFlow."""

from __future__ import annotations

import gzip
import re
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.config import DataConfig, ExperimentConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.run_directory import RunDirectory

NUM_ROWS = 60


def table(num_rows: int = NUM_ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 60, num_rows),
            "city": rng.choice(["Rome", "Oslo"], num_rows),
            "income": rng.choice(["high", "low"], num_rows),
        }
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too, and every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def tamiz(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def check_refused(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("tamiz: ")
    assert re.search(message, lines[0]), lines[0]


Refused = Callable[..., None]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command in a folder of its own and checks that it is refused and leaves everything as it was."""
    monkeypatch.chdir(tmp_path)

    def check(*arguments: object, message: str) -> None:
        before = contents(tmp_path)
        check_refused(tamiz(*arguments), message)
        assert contents(tmp_path) == before

    return check


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    table().to_csv(path, index=False)
    return path


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    """A run directory whose search was killed before it began."""
    config = ExperimentConfig(name="people", data=DataConfig(source=str(data), target="income"))
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(prepare_data(read_source(data, config), config), config, directory=staged)
    return directory.path


def write(content: str | bytes, *, name: str = "bad.csv") -> Path:
    """Writes a file into the working directory."""
    path = Path.cwd() / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv_of(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False))


# The data.


def test_a_missing_file_is_refused_with_the_nearest_name(refused: Refused, data: Path) -> None:
    message = r"no file .*poeple.csv'. Did you mean 'people.csv'\?"
    refused("search", data.with_name("poeple.csv"), "--target", "income", message=message)


def test_a_missing_folder_is_refused(refused: Refused) -> None:
    refused("search", "no/such.csv", "--target", "income", message="its folder '.*no' does not exist")


def test_a_file_of_an_unknown_kind_is_refused(refused: Refused) -> None:
    path = write("a,b\n1,2\n", name="people.sas")
    message = r"Expected a file that ends in one of .csv.* received .*people.sas"
    refused("search", path, "--target", "b", message=message)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_refused(refused: Refused, content: bytes) -> None:
    refused("search", write(content), "--target", "income", message=r"bad.csv' is empty; give a file with a header")


def test_a_header_without_rows_is_refused(refused: Refused) -> None:
    refused("search", write("age,income\n"), "--target", "income", message="has a header and no row below it")


def test_an_absent_target_is_refused_with_the_nearest_name(refused: Refused, data: Path) -> None:
    refused("search", data, "--target", "incone", message="no target column 'incone'.*'income'")


def test_no_target_is_refused(refused: Refused, data: Path) -> None:
    refused("search", data, message="no target: say which column to predict with --target")


def test_a_constant_target_is_refused(refused: Refused) -> None:
    path = write(csv_of(table().assign(income="high")))
    message = "two different values of the target 'income', received 'high'"
    refused("search", path, "--target", "income", message=message)


def test_a_target_that_is_always_missing_is_refused(refused: Refused) -> None:
    path = write(csv_of(table().assign(income=None)))
    refused("search", path, "--target", "income", message=f"'income' is missing in all {NUM_ROWS} rows")


def test_a_class_with_a_single_row_is_refused(refused: Refused) -> None:
    frame = table()
    frame.loc[7, "income"] = "middle"
    path = write(csv_of(frame))
    refused("search", path, "--target", "income", message="class 'middle' of 'income' has a single row")


def test_equal_column_names_are_refused(refused: Refused) -> None:
    path = write(csv_of(table()).replace("city", "age", 1))
    refused("search", path, "--target", "income", message="'age' names the columns 1, 2 of .*rename all but one")


def test_ragged_rows_are_refused_with_their_line(refused: Refused) -> None:
    path = write(csv_of(table()) + "1,Rome\n")
    message = f"Expected 3 fields in every row of .*, but line {NUM_ROWS + 2} has 2: '1,Rome'"
    refused("search", path, "--target", "income", message=message)


def test_binary_garbage_is_refused(refused: Refused) -> None:
    path = write(bytes(np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)))
    refused("search", path, "--target", "income", message=r"bad.csv' is not text .*convert it to CSV or Parquet")


def test_a_broken_parquet_file_is_refused(refused: Refused) -> None:
    path = write(b"PAR1 and no more", name="bad.parquet")
    refused("search", path, "--target", "income", message="Expected a Parquet file, but .*bad.parquet' cannot be read")


def test_a_wrong_encoding_is_refused_with_the_byte(refused: Refused) -> None:
    path = write(csv_of(table()).replace("Rome", "Málaga").encode("cp1252"))
    message = "Expected text in utf-8 .* byte 0xE1 at offset .* name the right one with --encoding"
    refused("search", path, "--target", "income", "--encoding", "utf-8", message=message)


def test_an_unknown_encoding_is_refused(refused: Refused, data: Path) -> None:
    message = "Expected the name of an encoding .* received 'utf-9'"
    refused("search", data, "--target", "income", "--encoding", "utf-9", message=message)


def test_infinite_values_are_refused_with_their_row(refused: Refused) -> None:
    frame = table().astype({"age": float})
    frame.loc[11, "age"] = np.inf
    message = "column 'age', but 1 are infinite, the first in row 12; mend"
    refused("search", write(csv_of(frame)), "--target", "income", message=message)


def test_an_infinite_target_is_refused(refused: Refused) -> None:
    frame = table().assign(income=np.linspace(0.0, 1.0, NUM_ROWS))
    frame.loc[3, "income"] = -np.inf
    message = "finite numbers in the target 'income'.*row 4"
    refused("search", write(csv_of(frame)), "--target", "income", message=message)


def test_a_column_of_mixed_types_is_refused_with_the_value(refused: Refused) -> None:
    frame = table(200).astype({"age": object})
    frame["age"] = [f"{value}.5" for value in range(200)]
    frame.loc[5, "age"] = "unknown"
    message = "numbers in column 'age', but 1 of 200 values are none, the first 'unknown' in row 6; mend them"
    refused("search", write(csv_of(frame)), "--target", "income", message=message)


def test_a_table_of_a_few_rows_is_refused(refused: Refused) -> None:
    path = write(csv_of(table(19)))
    refused("search", path, "--target", "income", message="at least 20 rows with a value of 'income', received 19")


def test_an_override_of_an_absent_column_is_refused(refused: Refused, data: Path) -> None:
    message = "no column 'agee'. Did you mean 'age'"
    refused("search", data, "--target", "income", "--feature", "agee=numeric", message=message)


def test_an_absent_group_column_is_refused(refused: Refused, data: Path) -> None:
    refused("search", data, "--target", "income", "--group", "town", message="no group column 'town'")


def test_an_absent_time_column_is_refused(refused: Refused, data: Path) -> None:
    refused("search", data, "--target", "income", "--time-column", "day", message="no time column 'day'")


# The settings.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time", "0"], "time is '0': expected more than zero, such as 90s, 10m or 1h30m"),
        (["--time", "5 parsecs"], "time is '5 parsecs': expected a duration such as 90s, 10m or 1h30m"),
        (["--space", "mpl"], r"unknown space 'mpl' \(did you mean 'mlp'\?\): expected one of .*mlp, .*, or your own"),
        (["--space", "my-module:build"], "unknown space 'my-module:build'"),
        (["--algorithm", "baysian"], "no algorithm 'baysian'; did you mean 'bayesian'"),
        (["--algorithm", "hyperband+ramdom"], "no algorithm 'hyperband\\+ramdom'; did you mean 'hyperband"),
        (["--objective", "acuracy"], "a metric or a measure, got 'acuracy'; did you mean 'accuracy'"),
        (["--objective", "accuracy,latancy"], "a metric or a measure, got 'latancy'; did you mean 'latency"),
        (["--limit", "latancy<=5"], "'latancy'; did you mean 'latency"),
        (["--limit", "latency"], "'latency'"),
        (["--start-from", "absent"], "absent"),
        (["--executor", "rai"], r"executor is 'rai' \(did you mean 'ray'\?\): expected local, ray"),
        (["--worker-memory", "lots"], "memory is 'lots': expected a size such as 4GB"),
        (["--workers", "2000"], r"workers is 2000: expected a number from 0 \(automatic\) to 1024"),
        (["--objective", "rmse"], "expected a metric for a binary task, got 'rmse'; choose one of accuracy"),
        (["--task", "multclass"], r"task is 'multclass' \(did you mean 'multiclass'\?\)"),
        (["--feature", "age"], "feature is 'age': expected NAME=KIND"),
        (["--feature", "age=numerc"], r"'age' is set to 'numerc' \(did you mean 'numeric'\?\): expected one of"),
        (["--device", "GPU"], "device is 'GPU': expected a name such as GPU:0 or CPU:1"),
        (["--seed", "-1"], "seed is -1: expected a whole number from 0"),
        (["--name", "../evil"], "name is '../evil': expected up to 100 letters"),
        (["--config", "absent.toml"], "cannot read the configuration absent.toml: No such file"),
    ],
)
def test_a_wrong_setting_is_refused(refused: Refused, data: Path, options: list[str], message: str) -> None:
    refused("search", data, "--target", "income", *options, message=message)


def test_an_unknown_setting_in_the_file_is_refused_with_the_nearest_name(refused: Refused, data: Path) -> None:
    path = write("[search]\ntrails = 3\n", name="my.toml")
    message = r"unknown setting 'trails' \(did you mean 'trials'\?\)"
    refused("search", data, "--target", "income", "--config", path, message=message)


def test_a_word_that_is_no_number_is_refused(data: Path) -> None:
    result = tamiz("search", data, "--target", "income", "--trials", "many")
    assert result.exit_code == 2
    assert "Invalid value for '--trials'" in result.stderr


# The run directory.


def test_a_run_directory_with_an_experiment_is_refused(data: Path, run: Path) -> None:
    (run / "lock").write_text("")
    result = tamiz("search", data, "--target", "income", "--run", run)
    check_refused(result, r"run already holds an experiment: give another place with --run, go on with `tamiz resume")


def test_a_run_directory_of_a_live_experiment_is_refused(refused: Refused, data: Path, run: Path) -> None:
    with RunDirectory(run).lock():
        message = r"run is locked by a live experiment \(process \d+\): wait for it or stop it first"
        refused("search", data, "--target", "income", "--run", run, message=message)
        refused("resume", run, message=message)


def test_a_run_directory_below_a_file_is_refused(refused: Refused, data: Path) -> None:
    message = "cannot write to .*people.csv: it is a file, not a folder; give a place you may write to with --run"
    refused("search", data, "--target", "income", "--run", data / "run", message=message)


def test_a_run_directory_where_nothing_can_be_written_is_refused(refused: Refused, data: Path) -> None:
    refused("search", data, "--target", "income", "--run", "/proc/run", message="cannot write to /proc: ")


@pytest.mark.parametrize("command", [["resume"], ["leaderboard"], ["predict"]])
def test_a_folder_that_is_no_run_is_refused(refused: Refused, data: Path, command: list[str]) -> None:
    more = [data, "--output", "out.csv"] if command == ["predict"] else []
    refused(*command, data.parent / "nothing", *more, message="holds no experiment: expected a folder made by")


def test_resume_refuses_changed_data(data: Path, run: Path) -> None:
    (run / "lock").touch()
    data.write_text(data.read_text().replace("Rome", "Riga"))
    before = contents(run)
    message = r"people.csv.* has changed since .*run began \(fingerprint .*restore the data, .*--stored-rows"
    check_refused(tamiz("resume", run), message)
    assert {**contents(run), "lock": b""} == before


def test_resume_refuses_other_data(run: Path) -> None:
    other = run.with_name("other.csv")
    table(70).to_csv(other, index=False)
    check_refused(tamiz("resume", run, "--data", other), r"other.csv.* has changed since")


def test_resume_refuses_a_wrong_time(refused: Refused, run: Path) -> None:
    refused("resume", run, "--time", "soon", message="time is 'soon': expected a duration")


def test_resume_refuses_a_damaged_journal(run: Path) -> None:
    (run / "journal.jsonl").write_text('{"event":"journal","version":1}\n{"event":\n{"event":"session"}\n')
    check_refused(tamiz("resume", run), r"Line 2 of .*journal.jsonl is broken")


def test_a_leaderboard_before_the_search_says_how_to_go_on(refused: Refused, run: Path) -> None:
    refused("leaderboard", run, message="run has no search yet: go on with `tamiz resume .*run`")


# Predictions and the board.


@pytest.mark.parametrize("name", ["out.xlsx", "out"])
def test_predict_refuses_an_unknown_format(refused: Refused, data: Path, run: Path, name: str) -> None:
    message = f"cannot write {name}: expected a name ending in .parquet or .csv"
    refused("predict", run, data, "--output", name, message=message)


@pytest.mark.parametrize("place", ["absent/out.csv", "people.csv/out.csv"])
def test_predict_refuses_an_absent_folder(refused: Refused, data: Path, run: Path, place: str) -> None:
    refused("predict", run, data, "--output", place, message=f"cannot write {place}: the folder .* does not exist")


def test_predict_refuses_a_run_without_a_model(refused: Refused, data: Path, run: Path) -> None:
    message = "has no exported model yet: go on with `tamiz resume"
    refused("predict", run, data, "--output", "out.csv", message=message)


def test_predict_refuses_a_table_without_a_column(refused: Refused, run: Path) -> None:
    (run / "export" / "people" / "1").mkdir(parents=True)
    (run / "export" / "people" / "1" / "saved_model.pb").touch()
    path = write(csv_of(table().rename(columns={"city": "citty"})))
    refused("predict", run, path, "--output", "out.csv", message="no column 'city'. Did you mean 'citty'")


def test_predict_refuses_words_in_a_column_of_numbers(refused: Refused, run: Path) -> None:
    (run / "export" / "people" / "1").mkdir(parents=True)
    (run / "export" / "people" / "1" / "saved_model.pb").touch()
    frame = table().astype({"age": object})
    frame.loc[2, "age"] = "old"
    message = "Expected a number in column 'age', received 'old' in row 3"
    refused("predict", run, write(csv_of(frame)), "--output", "out.csv", message=message)


def test_board_refuses_an_absent_folder(refused: Refused) -> None:
    refused("board", "absent", message="absent is no folder: expected a run directory, or one that holds several")


def test_board_refuses_an_address_of_another_machine(refused: Refused, run: Path) -> None:
    refused("board", run, "--host", "192.0.2.1", "--port", "0", message="cannot listen on '192.0.2.1': ")


def test_board_refuses_a_taken_port(refused: Refused, run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        message = f"port {port} is taken: give another with --port, or 0 for a free one"
        refused("board", run, "--port", port, message=message)


# What is no error.


def test_help_names_every_command() -> None:
    result = tamiz("--help")
    assert result.exit_code == 0
    commands = ("search", "resume", "watch", "predict", "serve", "deploy", "bench-serve", "board", "leaderboard")
    for command in (*commands, "version"):
        assert command in result.output


def test_version_is_one_line() -> None:
    result = tamiz("version")
    assert (result.exit_code, len(result.output.strip().splitlines())) == (0, 1)
