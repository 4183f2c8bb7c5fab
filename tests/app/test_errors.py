from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from app.errors import (
    ConfigError,
    RunDirectoryError,
    SearchError,
    TamizError,
    WorkerError,
    is_users_to_mend,
    told_as_disk_error,
)
from app.search.journal import JournalError
from pipelines.errors import DataError
from search_spaces.catalogue import SpaceError
from tf_serving.errors import ExportError


@pytest.mark.parametrize(
    "kind",
    [
        TamizError, ConfigError, RunDirectoryError, SearchError, WorkerError, DataError, SpaceError, ExportError,
        JournalError,
    ],
)  # fmt: skip
def test_the_errors_of_every_room_are_told_in_one_line(kind: type[Exception]) -> None:
    assert is_users_to_mend(kind("x"))


@pytest.mark.parametrize("kind", [ValueError, KeyError, OSError, TypeError, RuntimeError, KeyboardInterrupt])
def test_a_defect_keeps_its_traceback(kind: type[BaseException]) -> None:
    assert not is_users_to_mend(kind("x"))


def test_a_callers_mistake_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(WorkerError, ValueError)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_to_do(code: int) -> None:
    message = "the disk is full: could not write /data/x; free some space, then go on with `tamiz resume`"
    with pytest.raises(RunDirectoryError, match=message), told_as_disk_error("run"):
        raise OSError(code, os.strerror(code), "/data/x")


def test_an_error_without_a_file_names_the_place() -> None:
    with pytest.raises(RunDirectoryError, match="could not write runs/a;"), told_as_disk_error(Path("runs/a")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_forbidden_place_is_named() -> None:
    with pytest.raises(RunDirectoryError, match="cannot open /data/x: Permission denied"), told_as_disk_error("run"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x")


def test_other_errors_of_the_system_pass() -> None:
    with pytest.raises(FileNotFoundError), told_as_disk_error("run"):
        raise FileNotFoundError(errno.ENOENT, "x")
