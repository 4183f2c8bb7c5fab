"""Prepared tables that the next search on the same data starts from: records, rows in their splits, encoded features.

An entry is a folder whose name is the SHA-256 of all that could make its content another: the files, the settings of
the data, the seed, and the versions of the programs. It appears by a rename, and its files are hard links of those of
a run: they take no room of their own until the run is removed. Nothing in it is executed or unpickled, and every file
is compared with its checksum before it is used; an entry that does not agree is thrown away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final

from app.config import ExperimentConfig
from app.data_config import NO_CACHE
from app.data_files import RowsTold, versions, write_records
from app.data_stage import KnownData
from app.errors import RunDirectoryError
from app.fold_choice import BAG_ROWS, FoldChoice
from app.run_directory import RunDirectory, read_json, write_json
from pipelines.data_report import DataProfile
from pipelines.errors import DataError
from pipelines.preprocessing import PreprocessingState
from pipelines.schema import DatasetSchema
from pipelines.sources import FilePrint, Source, SourceFacts

LAYOUT = 3
"""Raised when what an entry holds, or how it is made, changes."""

MAX_BYTES = 20 << 30
"""Bytes of all entries; beyond, those that were not used for longest are removed."""

MIN_BYTES = 16 << 20
"""Bytes of a table from which on it is kept: a smaller one is prepared while the workers import TensorFlow."""

_DATA, _LOCK, _ENCODED, _SUMS = "data.json", "lock", "encoded", "sums.json"
_STALE_SECONDS = 86_400.0
_BLOCK_BYTES = 1 << 22
_PLACES = ("cache", "lock", "url")
"""Settings of the data that change nothing of what is prepared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A prepared table in the cache.

    Attributes:
        key: Its name.
        description: What was read.
        num_bytes: Its size; shared with the run that made it, as long as that is there.
        last_used: When a search last took it, in seconds since the epoch.
    """

    key: str
    description: str
    num_bytes: int
    last_used: float


@final
@dataclass(frozen=True, kw_only=True)
class CachedData:
    """A prepared table, as it is taken from the cache.

    Attributes:
        folder: Its entry.
        known: What is known of it.
        told: What the manifest says of the rows.
    """

    folder: Path
    known: KnownData
    told: RowsTold

    def write(self, config: ExperimentConfig, directory: RunDirectory) -> None:
        """Writes what a search works on.

        Args:
            config: The settings.
            directory: The run directory, not yet in its final place.
        """
        write_records(self.known, config, directory=directory, told=self.told)
        directory.data.mkdir()
        for path in (directory.development_file, directory.test_file):
            _link(self.folder / path.name, path)
        encoded = self.folder / _ENCODED
        if encoded.is_dir():
            directory.encoded.mkdir()
            for path in encoded.glob("*.npy"):
                _link(path, directory.encoded / path.name)


@final
class TableCache:
    """Prepared tables on disk; several searches may use it at once.

    Args:
        folder: The folder; need not exist yet.
        max_bytes: Bytes of all entries.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self._max_bytes = folder, max_bytes

    def entries(self) -> list[CacheEntry]:
        """Returns what it holds, what was used last first."""
        found = []
        for folder in self._folders():
            with contextlib.suppress(OSError, RunDirectoryError, KeyError, TypeError):
                description = str(read_json(folder / _DATA)["description"])
                last_used = (folder / _LOCK).stat().st_mtime
                found.append(
                    CacheEntry(
                        key=folder.name, description=description, num_bytes=_size(folder), last_used=last_used
                    )
                )
        return sorted(found, key=lambda entry: -entry.last_used)

    def clear(self) -> int:
        """Removes all entries that no search uses at this moment; returns the bytes."""
        sizes = {folder: _size(folder) for folder in self._folders()}
        return sum(size for folder, size in sizes.items() if _remove(folder))

    @contextlib.contextmanager
    def taken(self, source: Source, config: ExperimentConfig) -> Iterator[CachedData | None]:
        """Yields the prepared table of a source, which nobody removes inside the block; None where there is none.

        Args:
            source: The source; its files are read to know that they are the same.
            config: The settings.
        """
        if not _is_worth(source, config) or not self._folders():
            yield None
            return
        fingerprint, files = source.prints()
        folder = self.folder / _key(config, fingerprint, [asdict(file) for file in files])
        with contextlib.ExitStack() as stack:
            found = None
            try:
                if stack.enter_context(_held(folder)):
                    found = _read(folder)
            except (OSError, RunDirectoryError, DataError, KeyError, TypeError, ValueError):
                stack.close()
                _remove(folder)
            yield found

    def keep(self, directory: RunDirectory, source: Source, config: ExperimentConfig) -> None:
        """Keeps the table of a run, unless it is there, is too small to be worth it, or depends on more than the data.

        Args:
            directory: The run, whose data has been written.
            source: What was read.
            config: Its settings.

        Raises:
            OSError: The folder cannot be written.
        """
        data = read_json(directory.manifest_file)["data"]
        if not _is_worth(source, config) or not _is_lasting(directory, config, data):
            return
        folder = self.folder / _key(config, data["fingerprint"], data["files"])
        paths = [directory.schema_file, directory.profile_file, directory.preprocessing_file]
        paths += [directory.development_file, directory.test_file]
        if folder.is_dir() or sum(path.stat().st_size for path in paths) > self._max_bytes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with _appearing(folder) as new:
            for path in paths:
                _link(path, new / path.name)
            write_json(new / _DATA, data)
            write_json(new / _SUMS, _checksums(new))
            (new / _LOCK).touch()
        self._evict(folder)

    def keep_encoded(self, directory: RunDirectory, config: ExperimentConfig) -> None:
        """Keeps the encoded rows of a run beside its table, if that is kept and they are not.

        Args:
            directory: The run, whose rows have been encoded.
            config: Its settings.

        Raises:
            OSError: The folder cannot be written.
        """
        if not self._folders() or not directory.encoded.is_dir():
            return
        data = read_json(directory.manifest_file)["data"]
        folder = self.folder / _key(config, data["fingerprint"], data["files"])
        with _held(folder) as is_there:
            if not is_there or (folder / _ENCODED).is_dir():
                return
            with _appearing(folder / _ENCODED) as new:
                for path in directory.encoded.glob("*.npy"):
                    _link(path, new / path.name)
                write_json(new / _SUMS, _checksums(new))
        self._evict(folder)

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if not path.name.startswith(".") and path.is_dir()]
        except OSError:
            return []

    def _evict(self, newest: Path) -> None:
        """Removes what was not used for longest until all fits, and what a killed process left behind."""
        for path in self.folder.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
        entries = self.entries()
        total = sum(entry.num_bytes for entry in entries)
        for entry in reversed(entries):
            if total > self._max_bytes and entry.key != newest.name and _remove(self.folder / entry.key):
                total -= entry.num_bytes


def cache_of(config: ExperimentConfig, *, run: Path) -> TableCache | None:
    """Returns the cache of an experiment; None where there is to be none.

    Args:
        config: The settings.
        run: The run directory: by default the cache is beside it, where links to its files are possible.
    """
    if config.data.cache == NO_CACHE:
        return None
    return TableCache(Path(config.data.cache) if config.data.cache else default_folder(run.parent))


def default_folder(runs: Path) -> Path:
    """Returns where the cache of the runs in a folder is."""
    return runs / ".cache"


def _is_worth(source: Source, config: ExperimentConfig) -> bool:
    """Whether a table is large enough, and told apart by its files alone. Windows of series are made anew."""
    return source.is_stored and not config.forecast.horizon and (source.num_bytes() or 0) >= MIN_BYTES


def _is_lasting(directory: RunDirectory, config: ExperimentConfig, data: Mapping[str, Any]) -> bool:
    """Whether another search would prepare the table alike, whatever its budget; images lie in files of their own."""
    if read_json(directory.preprocessing_file).get("images"):
        return False
    rows = data["rows"]["train"] + data["rows"]["validation"]
    return data["folds"]["number"] == 1 and (config.search.folds == 1 or rows >= BAG_ROWS)


def _key(config: ExperimentConfig, fingerprint: str, files: Sequence[Mapping[str, Any]]) -> str:
    settings = {name: value for name, value in asdict(config.data).items() if name not in _PLACES}
    content = [{field.name: file[field.name] for field in fields(FilePrint)} for file in files]
    facts = {
        "layout": LAYOUT,
        "versions": versions(),
        "data": settings,
        "seed": config.search.seed,
        "folds": config.search.folds,
        "fingerprint": fingerprint,
        "files": content,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Yields whether an entry is there, which it stays inside the block; the kernel lets go with the process."""
    with contextlib.ExitStack() as stack:
        is_there = False
        with contextlib.suppress(FileNotFoundError):
            file = stack.enter_context(open(folder / _LOCK, "rb"))
            fcntl.flock(file, fcntl.LOCK_SH)
            # Between the two somebody may have removed it.
            is_there = os.fstat(file.fileno()).st_ino == (folder / _LOCK).stat().st_ino
        yield is_there


def _read(folder: Path) -> CachedData:
    """Returns an entry whose files agree with their checksums.

    Raises:
        ValueError: They do not.
    """
    for part in (folder, folder / _ENCODED):
        if part.is_dir() and _checksums(part) != read_json(part / _SUMS):
            raise ValueError(f"{part} does not agree with its checksums")
    data = read_json(folder / _DATA)
    folds = {field.name: data["folds"][field.name] for field in fields(FoldChoice)}
    prints = ({field.name: file[field.name] for field in fields(FilePrint)} for file in data["files"])
    known = KnownData(
        source=SourceFacts(
            description=data["description"],
            fingerprint=data["fingerprint"],
            num_columns=data["columns"],
            files=tuple(FilePrint(**file) for file in prints),
        ),
        schema=DatasetSchema.from_json(read_json(folder / "schema.json")),
        profile=DataProfile.from_json(read_json(folder / "profile.json")),
        preprocessing=PreprocessingState.from_json(read_json(folder / "preprocessing.json")),
        fold_choice=FoldChoice(**folds),
    )
    told = RowsTold(counts=data["rows"], prints=data["splits_sha256"], imbalance=data["imbalance_ratio"])
    os.utime(folder / _LOCK)
    return CachedData(folder=folder, known=known, told=told)


def _checksums(folder: Path) -> dict[str, list[int]]:
    """Returns size and CRC-32 of the files of a folder: they tell damage, at the speed of memory."""
    paths = sorted(path for path in folder.iterdir() if path.name not in (_LOCK, _SUMS) and path.is_file())
    with ThreadPoolExecutor(2) as pool:
        return {path.name: sums for path, sums in zip(paths, pool.map(_checksum, paths), strict=True)}


def _checksum(path: Path) -> list[int]:
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return [size, checksum]


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder that becomes `folder` at the end, unless another process was first."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        yield new
        try:
            new.rename(folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Makes a file appear at a second place; a copy where the file system has no links, or not to there."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path) -> bool:
    """Removes an entry unless it is in use; returns whether it is gone."""
    gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
    try:
        with open(folder / _LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rename(gone)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True
