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
