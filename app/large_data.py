"""Tables that are not held in memory: read once into a mapped file, split by the identity of every row, and written.

Types, schema and splits are those that the table would get in memory. What needs the values themselves (quantiles,
scales, vocabularies, mean targets, leaks) is learned from a uniform sample, and the report says of how many rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.config import ExperimentConfig
from app.data_files import (
    LEARNED_COLUMN,
    SPLIT_COLUMN,
    RowsTold,
    imbalance_of,
    split_prints,
    stored_columns,
    write_records,
)
from app.data_stage import PreparedData, check_weight, kind_of
from app.errors import ConfigError
from app.fold_choice import FoldChoice
from app.forecast_stage import ahead_findings, without_embargo
from app.read_rows import ReadRows
from app.run_directory import RunDirectory
from app.target_rows import rows_with_target, split_rows
from pipelines.column_checks import check_survey
from pipelines.data_report import Finding
from pipelines.inference import infer_features
from pipelines.preprocessing import fit_preprocessing
from pipelines.row_hash import finish_sums
from pipelines.row_weights import check_split_weights, row_weights
from pipelines.schema import TargetSpec
from pipelines.several_targets import target_columns
from pipelines.sources import SourceTable
from pipelines.splits import ALWAYS_TRAINS, Split
from pipelines.stored_rows import StoredRows
from pipelines.survey import Survey, draw_sample, survey_rows
from pipelines.survey_report import Identities, profile_survey
from pipelines.time_splits import LEFT_OUT

_SAMPLE_SEED = 7_919


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeData:
    """A table on disk that has been recognised, split and looked at.

    Attributes:
        prepared: What is known of it; its table and its splits are those of the sample.
        stored: All rows.
        splits: ``Split`` of every row, ``LEFT_OUT`` for one that is not used, ``(num_rows,)``.
        sampled: Which rows are in the sample, ``(num_rows,)``.
        told: What the manifest says of the rows.
    """

    prepared: PreparedData
    stored: StoredRows
    splits: NDArray[np.int8]
    sampled: NDArray[np.bool_]
    told: RowsTold


def check_disk_settings(config: ExperimentConfig) -> None:
    """Checks that settings are for tables that are not held in memory.

    Raises:
        ConfigError: One is not.
    """
    if config.search.folds > 1:
        raise ConfigError(
            f"folds is {config.search.folds}: expected 1 for a table that is not held in memory; its validation part "
            f"is large enough, or raise in_memory in the [data] of --config"
        )


def prepare_large(rows: ReadRows, config: ExperimentConfig) -> LargeData:
    """Does what `prepare_data` does, in bounded memory.

    Args:
        rows: The rows, on disk.
        config: The settings.

    Raises:
        DataError: The data cannot be used.
        ConfigError: A setting is not for tables of this size.
        ValueError: The rows are in memory.
    """
    check_disk_settings(config)
    if rows.stored is None:
        raise ValueError("the rows are in memory: expected rows that `store_source` has stored")
    return _recognised(rows.source, rows.stored, config)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Which rows are used, and how.

    Attributes:
        used: The rows that are in a split, ``(num_rows,)``.
        splits: ``Split`` of every row, ``LEFT_OUT`` for one that is not used, ``(num_rows,)``.
        rows: Target, group, time and weight of the used rows.
        names: The target columns.
        target: What is predicted.
        notes: How many rows are not used, and why.
        findings: What is odd about their times.
    """

    used: NDArray[np.bool_]
    splits: NDArray[np.int8]
    rows: pa.Table
    names: tuple[str, ...]
    target: TargetSpec
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


def _split(stored: StoredRows, config: ExperimentConfig) -> _Parts:
    data = config.data
    roles = [name for name in (data.group, data.time_column, data.weight) if name]
    if data.weight:
        check_weight(stored.table, data.target, data.weight)
    names = target_columns(stored.table, data.target)
    found = rows_with_target(stored.table.select(list(dict.fromkeys([*names, *roles]))), names, data)
    splits = np.full(stored.num_rows, LEFT_OUT, np.int8)
    identities = stored.identities(without=names, seed=config.search.seed)[found.known]
    splits[found.known] = split_rows(found.table, found.target, config, identities=identities)
    rows, used, note = without_embargo(found.table, splits[found.known], data)
    if data.weight:
        check_split_weights(row_weights(rows, data.weight), used, data.weight)
    return _Parts(
        used=splits != LEFT_OUT,
        splits=splits,
        rows=rows,
        names=names,
        target=found.target,
        notes=(*found.notes, *([note] if note else [])),
        findings=ahead_findings(found.table, data.time_column or None),
    )


def _recognised(read: SourceTable, stored: StoredRows, config: ExperimentConfig) -> LargeData:
    data, parts = config.data, _split(stored, config)
    splits, used = parts.splits, parts.used
    overrides = {name: kind_of(name, kind) for name, kind in data.features.items()}
    sampled = draw_sample(splits, seed=_SAMPLE_SEED, num_rows=data.sample_rows)
    ignored = {*parts.names, *([data.weight] if data.weight else [])}
    ignored |= {name for name, kind in overrides.items() if kind == "ignore"}
    survey = survey_rows(stored, splits, sampled=sampled, unjudged=ignored)
    check_survey(survey, overrides=overrides)
    training = survey.sample_splits == Split.TRAIN
    schema = infer_features(
        survey.sample,
        parts.target,
        rows=training,
        overrides=overrides,
        group=data.group or None,
        time_column=data.time_column or None,
        weight=data.weight or None,
        facts=None if survey.is_complete else survey.facts,
    )
    dropped = [feature.name for feature in schema.features if not feature.used]
    profile = profile_survey(
        survey,
        schema,
        identities=Identities(
            features=stored.identities(without=[*dropped, *parts.names], seed=0)[used],
            rows=stored.identities(without=dropped, seed=0)[used],
            splits=splits[used],
        ),
        targets=parts.rows.select(list(parts.names)),
        notes=(
            *read.notes,
            *parts.notes,
            sample_note(int(training.sum()), stored.num_rows, limit=data.in_memory, of="training "),
        ),
    )
    prepared = PreparedData(
        source=read,
        table=survey.sample,
        schema=schema,
        splits=survey.sample_splits,
        profile=replace(profile, findings=(*parts.findings, *profile.findings)),
        preprocessing=fit_preprocessing(survey.sample, schema, rows=training),
        folds=np.full(survey.sample.num_rows, ALWAYS_TRAINS, np.int8),
        fold_choice=FoldChoice(
            number=1,
            reason=f"{stored.num_rows:,} rows are enough to select on one part of them",
            is_worth_saying=False,
        ),
    )
    return LargeData(
        prepared=prepared,
        stored=stored,
        splits=splits,
        sampled=sampled,
        told=_told(prepared, parts.rows.filter(pa.array(splits[used] == Split.TRAIN)), stored, splits),
    )


def survey_stored(stored: StoredRows, config: ExperimentConfig) -> Survey:
    """Looks at rows that are in no splits: all of them are described.

    Args:
        stored: The rows.
        config: The settings.

    Raises:
        DataError: A column cannot be used.
    """
    splits = np.full(stored.num_rows, Split.TRAIN, np.int8)
    sampled = draw_sample(splits, seed=_SAMPLE_SEED, num_rows=config.data.sample_rows)
    survey = survey_rows(stored, splits, sampled=sampled)
    check_survey(survey)
    return survey


def sample_note(num_sampled: int, num_rows: int, *, limit: int, of: str = "") -> str:
    """Returns what is said of a table that stays on disk.

    Args:
        num_sampled: Rows of the sample that something was learned from.
        num_rows: All rows.
        limit: Bytes that a table may take in memory.
        of: Which rows the sample was drawn from, ``training `` or all.
    """
    return (
        f"The table is larger than {limit:,} bytes and stays on disk: types, counts, ranges, means and splits are of "
        f"all {num_rows:,} rows; quantiles, histograms, scales, vocabularies, mean targets and suspected leaks are of "
        f"a uniform sample of {num_sampled:,} {of}rows."
    )


def _told(data: PreparedData, training: pa.Table, stored: StoredRows, splits: NDArray[np.int8]) -> RowsTold:
    return RowsTold(
        counts={split.name.lower(): int((splits == split).sum()) for split in Split},
        prints=split_prints(finish_sums(stored.sums, seed=0), splits),
        imbalance=imbalance_of(training, data.schema),
    )


def write_large(data: LargeData, config: ExperimentConfig, *, directory: RunDirectory) -> None:
    """Writes what `write_data` writes; the training rows come before the validation rows.

    Args:
        data: The prepared data.
        config: The settings.
        directory: The run directory, not yet in its final place.
    """
    schema = data.prepared.schema
    write_records(data.prepared.known, config, directory=directory, told=data.told)
    directory.data.mkdir()
    names = stored_columns(schema)
    _write_tables(directory.test_file, _rows_of(data, Split.TEST, names))
    _write_tables(
        directory.development_file,
        (
            table
            for split in (Split.TRAIN, Split.VALIDATION)
            for table in _rows_of(data, split, names, learned=split == Split.TRAIN)
        ),
    )


def _rows_of(
    data: LargeData, split: Split, names: Sequence[str], *, learned: bool | None = None
) -> Iterator[pa.Table]:
    """Yields the rows of a split; with `learned`, with the columns that development rows have."""
    for place, chunk in data.stored.chunks(names):
        wanted = data.splits[place] == split
        table = chunk.filter(pa.array(wanted))
        if learned is not None:
            sampled = data.sampled[place][wanted] & learned
            table = table.append_column(SPLIT_COLUMN, pa.array(np.full(table.num_rows, split, np.int8)))
            table = table.append_column(LEARNED_COLUMN, pa.array(sampled))
        yield table.combine_chunks()


def _write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
