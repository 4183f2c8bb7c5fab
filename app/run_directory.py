"""One experiment's folder: its layout, atomic writes, and the lock that keeps two coordinators apart."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from app.config import ExperimentConfig, read_config
from app.errors import RunDirectoryError, told_as_disk_error

SHIPPED_FOLDER = "assets.extra"
"""Where an exported model keeps what was shipped with it, its profile and schema among it."""

FEATURES_FILE = "features.json"
"""Which feature groups a model looks up, in its run and with the exported model."""


@final
class RunDirectory:
    """The paths of one experiment.

    Args:
        path: The folder; need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "experiment.toml"
        self.manifest_file = self.path / "manifest.json"
        self.schema_file = self.path / "schema.json"
        self.profile_file = self.path / "profile.json"
        self.preprocessing_file = self.path / "preprocessing.json"
        self.journal_file = self.path / "journal.jsonl"
        self.lock_file = self.path / "lock"
        self.data = self.path / "data"
        self.development_file = self.data / "development.arrow"
        self.test_file = self.data / "test.arrow"
        self.encoded = self.data / "encoded"
        self.backbone = self.path / "backbone"
        self.supernet = self.path / "supernet"
        self.trials = self.path / "trials"
        self.search_board = self.path / "search"
        self.best = self.path / "best"
        self.model_file = self.best / "model.keras"
        self.ensemble_file = self.best / "ensemble.json"
        self.members = self.best / "members"
        self.evaluation_file = self.best / "evaluation.json"
        self.exports = self.path / "export"
        self.report_file = self.path / "report.html"
        self.logs = self.path / "logs"

    def trial(self, number: int) -> Path:
        """Returns the folder of trial `number`."""
        return self.trials / f"{number:04d}"

    def trial_state(self, number: int) -> Path:
        """Returns the folder of the resumable state of trial `number`."""
        return self.trial(number) / "state"

    @property
    def backbone_file(self) -> str:
        """The file that networks for images begin with; empty for none."""
        return next((str(path) for path in sorted(_children(self.backbone))), "")

    @property
    def holds_experiment(self) -> bool:
        """Whether an experiment was started here."""
        return self.config_file.is_file()

    def read_config(self) -> ExperimentConfig:
        """Returns the settings that the experiment was started with."""
        return read_config(self.config_file)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Returns the directory of an experiment that exists.

        Raises:
            RunDirectoryError: There is none at `path`.
        """
        directory = cls(path)
        if not directory.holds_experiment:
            near = [child.name for child in _children(directory.path.parent) if RunDirectory(child).holds_experiment]
            hint = f"; {directory.path.parent} has {', '.join(sorted(near)[:5])}" if near else ""
            raise RunDirectoryError(f"{path} holds no experiment: expected a folder made by `tamiz search`{hint}")
        return directory

    def check_free(self) -> None:
        """Checks that a new experiment may be created here.

        Raises:
            RunDirectoryError: The place is taken or cannot be written.
        """
        if self.holds_experiment:
            with self.lock():
                pass  # a live experiment is the better message
            raise RunDirectoryError(
                f"{self.path} already holds an experiment: give another place with --run, go on with "
                f"`tamiz resume {self.path}`, or remove the folder"
            )
        if self.path.exists() and (not self.path.is_dir() or any(_children(self.path))):
            raise RunDirectoryError(f"{self.path} is not empty and holds no experiment: give another place with --run")
        # No folder is made yet: a search that ends for its data leaves nothing behind.
        above = next(parent for parent in self.path.absolute().parents if parent.exists())
        try:
            if not above.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
            with tempfile.TemporaryFile(dir=above):
                pass
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write to {above}: {error.strerror}; give a place you may write to with --run"
            ) from error

    @contextlib.contextmanager
    def staged(self) -> Iterator[RunDirectory]:
        """Yields a hidden sibling that becomes this directory when the block ends well, and vanishes otherwise.

        Raises:
            RunDirectoryError: Another search took the place meanwhile, or the place cannot be written.
        """
        with told_as_disk_error(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
            try:
                staging.chmod(0o755)
                yield RunDirectory(staging)
                self._take(staging)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _take(self, staging: Path) -> None:
        """Moves a finished folder to this place; a rename replaces an empty folder and nothing else."""
        try:
            staging.rename(self.path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            raise RunDirectoryError(
                f"{self.path} was taken by another search: give another place with --run"
            ) from error

    @property
    def is_live(self) -> bool:
        """Whether a process works on the experiment now, as far as can be told without getting in its way."""
        try:
            owner = int(self.lock_file.read_text(encoding="utf-8"))
            os.kill(owner, 0)
        except PermissionError:
            return True  # somebody else's process
        except (OSError, ValueError):
            return False
        return self.holds_experiment

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory; the kernel lets go of it when the process ends, however it ends.

        Raises:
            RunDirectoryError: Another live process holds it, or it cannot be written.
        """
        with contextlib.ExitStack() as stack:
            with told_as_disk_error(self.path):
                file = stack.enter_context(open(self.lock_file, "a+", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise RunDirectoryError(
                    f"{self.path} is locked by a live experiment (process {owner}): wait for it or stop it first"
                ) from error
            # The number is for people; on a full disk the lock holds without it.
            with contextlib.suppress(OSError):
                file.truncate(0)
                os.write(file.fileno(), str(os.getpid()).encode())
            try:
                yield
            finally:
                # Whoever has this number next, or goes on living after a search, works on nothing here.
                with contextlib.suppress(OSError):
                    file.truncate(0)

    def remove(self) -> None:
        """Deletes the experiment."""
        shutil.rmtree(self.path, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that is either there whole or not there at all.

    Args:
        path: The file; its folder is made if missing.
        content: Text (written as UTF-8) or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically; numbers that JSON does not have are refused."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run directory.

    Raises:
        RunDirectoryError: The file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RunDirectoryError(f"{path} is damaged: {error}") from error


def _children(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []
