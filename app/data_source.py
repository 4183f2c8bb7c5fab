"""Which data the settings name, how it is read, and whether it is still what it was."""

from __future__ import annotations

import contextlib
import glob
import os
from dataclasses import replace
from pathlib import Path

from app.config import DataConfig, ExperimentConfig
from app.data_lock import check_lock
from app.errors import RunDirectoryError
from app.run_directory import RunDirectory, read_json
from pipelines.addresses import is_path
from pipelines.errors import DataError
from pipelines.image_files import names_images, with_images
from pipelines.row_files import RowFiles
from pipelines.schema import DatasetSchema, RawType
from pipelines.sources import (
    DEFAULT_MISSING_VALUES,
    DataLike,
    Origin,
    ReadOptions,
    Source,
    SourceTable,
    open_source,
)
from pipelines.sources.feature_source import FeatureSource
from pipelines.windows import WindowSpec

FIRST_ROWS = 1_000
"""Rows by which it is told whether a table names images."""


def read_options(config: ExperimentConfig, *, schema: DatasetSchema | None = None) -> ReadOptions:
    """Returns how a file is read.

    Args:
        config: The settings.
        schema: What the columns are known to be: a category such as ``007`` or ``TRUE`` then stays the text that the
            model learned, whatever the new rows look like.
    """
    data = config.data
    text = {name for name, kind in data.features.items() if kind in ("categorical", "text")}
    if schema is not None:
        text = {feature.name for feature in schema.used_features if feature.raw_type is RawType.STRING}
    if schema is not None and schema.windows is not None:
        columns = WindowSpec.from_json(schema.windows).sources()
        text |= {columns[name] for name in text if name in columns}
    return ReadOptions(
        encoding=data.encoding or None,
        delimiter=data.delimiter or None,
        missing_values=(*DEFAULT_MISSING_VALUES, *data.missing_values),
        text_columns=tuple(sorted(text)),
    )


def source_of(data: DataConfig, *, url: str = "") -> Source:
    """Returns the source that settings name.

    Args:
        data: The settings.
        url: URL of the database with its password, which settings do not hold.

    Raises:
        DataError: No data is named, or several sources at once.
    """
    places = (data.source, *data.more_sources) if data.source else ()
    if not places and not data.sql:
        raise DataError("Expected data: name a file, a folder, a pattern or a URL, or a query with --sql and --url.")
    source = open_source(
        Origin(
            places=places,
            sql=data.sql,
            url=url or data.url,
            joins=data.joins,
            data_dir=data.data_dir,
            max_bytes=data.max_file_size,
        )
    )
    return looking_up(source, data)


def looking_up(
    source: Source, data: DataConfig, *, now: bool = False, schema: DatasetSchema | None = None
) -> Source:
    """Returns a source whose rows look up the feature groups of the settings; the source itself where there are none.

    Args:
        source: The rows.
        data: The settings.
        now: Whether rows without a time get the latest features, as new rows do.
        schema: What the columns are known to be; None for new data.

    Raises:
        DataError: There is no such group.
    """
    if not data.feature_groups:
        return source
    formats = {feature.name: feature.datetime_format for feature in schema.features} if schema is not None else {}
    return FeatureSource(
        source,
        data.feature_groups,
        store=Path(data.store),
        time_column=data.time_column,
        now=now,
        time_formats=formats,
    )


def read_source(
    source: DataLike, config: ExperimentConfig, *, schema: DatasetSchema | None = None
) -> SourceTable:
    """Reads a source as the settings say.

    Args:
        source: What the user calls data.
        config: The settings.
        schema: As for `read_options`.

    Raises:
        DataError: It cannot be read.
        RunDirectoryError: It is not what the lock file of the settings says.
    """
    return finish_reading(open_source(source).read(read_options(config, schema=schema)), config, schema=schema)


def finish_reading(
    table: SourceTable,
    config: ExperimentConfig,
    *,
    schema: DatasetSchema | None = None,
    files: RowFiles | None = None,
) -> SourceTable:
    """Returns a table with the images that it names, after it was held against the lock file.

    Args:
        table: What was read.
        config: The settings.
        schema: As for `read_options`.
        files: The files that the table is mapped from, if it is.

    Raises:
        DataError: An image cannot be read.
        RunDirectoryError: The table is not what the lock file of the settings says.
    """
    kinds = image_kinds(config, schema=schema)
    table = with_images(table, kinds=kinds, in_memory=config.data.in_memory, files=files)
    if config.data.lock and schema is None:
        check_lock(table.facts, Path(config.data.lock))
    return table


def image_kinds(config: ExperimentConfig, *, schema: DatasetSchema | None = None) -> dict[str, str]:
    """Returns what is said of columns that may be images: by the settings, or by the schema of a model.

    Args:
        config: The settings.
        schema: What the columns are known to be; None for new data.
    """
    roles = (config.data.target, config.data.group, config.data.time_column, config.data.weight)
    if schema is None:
        return {**dict.fromkeys(filter(None, roles), "ignore"), **config.data.features}
    return {feature.name: feature.kind.value for feature in schema.used_features}


def is_large(source: Source, config: ExperimentConfig) -> bool:
    """Returns whether a source is too large to be held in memory.

    Args:
        source: The source.
        config: The settings, with the limit.
    """
    size = source.num_bytes()
    return size is not None and size > config.data.in_memory and not config.forecast.horizon


def is_told_by_files(source: Source, config: ExperimentConfig) -> bool:
    """Returns whether a source is large, and its own files say what it is: images that it names lie in other ones.

    Args:
        source: The source.
        config: The settings.

    Raises:
        DataError: Its first rows cannot be read.
    """
    if not is_large(source, config):
        return False
    with contextlib.closing(source.chunks(read_options(config), chunk_rows=FIRST_ROWS)) as chunks:
        return not names_images(next(chunks).table, kinds=image_kinds(config))


def check_same_data(directory: RunDirectory, config: ExperimentConfig, source: DataLike | None) -> None:
    """Checks that an experiment goes on with the data it began with.

    Args:
        directory: The experiment.
        config: Its settings.
        source: The data, if given again; None looks at the files it came from, if they are still there. Databases and
            web servers move on, and are not asked again.

    Raises:
        RunDirectoryError: The data has changed.
    """
    if source is None:
        if not _is_there(config.data):
            return  # the rows are in the run directory; there is nothing to compare them with
        source = source_of(config.data)
    elif isinstance(source, str | os.PathLike):
        moved = replace(config.data, source=os.fspath(source), more_sources=(), sql="", url="")
        source = source_of(moved)
    source = open_source(source)
    if is_told_by_files(source, config):
        description, (fingerprint, _) = source.name, source.prints()
    else:
        found = read_source(source, config)
        description, fingerprint = found.description, found.fingerprint
    expected = read_json(directory.manifest_file)["data"]["fingerprint"]
    if fingerprint != expected:
        raise RunDirectoryError(
            f"{description} has changed since {directory.path} began (fingerprint {fingerprint[:12]}…, "
            f"expected {expected[:12]}…): restore the data, start a new search on it, or go on with the rows that the "
            f"search began with (--stored-rows)"
        )


def _is_there(data: DataConfig) -> bool:
    """Whether all that the data was read from lies on this machine, and still does."""
    tables = [join.rpartition(":")[0] for join in data.joins]
    places = [data.source, *data.more_sources, *tables]
    return all(place and is_path(place) and bool(Path(place).exists() or glob.glob(place)) for place in places)
