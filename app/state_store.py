"""Where the states of trials are kept: in the run directory, or behind a URL that fsspec opens. No TensorFlow.

Behind a URL nothing can be appended to or mapped into memory, and a request takes as long as a whole epoch of a small
network. So a worker trains on a folder of its own machine, which it begins with what is kept of the trial, and copies
what has changed to the URL: at the end of a trial always, between epochs as often as a tenth of the time allows.
"""

from __future__ import annotations

import abc
import contextlib
import os
import re
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, final

from app.config import ExperimentConfig
from app.errors import ConfigError, StateStoreError, did_you_mean
from app.run_directory import RunDirectory
from pipelines.addresses import is_url, shown_place

BEST_FILE = "best"
"""The weights of a trial's, or a fold's, best epoch."""

PREDICTIONS_FILE = "predictions"
"""What they answered on the rows held out."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"})
"""Protocols by which a file appears whole or not at all, so that no rename is needed (there is none)."""

COPYING_SHARE = 0.1
"""Of the time between two epochs, for copying what has changed."""

PAUSES = (0.5, 2.0)
"""Seconds between the attempts at a request that fails; the file systems themselves try again too."""

_NAME = re.compile(r"(?:fold-\d{1,4}/)?[a-z][a-z0-9_.]*")
_TRIAL = re.compile(r"\d{4,9}")
_SCRATCH = re.compile(r"tamiz-states-(\d+)-\w+")

_R = TypeVar("_R")


class StateStore(abc.ABC):
    """The states of all trials of an experiment, each a folder of files such as ``current`` and ``fold-1/best``."""

    @contextlib.contextmanager
    def held(self, number: int, *, only: Collection[str] = ()) -> Iterator[Path]:
        """Yields a folder of this machine with what is kept of a trial, for as long as somebody works on it.

        Args:
            number: The trial.
            only: Names of the files that are needed, in every folder; () for all.

        Raises:
            StateStoreError: The store cannot be reached.
        """
        try:
            yield self._folder(number, only)
        finally:
            self._leave(number)

    @abc.abstractmethod
    def keep(self, number: int, *, ended: bool = False) -> None:
        """Keeps what a held folder has now.

        Args:
            number: The trial.
            ended: Whether nobody changes it any more; before that, keeping may wait for a later call.

        Raises:
            StateStoreError: The store cannot be reached.
        """

    @abc.abstractmethod
    def numbers(self) -> set[int]:
        """Returns the trials of which something is kept."""

    @abc.abstractmethod
    def sizes(self, number: int) -> dict[str, int]:
        """Returns name -> bytes of what is kept of a trial, such as ``fold-1/best``; {} for nothing."""

    @abc.abstractmethod
    def delete(self, number: int, *, names: Collection[str] | None = None) -> None:
        """Deletes files of a trial, or all of it; what cannot be deleted stays, since a search does not end for it."""

    @abc.abstractmethod
    def _folder(self, number: int, only: Collection[str]) -> Path:
        """Returns the folder of `held`."""

    @abc.abstractmethod
    def _leave(self, number: int) -> None:
        """Nobody works on the folder of `held` any more."""


@final
class RunDirectoryStates(StateStore):
    """States in the run directory, which all workers see: they are kept as they are written.

    Args:
        directory: The experiment.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def keep(self, number: int, *, ended: bool = False) -> None:
        """See `StateStore.keep`."""

    def numbers(self) -> set[int]:
        """See `StateStore.numbers`."""
        return {int(path.parent.name) for path in self._directory.trials.glob("*/state")}

    def sizes(self, number: int) -> dict[str, int]:
        """See `StateStore.sizes`."""
        return {name: path.stat().st_size for name, path in _files(self._directory.trial_state(number)).items()}

    def delete(self, number: int, *, names: Collection[str] | None = None) -> None:
        """See `StateStore.delete`."""
        state = self._directory.trial_state(number)
        if names is None:
            shutil.rmtree(state, ignore_errors=True)
        for name in names or ():
            (state / name).unlink(missing_ok=True)

    def _folder(self, number: int, only: Collection[str]) -> Path:
        del only
        return self._directory.trial_state(number)

    def _leave(self, number: int) -> None:
        del number


@final
class StoredStates(StateStore):
    """States behind a URL.

    Args:
        place: The URL, or a path, that belongs to this experiment alone.
        pauses: Seconds between the attempts at a request that fails.
        clock: Tells the seconds that copying takes.

    Raises:
        ConfigError: There is no such file system, or its package is missing.
    """

    def __init__(
        self, place: str, *, pauses: Collection[float] = PAUSES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.place = place
        self._files, self._root = _file_system(place)
        self._is_whole = not OBJECT_STORES.isdisjoint(_protocols(self._files))
        self._pauses, self._clock = tuple(pauses), clock
        self._scratch: Path | None = None
        self._copied: dict[int, dict[str, tuple[int, int, int]]] = {}
        self._seconds: dict[int, float] = {}
        self._last: dict[int, float] = {}

    def keep(self, number: int, *, ended: bool = False) -> None:
        """See `StateStore.keep`."""
        start = self._clock()
        # Several trials of a pack share the time.
        pause = sum(self._seconds.values()) / COPYING_SHARE
        if not ended and number in self._last and start - self._last[number] < pause:
            return
        known = self._copied.setdefault(number, {})
        found = _files(self._local(number))
        # The state to go on from comes last: what stands beside it is never older.
        for name in sorted(found, key=lambda name: PurePosixPath(name).name == "current"):
            stamp = _stamp(found[name])
            if known.get(name) != stamp:
                self._tried(partial(self._put, found[name], self._path(number, name)))
                known[name] = stamp
        gone = known.keys() - found.keys()
        for name in gone:
            del known[name]
        self.delete(number, names=gone)
        self._last[number] = self._clock()
        self._seconds[number] = self._last[number] - start

    def numbers(self) -> set[int]:
        """See `StateStore.numbers`."""
        names = [PurePosixPath(path).name for path in self._tried(lambda: self._list(self._root))]
        return {int(name) for name in names if _TRIAL.fullmatch(name)}

    def sizes(self, number: int) -> dict[str, int]:
        """See `StateStore.sizes`."""
        root = self._path(number)
        found = self._tried(lambda: self._find(root))
        named = {path.removeprefix(root).lstrip("/"): int(told["size"]) for path, told in found.items()}
        # A name becomes a path on this machine, and anybody may have written there.
        return {name: size for name, size in named.items() if _NAME.fullmatch(name)}

    def delete(self, number: int, *, names: Collection[str] | None = None) -> None:
        """See `StateStore.delete`."""
        with contextlib.suppress(Exception):  # each file system has errors of its own
            if names is None:
                self._files.rm(self._path(number), recursive=True)
            elif names:
                self._files.rm([self._path(number, name) for name in names])

    def check(self) -> None:
        """Writes, reads and deletes a small file.

        Raises:
            StateStoreError: That does not work.
        """
        path = f"{self._root}/tamiz-{secrets.token_hex(8)}"
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"tamiz")
            file.flush()
            self._tried(partial(self._put, Path(file.name), path))
        if self._tried(lambda: self._files.cat_file(path)) != b"tamiz":
            raise StateStoreError(f"{self._shown} does not give back what was written to it")
        with contextlib.suppress(Exception):
            self._files.rm(path)

    @property
    def _shown(self) -> str:
        return shown_place(self.place)

    def _path(self, number: int, name: str = "") -> str:
        return f"{self._root}/{number:04d}" + (f"/{name}" if name else "")

    def _local(self, number: int) -> Path:
        if self._scratch is None:
            remove_abandoned()
            self._scratch = Path(tempfile.mkdtemp(prefix=f"tamiz-states-{os.getpid()}-"))
            weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch / f"{number:04d}"

    def _folder(self, number: int, only: Collection[str]) -> Path:
        folder = self._local(number)
        known = self._copied.setdefault(number, {})
        for name in self.sizes(number):
            path = folder / name
            if only and path.name not in only:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            self._tried(partial(self._files.get_file, self._path(number, name), str(path)))
            known[name] = _stamp(path)
        return folder

    def _leave(self, number: int) -> None:
        for told in (self._copied, self._seconds, self._last):
            told.pop(number, None)
        if self._scratch is not None:
            shutil.rmtree(self._scratch / f"{number:04d}", ignore_errors=True)
            with contextlib.suppress(OSError):  # others are held
                self._scratch.rmdir()
                self._scratch = None

    def _put(self, source: Path, path: str) -> None:
        if self._is_whole:
            # Nor are there folders; to make one could make a bucket.
            self._files.put_file(str(source), path)
            return
        folder, _, name = path.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        partial = f"{folder}/.{name}.part"
        self._files.put_file(str(source), partial)
        self._files.mv(partial, path)

    def _list(self, path: str) -> list[str]:
        # Other processes write there: what was listed before is not what is there.
        self._files.invalidate_cache()
        try:
            return [str(found) for found in self._files.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def _find(self, path: str) -> Mapping[str, Mapping[str, Any]]:
        self._files.invalidate_cache()
        try:
            found: Mapping[str, Mapping[str, Any]] = self._files.find(path, detail=True)
        except FileNotFoundError:
            return {}
        return found

    def _tried(self, request: Callable[[], _R]) -> _R:
        """Returns what a request does, which is made again after each pause while it fails."""
        pauses = list(self._pauses)
        while True:
            try:
                return request()
            except Exception as error:  # each file system has errors of its own
                if not pauses:
                    reason = " ".join(str(error).split())[:200]
                    raise StateStoreError(
                        f"the checkpoints at {self._shown} cannot be reached ({type(error).__name__}: {reason}): look "
                        "at the address, the network and the credentials of the environment"
                    ) from error
            time.sleep(pauses.pop(0))


def state_store(directory: RunDirectory) -> StateStore:
    """Returns where the states of an experiment's trials are kept.

    Raises:
        ConfigError: The file system is unknown here, or its package is missing.
    """
    place = directory.read_config().execution.checkpoints if directory.holds_experiment else ""
    return StoredStates(place) if place else RunDirectoryStates(directory)


def check_checkpoints(place: str) -> None:
    """Checks that states can be kept at a place.

    Raises:
        ConfigError: It is no place that all workers reach, or its package is missing.
        StateStoreError: It cannot be written or read.
    """
    if shown_place(place) != place:
        raise ConfigError(
            f"the checkpoints {shown_place(place)!r} have a user, a password or a query in their URL, which would be "
            "written to the run directory: expected the address alone, and credentials in the environment"
        )
    if place.startswith("memory:") or "::" in place:
        raise ConfigError(
            f"checkpoints are {place!r}: expected a place that all workers reach, such as s3://bucket/folder"
        )
    StoredStates(place, pauses=()).check()


def with_own_checkpoints(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the settings of a new experiment, which keeps its states in a folder of its own."""
    place = config.execution.checkpoints.rstrip("/")
    if not place:
        return config
    place = place if is_url(place) else str(Path(place).absolute())
    own = f"{place}/{config.name}-{secrets.token_hex(4)}"
    return replace(config, execution=replace(config.execution, checkpoints=own))


def remove_abandoned() -> None:
    """Removes the folders of this user's workers that were killed on this machine."""
    for path in Path(tempfile.gettempdir()).glob("tamiz-states-*"):
        found = _SCRATCH.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if found and path.stat().st_uid == os.getuid() and not Path(f"/proc/{found[1]}").exists():
                shutil.rmtree(path, ignore_errors=True)


def _file_system(place: str) -> tuple[Any, str]:
    """Returns fsspec's file system of a place and the path in it."""
    import fsspec

    url = place if is_url(place) else f"file://{Path(place).absolute()}"
    try:
        filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ConfigError(
            f"the checkpoints {shown_place(place)!r} need a package that is not installed ({error}): install it here "
            "and on all machines with workers"
        ) from error
    except ValueError as error:
        protocol = url.partition("://")[0]
        raise ConfigError(
            f"the checkpoints {shown_place(place)!r} are no URL that fsspec can open ({error})"
            f"{did_you_mean(protocol, fsspec.available_protocols())}: expected such as s3://bucket/folder"
        ) from error
    return filesystem, str(root).rstrip("/")


def _protocols(filesystem: Any) -> set[str]:
    protocol = filesystem.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)


def _files(folder: Path) -> dict[str, Path]:
    """Returns name -> file of a state's folder; what is being written has a hidden name."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _stamp(path: Path) -> tuple[int, int, int]:
    """Returns what changes when a file is replaced by a rename."""
    told = path.stat()
    return told.st_ino, told.st_mtime_ns, told.st_size
