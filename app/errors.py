"""What can go wrong that a user can mend; the command line prints these as one line and exits with code 2."""

from __future__ import annotations


class TamizError(Exception):
    """An operation of tamiz failed; the message says what was expected, what came and what to do."""


class ConfigError(TamizError, ValueError):
    """A setting cannot be used."""


class RunDirectoryError(TamizError):
    """A run directory cannot be created, opened, locked or written."""


class SearchError(TamizError):
    """The search cannot go on."""


class WorkerError(TamizError):
    """A worker process could not do what it was asked."""


def is_users_to_mend(error: BaseException) -> bool:
    """Returns whether an error is told in one line rather than as a traceback.

    Every room has its own errors; those of the rooms below know nothing of this one.
    """
    from app.search.journal import JournalError
    from pipelines.errors import DataError
    from search_spaces.catalogue import SpaceError
    from tf_serving.errors import ExportError

    return isinstance(error, (TamizError, DataError, SpaceError, ExportError, JournalError))
