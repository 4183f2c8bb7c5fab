"""Both ways of keeping states; what is behind a URL is a folder of this machine, reached as any file system is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from app import state_store
from app.config import DataConfig, ExecutionConfig, ExperimentConfig
from app.data_files import write_config
from app.errors import ConfigError, StateStoreError
from app.run_directory import RunDirectory
from app.state_store import (
    RunDirectoryStates,
    StateStore,
    StoredStates,
    check_checkpoints,
    remove_abandoned,
    with_own_checkpoints,
)

Made = Callable[[], StateStore]


def put_whole(_: LocalFileSystem, source: str, path: str) -> None:
    """As in an object store, where folders are but parts of names."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)


@pytest.fixture(params=["run directory", "url", "object store"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a store that a process has; all look at the same states."""
    if request.param == "run directory":
        return lambda: RunDirectoryStates(RunDirectory(tmp_path))
    if request.param == "object store":
        # Such have no renames: a file appears when it is written to its end.
        monkeypatch.setattr(state_store, "OBJECT_STORES", frozenset({"file"}))
        monkeypatch.setattr(LocalFileSystem, "mv", None)
        monkeypatch.setattr(LocalFileSystem, "put_file", put_whole)
    return lambda: StoredStates(f"file://{tmp_path}/kept", pauses=())


def write(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("fold_", "fold-")
        path.parent.mkdir(parents=True, exist_ok=True)
        # As `save_state` writes.
        (path.parent / f".{path.name}").write_text(content)
        (path.parent / f".{path.name}").replace(path)


def read(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_another_process_goes_on_from_what_was_kept(make: Made) -> None:
    one, other = make(), make()
    with one.held(3) as folder:
        assert read(folder) == {}
        write(folder, current="1", best="1")
        one.keep(3)
        write(folder, current="2")
        one.keep(3, ended=True)
    with other.held(3) as folder:
        assert read(folder) == {"best": "1", "current": "2"}
        write(folder, current="3", fold_1__best="f")
        other.keep(3, ended=True)
    with one.held(3) as folder:
        assert read(folder) == {"best": "1", "current": "3", "fold-1/best": "f"}
    with one.held(3, only=["best"]) as folder:
        assert {"best", "fold-1/best"} <= set(read(folder))
    assert one.sizes(3) == {"best": 1, "current": 1, "fold-1/best": 1}


def test_what_is_removed_from_the_folder_is_not_kept(make: Made) -> None:
    store = make()
    with store.held(0) as folder:
        write(folder, fold_1__current="1", fold_1__best="1")
        store.keep(0)
        write(folder, fold_1__finished="yes")
        (folder / "fold-1" / "current").unlink()
        store.keep(0, ended=True)
    assert store.sizes(0) == {"fold-1/best": 1, "fold-1/finished": 3}


def test_files_and_whole_states_are_deleted(make: Made) -> None:
    store = make()
    assert (store.numbers(), store.sizes(7)) == (set(), {})
    for number in (7, 12345):
        with store.held(number) as folder:
            write(folder, current="1", best="22")
            store.keep(number, ended=True)
    assert store.numbers() == {7, 12345}
    store.delete(7, names=["current", "absent"])
    store.delete(12345)
    store.delete(99)
    assert (store.numbers(), store.sizes(7)) == ({7}, {"best": 2})


@pytest.fixture
def stored(tmp_path: Path) -> StoredStates:
    return StoredStates(f"file://{tmp_path}/kept", pauses=())


def test_names_that_are_none_of_a_state_are_left_where_they_are(stored: StoredStates, tmp_path: Path) -> None:
    for name in ("0001/current", "0001/.best.part", "0001/other/current", "0001/Best", "notes/current", "01/current"):
        (tmp_path / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kept" / name).write_text("x")
    assert (stored.numbers(), stored.sizes(1)) == ({1}, {"current": 1})
    with stored.held(1) as folder:
        assert read(folder) == {"current": "x"}


def test_copying_takes_a_share_of_the_time_between_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, copied = 0.0, []
    store = StoredStates(f"file://{tmp_path}/kept", clock=lambda: now)
    put = store._files.put_file

    def slow(source: str, path: str) -> None:
        nonlocal now
        now += 1.0
        copied.append(Path(source).read_text())
        put(source, path)

    monkeypatch.setattr(store._files, "put_file", slow)
    with store.held(0) as folder:
        for epoch in range(40):
            write(folder, current=str(epoch))
            store.keep(0)
            now += 0.5
        # A request of a second, and nine or ten for the training: 20 epochs of half a second.
        assert copied == ["0", "20"]
        store.keep(0, ended=True)
    assert copied == ["0", "20", "39"]


def test_a_request_that_fails_is_made_again_before_the_trial_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StoredStates(f"file://{tmp_path}/kept", pauses=(0.0, 0.0))
    failures = [OSError("reset"), OSError("reset")]
    put = store._files.put_file

    def shaky(source: str, path: str) -> None:
        if failures:
            raise failures.pop()
        put(source, path)

    monkeypatch.setattr(store._files, "put_file", shaky)
    with store.held(0) as folder:
        write(folder, current="1")
        store.keep(0, ended=True)
        assert store.sizes(0) == {"current": 1}
        failures = [OSError("reset by peer")] * 3
        write(folder, current="2")
        with pytest.raises(
            StateStoreError,
            match=r"checkpoints at file:///.*/kept cannot be reached \(OSError: reset by peer\): look at the address",
        ):
            store.keep(0, ended=True)


def test_a_folder_of_this_machine_is_gone_when_nobody_works_on_it(
    stored: StoredStates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    for number in (0, 1):
        with stored.held(number) as folder, stored.held(2) as other:
            write(folder, current="1")
            write(other, current="2")
            stored.keep(number, ended=True)
            assert set(read(place).values()) == {"1", "2"}
        # A worker is killed when it is not needed any more: nothing may be left for later.
        assert list(place.iterdir()) == []


def test_what_a_killed_worker_left_behind_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"tamiz-states-{ended.pid}-abc", f"tamiz-states-{os.getpid()}-abc", "tamiz-states-notes"]
    for name in names:
        (tmp_path / name).mkdir()
    remove_abandoned()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("memory://states", "checkpoints are 'memory://states': expected a place that all workers reach, such as s3://"),
        ("simplecache::s3://bucket/x", "expected a place that all workers reach"),
        ("s3://key:secret@bucket/x", r"checkpoints 's3://bucket/x' have a user, a password or a query in their URL"),
        ("gss://bucket/x", r"'gss://bucket/x' are no URL that fsspec can open .*\(did you mean 'gs'\?\): expected"),
    ],
)
def test_a_place_that_cannot_keep_states_is_refused(place: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_checkpoints(place)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def absent(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(ConfigError, match=r"'s3://bucket/x' need a package .* \(Install s3fs to access S3\): install"):
        check_checkpoints("s3://bucket/x")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateStoreError, match=r"checkpoints at .*/file/states cannot be reached \(\w+: .*\): look at"):
        check_checkpoints(str(tmp_path / "file" / "states"))


def test_a_place_that_can_be_used_is_left_empty(tmp_path: Path) -> None:
    check_checkpoints(str(tmp_path / "states"))
    assert read(tmp_path) == {}


def test_every_experiment_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = ExperimentConfig(name="adult", data=DataConfig(target="y"))
    assert with_own_checkpoints(config) == config

    def place(checkpoints: str) -> str:
        asked = ExperimentConfig(name="adult", execution=ExecutionConfig(checkpoints=checkpoints))
        return with_own_checkpoints(asked).execution.checkpoints

    assert place("s3://bucket/runs/").rpartition("-")[0] == "s3://bucket/runs/adult"
    assert place("s3://bucket/runs") != place("s3://bucket/runs")
    assert place("states").startswith(f"{tmp_path}/states/adult-")


def test_the_settings_of_a_run_say_where_its_states_are(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    assert isinstance(state_store.state_store(directory), RunDirectoryStates)
    directory.path.mkdir()
    execution = ExecutionConfig(checkpoints=f"file://{tmp_path}/states/adult-1")
    write_config(directory, ExperimentConfig(execution=execution))
    store = state_store.state_store(directory)
    assert isinstance(store, StoredStates)
    assert store.place == execution.checkpoints
