"""The table that a search works on: taken from the cache, or read and prepared, in memory or on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.config import ExperimentConfig
from app.data_files import write_data
from app.data_lock import check_lock
from app.data_source import is_large
from app.data_stage import KnownData, prepare_data
from app.large_data import check_disk_settings, prepare_large, write_large
from app.read_rows import read_rows
from app.run_directory import RunDirectory
from app.table_cache import cache_of
from app.view import View
from pipelines.sources import Source
from pipelines.sources.image_folder import LABEL, ImageFolderSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that is ready to be searched on.

    Attributes:
        known: What is known of it.
        write: Writes it into a run directory that is not yet in its final place.
    """

    known: KnownData
    write: Callable[[ExperimentConfig, RunDirectory], None]


@contextlib.contextmanager
def table_of(
    source: Source, config: ExperimentConfig, *, directory: RunDirectory, view: View
) -> Iterator[Table]:
    """Yields the table of an experiment; when the block ends well, and has written it, it is kept for the next one.

    Args:
        source: The source.
        config: The settings.
        directory: Where the block puts the table.
        view: Is told where the table comes from, if it was prepared before.

    Raises:
        DataError: The data cannot be used.
        ConfigError: A setting does not go with it.
        RunDirectoryError: It is not what the lock file of the settings says.
    """
    cache = cache_of(config, run=directory.path)
    if cache is None:
        yield _prepared(source, config, folder=directory.path.parent)
        return
    with cache.taken(source, config) as found:
        if found is not None:
            if config.data.lock:
                check_lock(found.known.source, Path(config.data.lock))
            view.say(f"This table was prepared before: splits and encoded rows are those in {cache.folder}.")
            yield Table(known=found.known, write=found.write)
            return
    yield _prepared(source, config, folder=directory.path.parent)
    with _not_kept_told(view):
        cache.keep(directory, source, config)


def keep_encoded(directory: RunDirectory, config: ExperimentConfig, *, view: View) -> None:
    """Keeps the rows that the workers have encoded for the next search on the same table.

    Args:
        directory: The experiment, whose workers have been opened.
        config: Its settings.
        view: Is told if they cannot be kept.
    """
    cache = cache_of(config, run=directory.path)
    if cache is not None:
        with _not_kept_told(view):
            cache.keep_encoded(directory, config)


def _prepared(source: Source, config: ExperimentConfig, *, folder: Path) -> Table:
    if is_large(source, config):
        check_disk_settings(config)  # before a long pass
    if isinstance(source, ImageFolderSource) and config.data.target == LABEL:
        source.check_classes()
    rows = read_rows(source, config, folder=folder)
    if rows.stored is None:
        data = prepare_data(rows.source, config)

        def write(final: ExperimentConfig, directory: RunDirectory) -> None:
            write_data(data, final, directory=directory)
            if rows.images is not None:
                rows.images.move(directory.data)

        return Table(known=data.known, write=write)
    large = prepare_large(rows, config)
    return Table(
        known=large.prepared.known, write=lambda final, directory: write_large(large, final, directory=directory)
    )


@contextlib.contextmanager
def _not_kept_told(view: View) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        view.say(f"warning: the table is not kept for the next search ({error.strerror}): {error.filename}")
