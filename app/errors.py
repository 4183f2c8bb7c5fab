"""What can go wrong that a user can mend; the command line prints these as one line and exits with code 2."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
from collections.abc import Iterable, Iterator

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class TamizError(Exception):
    """An operation of tamiz failed; the message says what was expected, what came and what to do."""


class ConfigError(TamizError, ValueError):
    """A setting cannot be used."""


class RunDirectoryError(TamizError):
    """A run directory cannot be created, opened, locked or written."""


class SearchError(TamizError):
    """The search cannot go on."""


class StateStoreError(TamizError):
    """The place where the states of trials are kept cannot be reached."""


class WorkerError(TamizError):
    """A worker process could not do what it was asked."""


class WorkerLostError(WorkerError):
    """A worker process ended in the middle of what it was asked; another has taken its place."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the nearest of the known names as a question in brackets, or nothing."""
    near = difflib.get_close_matches(name, [str(other) for other in known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def disk_full_message(place: object) -> str:
    """Returns what to do when there is no room left to write `place`."""
    return f"the disk is full: could not write {place}; free some space, then go on with `tamiz resume`"


@contextlib.contextmanager
def told_as_disk_error(place: str | os.PathLike[str]) -> Iterator[None]:
    """Tells of a full disk, or of a place that cannot be written, in one line; other errors of the system pass.

    Args:
        place: The folder that is written to, for errors that name no file.

    Raises:
        RunDirectoryError: The disk is full or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise RunDirectoryError(disk_full_message(error.filename or place)) from error
        if error.errno in NOT_WRITABLE:
            raise RunDirectoryError(
                f"cannot open {error.filename or place}: {error.strerror}; expected a place that you may use"
            ) from error
        raise


def is_users_to_mend(error: BaseException) -> bool:
    """Returns whether an error is told in one line rather than as a traceback.

    Every room has its own errors; those of the rooms below know nothing of this one.
    """
    from app.search.journal import JournalError
    from pipelines.errors import DataError
    from search_spaces.catalogue import SpaceError
    from tf_serving.answer_table import AnswerTableError
    from tf_serving.errors import ExportError

    kinds = (TamizError, DataError, SpaceError, ExportError, JournalError, AnswerTableError)
    return isinstance(error, kinds)
