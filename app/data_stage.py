"""From a table to what a search works on: recognise, split, report, learn the preprocessing."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.config import ExperimentConfig, did_you_mean
from app.errors import ConfigError
from app.fold_choice import FoldChoice, choose_folds
from app.forecast_stage import ahead_findings, framed_windows, told_features, without_embargo
from app.target_rows import rows_with_target, split_rows
from pipelines.column_checks import check_columns
from pipelines.data_report import DataProfile, profile_table
from pipelines.errors import DataError
from pipelines.image_duplicates import duplicate_notes, kept_together
from pipelines.image_encoding import ImageRequest
from pipelines.image_files import PATH_COLUMN, image_column, image_hashes, split_content
from pipelines.inference import infer_features
from pipelines.preprocessing import PreprocessingState, fit_preprocessing
from pipelines.raw_columns import encode_target
from pipelines.row_weights import check_fold_weights, check_split_weights, row_weights
from pipelines.schema import DatasetSchema, FeatureKind, TargetSpec, Task
from pipelines.several_targets import target_columns
from pipelines.sources import SourceFacts, SourceTable
from pipelines.splits import ALWAYS_TRAINS, Split, assign_folds


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownData:
    """What is known of an experiment's data, without its rows.

    Attributes:
        source: What was read.
        schema: Columns and target.
        profile: The data report.
        preprocessing: What was learned from the training rows.
        fold_choice: The number of folds, and why.
    """

    source: SourceFacts
    schema: DatasetSchema
    profile: DataProfile
    preprocessing: PreprocessingState
    fold_choice: FoldChoice


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

    @property
    def known(self) -> KnownData:
        """What is known of it, without the rows."""
        return KnownData(
            source=self.source.facts,
            schema=self.schema,
            profile=self.profile,
            preprocessing=self.preprocessing,
            fold_choice=self.fold_choice,
        )


def prepare_data(source: SourceTable, config: ExperimentConfig) -> PreparedData:
    """Recognises task and columns, splits the rows, and learns from the training ones.

    The split comes before everything that looks at the features (R6); from then on what is learned is learned from
    the training rows alone.

    Raises:
        DataError: The data cannot be used.
        ConfigError: An override is not a kind.
    """
    if config.forecast.horizon:
        return _prepared_windows(source, config)
    data = config.data
    overrides = {name: kind_of(name, kind) for name, kind in data.features.items()}
    group, time_column = data.group or None, data.time_column or None
    # Before rows are dropped, so that row numbers in messages are those of the source.
    weight = data.weight or None
    if weight is not None:
        check_weight(source.table, data.target, weight)
    ignored: dict[str, Any] = {} if weight is None else {weight: "ignore"}
    # Where images came from is our column, not one of the data.
    own = [name for name in source.table.column_names if name != PATH_COLUMN]
    names = target_columns(source.table.select(own), data.target)
    ignored |= dict.fromkeys(names, "ignore")
    check_columns(source.table, target=names[0], overrides=overrides | ignored)
    found = rows_with_target(source.table, names, data)
    table, target = found.table, found.target
    image = image_column(table)
    content = table if image is None else split_content(table, image, roles=(*names, group, time_column))
    splits = split_rows(content, target, config)
    ahead = ahead_findings(table, time_column)
    table, splits, embargo_note = without_embargo(table, splits, data)
    image_notes: list[str] = []
    if image is not None:
        hashes = image_hashes(table, image)
        labels = encode_target(table, target)
        # Groups and time go before: what they keep apart is not mixed for an image's sake.
        free = group is None and time_column is None
        splits = kept_together(splits, hashes, labels) if free else splits
        image_notes = duplicate_notes(hashes, labels, table.column(PATH_COLUMN), together=free)
    if weight is not None:
        check_split_weights(row_weights(table, weight), splits, weight)
    training = splits == Split.TRAIN
    schema = infer_features(
        table if image is None else table.drop_columns([PATH_COLUMN]),
        target,
        rows=training,
        overrides=overrides,
        group=group,
        time_column=time_column,
        weight=weight,
    )
    notes = (*source.notes, *found.notes, *([embargo_note] if embargo_note else []), *image_notes)
    folds, fold_choice = _folds(table, target, config, splits=splits)
    profile = profile_table(table, schema, splits, notes=notes)
    return PreparedData(
        source=source,
        table=table,
        schema=schema,
        splits=splits,
        profile=replace(profile, findings=(*ahead, *profile.findings)),
        preprocessing=fit_preprocessing(
            table,
            schema,
            rows=training if fold_choice.number == 1 else splits != Split.TEST,
            images=image_request(config),
        ),
        folds=folds,
        fold_choice=fold_choice,
    )


def image_request(config: ExperimentConfig) -> ImageRequest:
    """Returns what the settings want of images."""
    images = config.images
    return ImageRequest(
        size=images.size,
        resize=images.resize,
        colour=images.colour,
        seconds=config.search.seconds,
        cores=len(os.sched_getaffinity(0)),
    )


def _prepared_windows(source: SourceTable, config: ExperimentConfig) -> PreparedData:
    """Returns the windows of time series as the rows of an experiment."""
    kinds = {name: kind_of(name, kind) for name, kind in config.data.features.items()}
    framed = framed_windows(source, config, kinds=kinds)
    training = framed.splits == Split.TRAIN
    schema = infer_features(framed.table, framed.target, rows=training, overrides=framed.overrides)
    schema = replace(schema, features=told_features(schema.features, framed.spec), windows=framed.spec.to_json())
    profile = profile_table(framed.table, schema, framed.splits, notes=(*source.notes, *framed.notes))
    return PreparedData(
        source=source,
        table=framed.table,
        schema=schema,
        splits=framed.splits,
        profile=replace(profile, findings=(*framed.findings, *profile.findings)),
        preprocessing=fit_preprocessing(framed.table, schema, rows=training),
        folds=np.full(framed.table.num_rows, ALWAYS_TRAINS, np.int8),
        fold_choice=FoldChoice(number=1, reason="the latest windows say most about what comes", is_worth_saying=False),
    )


def _may_bag(config: ExperimentConfig, target: TargetSpec) -> bool:
    """Whether networks may answer together in the end; see `ensemble_stage.can_be_averaged` and `max_members`."""
    several_objectives = "," in config.search.objective
    wanted = config.search.ensemble > 1 or (config.search.ensemble == 0 and not several_objectives)
    return wanted and not target.columns


def _folds(
    table: pa.Table, target: TargetSpec, config: ExperimentConfig, *, splits: NDArray[np.int8]
) -> tuple[NDArray[np.int8], FoldChoice]:
    """Deals the rows that are not sealed to folds, if folds are to judge the trials.

    Raises:
        DataError: The user asked for folds that the rows do not allow.
    """
    data, asked = config.data, config.search.folds
    open_rows = splits != Split.TEST
    if image_column(table) is not None:
        if asked > 1:
            raise DataError(
                f"Expected one validation part to judge images on, received --folds {asked}: leave it out, or judge by "
                f"more images (validation_share in the [data] of --config is {data.validation_share})."
            )
        reason = "networks for images are judged on one validation part"
        return np.full(table.num_rows, ALWAYS_TRAINS, np.int8), FoldChoice(
            number=1, reason=reason, is_worth_saying=False
        )
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
        if data.weight:
            check_fold_weights(row_weights(table, data.weight), folds, data.weight)
    except DataError as error:
        if asked:
            raise
        return np.full_like(folds, ALWAYS_TRAINS), FoldChoice(number=1, reason=f"no folds: {error}")
    return folds, choice


def _smallest_class(labels: NDArray[Any], target: TargetSpec) -> int | None:
    """Returns the rows of the rarest class, or those with or without a label; None for a regression."""
    if target.task is Task.MULTILABEL:
        held = labels.sum(axis=0)
        return int(min(held.min(), (len(labels) - held).min()))
    return int(np.bincount(labels).min()) if target.task.is_classification else None


def protocol(schema: DatasetSchema, config: ExperimentConfig) -> str:
    """Returns in one sentence how rows came to their split."""
    if schema.windows:
        return (
            f"Ordered by {config.data.time_column}: windows that forecast the earliest steps train, those of the "
            f"latest are the sealed test; none forecasts over a boundary."
        )
    if schema.time_column:
        return f"Ordered by {schema.time_column}: the earliest rows train, the latest are the sealed test."
    if schema.group:
        return f"Whole groups of {schema.group} by a hash of the group and seed {config.search.seed}."
    strata = "rarest label" if schema.target.columns else "class"
    strata = strata if schema.target.task.is_classification else "tenth of the target's range"
    return f"Stratified by {strata}, by a hash of the row and seed {config.search.seed}; equal rows stay together."


def kind_of(name: str, kind: str) -> Any:
    """Returns what a setting makes of a column: a kind, or ``"ignore"``.

    Raises:
        ConfigError: It is none.
    """
    known = ("numeric", "boolean", "categorical", "datetime", "text", "image", "ignore")
    if kind not in known:
        raise ConfigError(
            f"feature {name!r} is set to {kind!r}{did_you_mean(kind, known)}: expected one of {', '.join(known)}"
        )
    return kind if kind == "ignore" else FeatureKind(kind)


def check_weight(table: pa.Table, target: str, weight: str) -> None:
    """Refuses a column of weights that cannot be one; rows are counted as in the source."""
    if weight in target_columns(table, target):
        raise ConfigError(f"weight is {weight!r}, which is the target: expected another column")
    row_weights(table, weight)
