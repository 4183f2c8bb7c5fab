from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ExperimentConfig
from app.errors import ConfigError, RunDirectoryError
from app.run_directory import RunDirectory, read_json, write_atomically, write_json

HOLD = """
import sys, time
from app.run_directory import RunDirectory
with RunDirectory(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A directory that holds an experiment."""
    made = RunDirectory(tmp_path / "run")
    write_atomically(made.config_file, ExperimentConfig().to_toml())
    return made


def test_a_staged_directory_appears_whole(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "new" / "run")
    with directory.staged() as staged:
        write_atomically(staged.config_file, "")
        assert not directory.path.exists()
    assert directory.holds_experiment
    assert os.listdir(directory.path.parent) == ["run"]
    assert directory.path.stat().st_mode & 0o777 == 0o755


def test_a_staged_directory_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with RunDirectory(tmp_path / "run").staged() as staged:
        write_atomically(staged.config_file, "")
    assert RunDirectory(tmp_path / "run").holds_experiment


def test_a_staged_directory_vanishes_with_an_error(tmp_path: Path) -> None:
    def fill() -> None:
        with RunDirectory(tmp_path / "run").staged() as staged:
            write_atomically(staged.config_file, "")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fill()
    assert os.listdir(tmp_path) == []


def test_a_place_that_is_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")

    def lose() -> None:
        with directory.staged() as staged:
            write_atomically(staged.config_file, "slow")
            write_atomically(directory.config_file, "fast")

    with pytest.raises(RunDirectoryError, match="run was taken by another search: give another place with --run"):
        lose()
    assert directory.config_file.read_text() == "fast"
    assert os.listdir(tmp_path) == ["run"]


def test_a_free_place_passes_and_nothing_is_made(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "not" / "yet" / "there").check_free()
    assert os.listdir(tmp_path) == []


def test_a_place_with_an_experiment_is_not_free(directory: RunDirectory) -> None:
    expected = re.escape(
        f"{directory.path} already holds an experiment: give another place with --run, go on with "
        f"`tamiz resume {directory.path}`, or remove the folder"
    )
    with pytest.raises(RunDirectoryError, match=expected):
        directory.check_free()


def test_a_place_with_other_files_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunDirectoryError, match="is not empty and holds no experiment: give another place with --run"):
        RunDirectory(tmp_path).check_free()


def test_a_file_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is not empty and holds no experiment"):
        RunDirectory(tmp_path / "file").check_free()


@pytest.mark.parametrize("place", ["run", "deeper/run"])
def test_a_place_below_a_file_is_not_free(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*file: it is a file, not a folder; give a place"):
        RunDirectory(tmp_path / "file" / place).check_free()


def test_a_place_that_takes_no_files_is_not_free() -> None:
    with pytest.raises(RunDirectoryError, match=r"cannot write to /proc: .*give a place you may write to with --run"):
        RunDirectory("/proc/run").check_free()


def test_the_lock_keeps_a_second_one_out_and_names_the_first(directory: RunDirectory) -> None:
    message = rf"run is locked by a live experiment \(process {os.getpid()}\): wait for it or stop it first"
    with directory.lock(), pytest.raises(RunDirectoryError, match=message), RunDirectory(directory.path).lock():
        pass


def test_a_live_experiment_is_the_better_message_for_a_taken_place(directory: RunDirectory) -> None:
    with directory.lock(), pytest.raises(RunDirectoryError, match="locked by a live experiment"):
        directory.check_free()


def test_the_lock_is_free_again_after_its_block(directory: RunDirectory) -> None:
    for _ in range(2):
        with directory.lock():
            assert directory.lock_file.read_text() == str(os.getpid())


def test_the_lock_of_a_killed_process_is_free(directory: RunDirectory) -> None:
    command = [sys.executable, "-c", HOLD, str(directory.path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        if holder.stdout is None or holder.stdout.readline() != b"held\n":
            pytest.fail("the other process could not lock")
        with pytest.raises(RunDirectoryError, match=rf"\(process {holder.pid}\)"), directory.lock():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with directory.lock():
            assert directory.lock_file.read_text() == str(os.getpid())
    finally:
        holder.kill()
        holder.communicate()


def test_an_absent_experiment_offers_those_beside_it(directory: RunDirectory) -> None:
    message = r"wrong holds no experiment: expected a folder made by `tamiz search`; .* has run"
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory.open(directory.path.with_name("wrong"))


def test_an_absent_experiment_among_none_offers_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds no experiment: expected a folder made by `tamiz search`$"):
        RunDirectory.open(tmp_path / "absent" / "run")


def test_the_settings_come_back(directory: RunDirectory) -> None:
    assert RunDirectory.open(directory.path).read_config() == ExperimentConfig()


def test_damaged_settings_are_named(directory: RunDirectory) -> None:
    directory.config_file.write_text("name = ")
    with pytest.raises(ConfigError, match=r"experiment.toml is not valid TOML"):
        directory.read_config()


def test_removal_takes_everything(directory: RunDirectory) -> None:
    write_atomically(directory.trial_state(3) / "best", b"x")
    with directory.lock():
        directory.remove()
    assert not directory.path.exists()


@pytest.mark.parametrize("content", ["text é", b"\x00bytes"])
def test_a_file_is_written_whole(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "made" / "file"
    write_atomically(path, "old")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(path.parent) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "taken" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", "new")
    assert os.listdir(tmp_path) == ["taken"]


def test_json_comes_back_and_numbers_that_it_lacks_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"cannot read .*absent.json: No such file"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(RunDirectoryError, match=r"torn.json is damaged"):
        read_json(tmp_path / "torn.json")
