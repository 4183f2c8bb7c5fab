"""What a run directory holds of the data: the rows, sealed ones apart, the schema, and where it all came from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.config import ExperimentConfig
from app.data_lock import file_records
from app.data_stage import KnownData, PreparedData
from app.evaluation.metrics import imbalance_ratio
from app.run_directory import RunDirectory, write_atomically, write_json
from pipelines.image_files import PATH_COLUMN
from pipelines.image_references import images_found
from pipelines.raw_columns import encode_target
from pipelines.row_hash import hash_rows
from pipelines.row_weights import row_weights
from pipelines.schema import DatasetSchema
from pipelines.splits import Split

SPLIT_COLUMN = "__tamiz_split__"
"""Column of the stored development rows that tells training from validation."""

FOLD_COLUMN = "__tamiz_fold__"
"""Column of the stored development rows that says which fold holds a row out; there only where folds judge trials."""

LEARNED_COLUMN = "__tamiz_learned__"
"""Column of the stored development rows that says which of them the preprocessing was learned from; there only where it
is a sample of the training rows, which then come before the validation rows."""

JUDGED_ROWS = 300_000
"""Validation rows that select where a table stays on disk: a ROC-AUC is known to a thousandth by them."""

_JUDGED_SEED = 104_729

VERSIONED = ("tamiz", "tensorflow", "keras", "keras-tuner", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
"""Distributions whose versions can change a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsTold:
    """What a manifest says of the rows.

    Attributes:
        counts: Rows of each split.
        prints: SHA-256 of the rows of each split.
        imbalance: Rows of the most frequent class over rows of the rarest in training; None for a regression.
    """

    counts: Mapping[str, int]
    prints: Mapping[str, str]
    imbalance: float | None


def write_data(data: PreparedData, config: ExperimentConfig, *, directory: RunDirectory) -> None:
    """Writes what workers need, the sealed test rows into a file of their own that no search opens.

    Args:
        data: The prepared data.
        config: The settings.
        directory: The run directory, not yet in its final place.
    """
    told = RowsTold(
        counts={split.name.lower(): int((data.splits == split).sum()) for split in Split},
        prints=split_prints(hash_rows(data.table, columns=data.table.column_names), data.splits),
        imbalance=imbalance_of(data.table.filter(pa.array(data.splits == Split.TRAIN)), data.schema),
    )
    write_records(data.known, config, directory=directory, told=told)
    directory.data.mkdir()
    # Where an image came from, which messages name.
    places = [name for name in (PATH_COLUMN,) if name in data.table.column_names]
    table = data.table.select([*dict.fromkeys([*stored_columns(data.schema), *places])])
    sealed = data.splits == Split.TEST
    development = table.filter(pa.array(~sealed)).append_column(
        SPLIT_COLUMN, pa.array(data.splits[~sealed], pa.int8())
    )
    if data.fold_choice.number > 1:
        development = development.append_column(FOLD_COLUMN, pa.array(data.folds[~sealed], pa.int8()))
    _write_arrow(directory.development_file, development)
    _write_arrow(directory.test_file, table.filter(pa.array(sealed)))


def stored_columns(schema: DatasetSchema) -> list[str]:
    """Returns the columns that a run directory keeps: the used features, the targets, and what rows weigh.

    The group or the time of the rows too where mean targets are learned: those of a row come from other groups, or from
    earlier times.
    """
    roles = [*schema.target.names, *([schema.weight] if schema.weight else [])]
    if any(feature.target_encoded for feature in schema.used_features):
        roles += [name for name in (schema.group, schema.time_column) if name]
    return list(dict.fromkeys([*(feature.name for feature in schema.used_features), *roles]))


def judged_rows(development: pa.Table) -> NDArray[np.intp]:
    """Returns which development rows select: the validation rows, of a table that stays on disk `JUDGED_ROWS` at most.

    Args:
        development: What `development.arrow` holds.
    """
    rows = np.flatnonzero(development.column(SPLIT_COLUMN).to_numpy() == Split.VALIDATION)
    if LEARNED_COLUMN not in development.column_names or len(rows) <= JUDGED_ROWS:
        return rows
    return np.sort(np.random.default_rng(_JUDGED_SEED).choice(rows, JUDGED_ROWS, replace=False))


def write_records(data: KnownData, config: ExperimentConfig, *, directory: RunDirectory, told: RowsTold) -> None:
    """Writes what is known of the data, not the rows.

    Args:
        data: What is known of it.
        config: The settings.
        directory: The run directory, not yet in its final place.
        told: What the manifest says of the rows.
    """
    write_config(directory, config)
    write_json(directory.schema_file, data.schema.to_json())
    write_json(directory.profile_file, data.profile.to_json())
    write_json(directory.preprocessing_file, data.preprocessing.to_json())
    write_json(directory.manifest_file, _manifest(data, config, told))


def write_config(directory: RunDirectory, config: ExperimentConfig) -> None:
    """Writes the settings of an experiment."""
    write_atomically(directory.config_file, config.to_toml())


def versions() -> dict[str, str]:
    """Returns the versions of the programs that can change a result."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def split_prints(hashes: NDArray[np.uint64], splits: NDArray[np.int8]) -> dict[str, str]:
    """Returns a SHA-256 of the rows of each split, the same in whatever order they stand.

    Args:
        hashes: What `hash_rows` says of all columns, ``(num_rows,)``.
        splits: ``Split`` values of shape ``(num_rows,)``.
    """
    return {
        split.name.lower(): hashlib.sha256(np.sort(hashes[splits == split]).tobytes()).hexdigest() for split in Split
    }


def imbalance_of(training: pa.Table, schema: DatasetSchema) -> float | None:
    """Returns rows of the most frequent class over rows of the rarest; None for a regression.

    Args:
        training: The training rows; only targets and weights are looked at.
        schema: What is predicted.
    """
    if not schema.target.task.is_classification:
        return None
    weights = None if schema.weight is None else row_weights(training, schema.weight)
    y: NDArray[Any] = encode_target(training, schema.target)
    columns = y.T if y.ndim == 2 else [y]
    return max(imbalance_ratio(column, weights=weights) for column in columns)


def _manifest(data: KnownData, config: ExperimentConfig, told: RowsTold) -> Mapping[str, Any]:
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
            "splits_sha256": dict(told.prints),
            "rows": dict(told.counts),
            "columns": data.source.num_columns,
            "training_rows_sha256": data.preprocessing.rows_sha256,
            "imbalance_ratio": told.imbalance,
            "folds": asdict(data.fold_choice) | {"in_time": bool(config.data.time_column)},
        },
        "config_sha256": hashlib.sha256(config.to_toml().encode()).hexdigest(),
    }


def read_arrow(path: Path) -> pa.Table:
    """Reads a table of a run directory, memory-mapped; images that lie in files beside it are found there."""
    with pa.memory_map(str(path)) as source:
        return images_found(pa.ipc.open_file(source).read_all(), path.parent.resolve())


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
