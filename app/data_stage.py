"""From a source to a run directory: read, recognise, split, report, learn the preprocessing, write it all down."""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.config import DataConfig, ExperimentConfig, did_you_mean
from app.data_lock import check_lock, file_records
from app.errors import ConfigError, RunDirectoryError
from app.evaluation.metrics import imbalance_ratio
from app.fold_choice import FoldChoice, choose_folds
from app.run_directory import RunDirectory, read_json, write_atomically, write_json
from pipelines.addresses import is_path
from pipelines.data_report import DataProfile, profile_table
from pipelines.errors import DataError
from pipelines.inference import check_columns, infer_features
from pipelines.preprocessing import PreprocessingState, fit_preprocessing
from pipelines.raw_columns import encode_target
from pipelines.row_hash import hash_rows
from pipelines.row_weights import check_split_weights, row_weights
from pipelines.schema import DatasetSchema, FeatureKind, RawType, TargetSpec, Task
from pipelines.several_targets import drop_rows_without_targets, infer_targets, target_columns
from pipelines.sources import (
    DEFAULT_MISSING_VALUES,
    DataLike,
    Origin,
    ReadOptions,
    Source,
    SourceTable,
    open_source,
)
from pipelines.splits import ALWAYS_TRAINS, Split, assign_folds, assign_splits
from pipelines.target_inference import with_quantiles

SPLIT_COLUMN = "__tamiz_split__"
"""Column of the stored development rows that tells training from validation."""

FOLD_COLUMN = "__tamiz_fold__"
"""Column of the stored development rows that says which fold holds a row out; there only where folds judge trials."""

VERSIONED = ("tamiz", "tensorflow", "keras", "keras-tuner", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
"""Distributions whose versions can change a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """Data that has been read, recognised, split and looked at.

    Attributes:
        source: What was read.
        table: The rows that have a target.
        schema: Columns and target.
        splits: Split of every row, ``(num_rows,)`` int8.
        profile: The data report.
        preprocessing: What was learned from the training rows; where folds judge trials, from those and the validation
            rows, as only the final model is trained on it.
        folds: Fold of every row, ``(num_rows,)`` int8; sealed rows have none.
        fold_choice: The number of folds, and why.
    """

    source: SourceTable
    table: pa.Table
    schema: DatasetSchema
    splits: NDArray[np.int8]
    profile: DataProfile
    preprocessing: PreprocessingState
    folds: NDArray[np.int8]
    fold_choice: FoldChoice


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
    return open_source(
        Origin(
            places=places,
            sql=data.sql,
            url=url or data.url,
            joins=data.joins,
            data_dir=data.data_dir,
            max_bytes=data.max_file_size,
        )
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
    table = open_source(source).read(read_options(config, schema=schema))
    if config.data.lock and schema is None:
        check_lock(table, Path(config.data.lock))
    return table


def prepare_data(source: SourceTable, config: ExperimentConfig) -> PreparedData:
    """Recognises task and columns, splits the rows, and learns from the training ones.

    The split comes before everything that looks at the features (R6); from then on what is learned is learned from
    the training rows alone.

    Raises:
        DataError: The data cannot be used.
        ConfigError: An override is not a kind.
    """
    data = config.data
    overrides = {name: _kind(name, kind) for name, kind in data.features.items()}
    group, time_column = data.group or None, data.time_column or None
    # Before rows are dropped, so that row numbers in messages are those of the source.
    weight = data.weight or None
    if weight is not None:
        _check_weight(source.table, data.target, weight)
    ignored: dict[str, Any] = {} if weight is None else {weight: "ignore"}
    names = target_columns(source.table, data.target)
    ignored |= dict.fromkeys(names, "ignore")
    check_columns(source.table, target=names[0], overrides=overrides | ignored)
    table, note = drop_rows_without_targets(source.table, names)
    target = infer_targets(table, names, task=None if data.task == "auto" else Task(data.task))
    target = with_quantiles(target, data.quantiles)
    splits = assign_splits(
        table,
        target,
        seed=config.search.seed,
        validation_share=data.validation_share,
        test_share=data.test_share,
        group=group,
        time_column=time_column,
    )
    if weight is not None:
        check_split_weights(row_weights(table, weight), splits, weight)
    training = splits == Split.TRAIN
    schema = infer_features(
        table, target, rows=training, overrides=overrides, group=group, time_column=time_column, weight=weight
    )
    notes = (*source.notes, *([note] if note else []))
    folds, fold_choice = _folds(table, target, config, splits=splits)
    return PreparedData(
        source=source,
        table=table,
        schema=schema,
        splits=splits,
        profile=profile_table(table, schema, splits, notes=notes),
        preprocessing=fit_preprocessing(
            table, schema, rows=training if fold_choice.number == 1 else splits != Split.TEST
        ),
        folds=folds,
        fold_choice=fold_choice,
    )


def _may_bag(config: ExperimentConfig, target: TargetSpec) -> bool:
    """Whether networks may answer together in the end; see `ensemble_stage.can_be_averaged` and `max_members`."""
    several_objectives = "," in config.search.objective
    wanted = config.search.ensemble > 1 or (config.search.ensemble == 0 and not several_objectives)
    return wanted and not target.quantiles and not target.columns


def _folds(
    table: pa.Table, target: TargetSpec, config: ExperimentConfig, *, splits: NDArray[np.int8]
) -> tuple[NDArray[np.int8], FoldChoice]:
    """Deals the rows that are not sealed to folds, if folds are to judge the trials.

    Raises:
        DataError: The user asked for folds that the rows do not allow.
    """
    data, asked = config.data, config.search.folds
    open_rows = splits != Split.TEST
    labels = encode_target(table, target)[open_rows]
    choice = choose_folds(
        asked,
        num_rows=int(open_rows.sum()),
        seconds=config.search.seconds,
        trials=config.search.trials,
        smallest_class=_smallest_class(labels, target),
        in_time=bool(data.time_column),
        bagging=_may_bag(config, target),
    )
    folds = np.full(table.num_rows, ALWAYS_TRAINS, np.int8)
    if choice.number == 1:
        return folds, choice
    try:
        folds[open_rows] = assign_folds(
            table.filter(pa.array(open_rows)),
            target,
            seed=config.search.seed,
            num_folds=choice.number,
            group=data.group or None,
            time_column=data.time_column or None,
        )
    except DataError as error:
        if asked:
            raise
        return folds, FoldChoice(number=1, reason=f"no folds: {error}")
    return folds, choice


def _smallest_class(labels: NDArray[Any], target: TargetSpec) -> int | None:
    """Returns the rows of the rarest class, or those with or without a label; None for a regression."""
    if target.task is Task.MULTILABEL:
        held = labels.sum(axis=0)
        return int(min(held.min(), (len(labels) - held).min()))
    return int(np.bincount(labels).min()) if target.task.is_classification else None


def write_data(data: PreparedData, config: ExperimentConfig, *, directory: RunDirectory) -> None:
    """Writes what workers need, the sealed test rows into a file of their own that no search opens.

    Args:
        data: The prepared data.
        config: The settings.
        directory: The run directory, not yet in its final place.
    """
    write_config(directory, config)
    write_json(directory.schema_file, data.schema.to_json())
    write_json(directory.profile_file, data.profile.to_json())
    write_json(directory.preprocessing_file, data.preprocessing.to_json())
    write_json(directory.manifest_file, _manifest(data, config))
    directory.data.mkdir()
    names = [feature.name for feature in data.schema.used_features]
    roles = [*data.schema.target.names, *([data.schema.weight] if data.schema.weight else [])]
    table = data.table.select([*dict.fromkeys([*names, *roles])])
    sealed = data.splits == Split.TEST
    development = table.filter(pa.array(~sealed)).append_column(
        SPLIT_COLUMN, pa.array(data.splits[~sealed], pa.int8())
    )
    if data.fold_choice.number > 1:
        development = development.append_column(FOLD_COLUMN, pa.array(data.folds[~sealed], pa.int8()))
    _write_arrow(directory.development_file, development)
    _write_arrow(directory.test_file, table.filter(pa.array(sealed)))


def write_config(directory: RunDirectory, config: ExperimentConfig) -> None:
    """Writes the settings of an experiment."""
    write_atomically(directory.config_file, config.to_toml())


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
    found = read_source(source, config)
    expected = read_json(directory.manifest_file)["data"]["fingerprint"]
    if found.fingerprint != expected:
        raise RunDirectoryError(
            f"{found.description} has changed since {directory.path} began (SHA-256 {found.fingerprint[:12]}…, "
            f"expected {expected[:12]}…): restore the data, start a new search on it, or go on with the rows that the "
            f"search began with (--stored-rows)"
        )


def _is_there(data: DataConfig) -> bool:
    """Whether all that the data was read from lies on this machine, and still does."""
    tables = [join.rpartition(":")[0] for join in data.joins]
    places = [data.source, *data.more_sources, *tables]
    return all(place and is_path(place) and bool(Path(place).exists() or glob.glob(place)) for place in places)


def protocol(schema: DatasetSchema, config: ExperimentConfig) -> str:
    """Returns in one sentence how rows came to their split."""
    if schema.time_column:
        return f"Ordered by {schema.time_column}: the earliest rows train, the latest are the sealed test."
    if schema.group:
        return f"Whole groups of {schema.group} by a hash of the group and seed {config.search.seed}."
    strata = "rarest label" if schema.target.columns else "class"
    strata = strata if schema.target.task.is_classification else "tenth of the target's range"
    return f"Stratified by {strata}, by a hash of the row and seed {config.search.seed}; equal rows stay together."


def versions() -> dict[str, str]:
    """Returns the versions of the programs that can change a result."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _kind(name: str, kind: str) -> Any:
    known = ("numeric", "boolean", "categorical", "datetime", "text", "ignore")
    if kind not in known:
        raise ConfigError(
            f"feature {name!r} is set to {kind!r}{did_you_mean(kind, known)}: expected one of {', '.join(known)}"
        )
    return kind if kind == "ignore" else FeatureKind(kind)


def _check_weight(table: pa.Table, target: str, weight: str) -> None:
    """Refuses a column of weights that cannot be one; rows are counted as in the source."""
    if weight in target_columns(table, target):
        raise ConfigError(f"weight is {weight!r}, which is the target: expected another column")
    row_weights(table, weight)


def split_prints(table: pa.Table, splits: NDArray[np.int8]) -> dict[str, str]:
    """Returns a SHA-256 of the rows of each split, the same in whatever order they stand.

    Args:
        table: The rows.
        splits: ``Split`` values of shape ``(num_rows,)``.
    """
    hashes = hash_rows(table, columns=table.column_names)
    return {
        split.name.lower(): hashlib.sha256(np.sort(hashes[splits == split]).tobytes()).hexdigest() for split in Split
    }


def _imbalance(data: PreparedData) -> float | None:
    """Rows of the most frequent class over rows of the rarest in training; None for a regression."""
    if not data.schema.target.task.is_classification:
        return None
    training = data.splits == Split.TRAIN
    weight = data.schema.weight
    weights = None if weight is None else row_weights(data.table, weight)[training]
    y = encode_target(data.table, data.schema.target)[training]
    columns = y.T if y.ndim == 2 else [y]
    return max(imbalance_ratio(column, weights=weights) for column in columns)


def _manifest(data: PreparedData, config: ExperimentConfig) -> Mapping[str, Any]:
    return {
        "format": 1,
        "name": config.name,
        "seed": config.search.seed,
        "versions": versions(),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "data": {
            "description": data.source.description,
            "fingerprint": data.source.fingerprint,
            "files": file_records(data.source),
            "splits_sha256": split_prints(data.table, data.splits),
            "rows": {split.name.lower(): int((data.splits == split).sum()) for split in Split},
            "columns": data.source.table.num_columns,
            "training_rows_sha256": data.preprocessing.rows_sha256,
            "imbalance_ratio": _imbalance(data),
            "folds": asdict(data.fold_choice) | {"in_time": bool(config.data.time_column)},
        },
        "config_sha256": hashlib.sha256(config.to_toml().encode()).hexdigest(),
    }


def read_arrow(path: Path) -> pa.Table:
    """Reads a table of a run directory, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
