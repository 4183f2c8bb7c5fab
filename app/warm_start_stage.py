"""What a search may begin with: the best of earlier runs, wished-for configurations, results from elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path

from app.errors import ConfigError, RunDirectoryError
from app.run_directory import RunDirectory
from app.search.space import Configuration, Space
from app.search.warm_start import filled, transferred
from app.search_progress import read_progress
from app.search_record import SearchRecord

MOST_FROM_A_RUN = 5
"""The best of an earlier run differ little from each other, and the data is another: a few are worth their time."""


def check_start(path: Path) -> None:
    """Checks that there is an earlier run to start from.

    Raises:
        RunDirectoryError: There is none, or it has no trial with a result.
    """
    if not read_progress(RunDirectory.open(path)).ranking:
        raise RunDirectoryError(f"{path} has no trial with a result to start from: give a run whose search has begun")


def earlier_configurations(runs: Sequence[str], *, space: Space) -> list[Configuration]:
    """Returns the best configurations of earlier runs as configurations of `space`, the best of each run first."""
    found = [
        transferred(
            (trial.hyperparameters for trial in read_progress(RunDirectory.open(Path(run))).ranking),
            space=space,
            most=MOST_FROM_A_RUN,
        )
        for run in runs
    ]
    return [each[place] for place in range(MOST_FROM_A_RUN) for each in found if place < len(each)]


def enqueue(directory: RunDirectory, configuration: Configuration) -> Configuration:
    """Has a configuration tried before what the search would choose; what it leaves out takes its default.

    Returns:
        The whole configuration.

    Raises:
        ConfigError: It does not fit the space; the message names the parameter and its range.
        RunDirectoryError: The experiment runs, has not begun, or its search is over.
    """
    with _record_of(directory) as record, _told_as_config_error():
        complete = filled(configuration, space=_space(record))
        record.enqueued(complete)
        return complete


def add_result(directory: RunDirectory, configuration: Configuration, value: float) -> int:
    """Tells the search what a configuration came to elsewhere, so that it learns from it.

    Args:
        directory: The experiment.
        configuration: What was tried; what it leaves out takes its default.
        value: Its value of the experiment's objective.

    Returns:
        The number that the result has in the leaderboard.

    Raises:
        ConfigError: The configuration does not fit the space, or the value is not finite.
        RunDirectoryError: As for `enqueue`.
    """
    with _record_of(directory) as record, _told_as_config_error():
        complete = filled(configuration, space=_space(record))
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ConfigError(f"the value is {value!r}: expected a finite {record.objective.name}")
        number = record.history.next_number
        record.add(complete, record.objective.to_loss(value))
        return number


@contextlib.contextmanager
def _record_of(directory: RunDirectory) -> Iterator[SearchRecord]:
    with directory.lock(), contextlib.closing(SearchRecord(directory, started=time.time())) as record:
        if "search" in record.progress.stages:
            raise RunDirectoryError(
                f"the search of {directory.path} is over: start a new one with start_from={str(directory.path)!r}"
            )
        yield record


def _space(record: SearchRecord) -> Space:
    if record.progress.space is None:
        raise RunDirectoryError(f"the search of {record.directory.path} has not begun: go on with `tamiz resume`")
    return record.progress.space


@contextlib.contextmanager
def _told_as_config_error() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(str(error)) from error
