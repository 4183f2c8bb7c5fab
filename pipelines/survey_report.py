"""The data report of a table that is not held in memory: exact where counts say it, of a sample where values do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import text_of
from pipelines.data_report import (
    NUM_TOP_VALUES,
    ColumnProfile,
    DataProfile,
    Finding,
    Severity,
    column_findings,
    imbalance_findings,
    leak_findings,
    missing_findings,
    profile_columns,
    repeated_rows,
)
from pipelines.schema import DatasetSchema
from pipelines.splits import Split
from pipelines.survey import ColumnFacts, Survey

MAX_COMPARED = 2_000_000
"""Rows that are compared with each other; of more, those with the lowest hashes: equal rows are all there or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """What tells the rows of all splits apart.

    Attributes:
        features: Hashes of the used columns, ``(num_rows,)``.
        rows: Hashes of these and the target, ``(num_rows,)``.
        splits: ``Split`` values, ``(num_rows,)``.
    """

    features: NDArray[np.uint64]
    rows: NDArray[np.uint64]
    splits: NDArray[np.int8]


def profile_survey(
    survey: Survey, schema: DatasetSchema, *, identities: Identities, targets: pa.Table, notes: Sequence[str] = ()
) -> DataProfile:
    """Describe rows that were surveyed, as ``profile_table`` describes a table.

    Args:
        survey: A look at all rows.
        schema: Which columns are used, and how.
        identities: What tells the rows apart.
        targets: The target columns of all rows.
        notes: What the source recognised; each becomes a finding.
    """
    kinds = {feature.name: feature.kind.value for feature in schema.features}
    kinds |= dict.fromkeys(schema.target.names, "target")
    columns = surveyed_columns(survey, kinds)
    missing = {feature.name: survey.facts[feature.name].missing_anywhere for feature in schema.used_features}
    findings = [Finding(severity=Severity.INFO, code="recognised", message=note) for note in notes]
    findings += column_findings(schema)
    findings += missing_findings(missing, survey.num_rows)
    findings += _repeated(identities)
    findings += imbalance_findings(targets, schema)
    findings += leak_findings(survey.sample, schema, survey.sample_splits)
    counts = np.bincount(identities.splits, minlength=len(Split))
    return DataProfile(
        num_rows=survey.num_rows,
        split_rows=(int(counts[0]), int(counts[1]), int(counts[2])),
        columns=columns,
        findings=tuple(sorted(findings, key=lambda finding: finding.severity is not Severity.WARNING)),
    )


def surveyed_columns(survey: Survey, kinds: Mapping[str, str]) -> tuple[ColumnProfile, ...]:
    """Describe the training rows of columns.

    Args:
        survey: A look at all rows.
        kinds: Column name to the kind of the feature; other columns are left out.
    """
    training = survey.sample.filter(pa.array(survey.sample_splits == Split.TRAIN))
    columns = profile_columns(training, kinds)
    if survey.is_complete:
        return columns
    return tuple(_of_all(column, survey.facts[column.name]) for column in columns)


def _of_all(column: ColumnProfile, facts: ColumnFacts) -> ColumnProfile:
    """Put what is known of all training rows in the place of what the sample says."""
    counted = sum(column.histogram_counts)
    present = facts.num_rows - facts.num_missing
    scale = present / counted if counted else facts.num_rows / max(1, sum(rows for _, rows in column.top_values))
    column = replace(
        column,
        missing_share=facts.num_missing / max(1, facts.num_rows),
        num_distinct=facts.num_distinct,
        histogram_counts=tuple(round(rows * scale) for rows in column.histogram_counts),
        top_values=tuple((value, round(rows * scale)) for value, rows in column.top_values),
    )
    if facts.frequent is not None:
        column = replace(column, top_values=_most_frequent(*facts.frequent))
    if facts.moments is None or not facts.moments.num:
        return column
    moments = facts.moments
    mean, deviation = (value if np.isfinite(value) else None for value in (moments.mean, moments.deviation))
    return replace(column, min=moments.min, max=moments.max, mean=mean, std=deviation)


def _most_frequent(values: pa.Array, rows: NDArray[np.int64]) -> tuple[tuple[str, int], ...]:
    if len(rows) > NUM_TOP_VALUES:
        kept = np.flatnonzero(rows >= np.partition(rows, len(rows) - NUM_TOP_VALUES)[len(rows) - NUM_TOP_VALUES])
        values, rows = values.take(pa.array(kept)), rows[kept]
    found = zip(text_of(values).to_pylist(), rows.tolist(), strict=True)
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0]))[:NUM_TOP_VALUES])


def _repeated(identities: Identities) -> list[Finding]:
    num_rows = len(identities.splits)
    if num_rows <= MAX_COMPARED:
        return repeated_rows(identities.features, identities.rows, identities.splits)
    limit = np.uint64(int(2**64 * (MAX_COMPARED / num_rows)))
    kept, features = identities.rows < limit, identities.features < limit
    found = repeated_rows(np.zeros(0, np.uint64), identities.rows[kept], np.zeros(0, np.int8))
    found += repeated_rows(identities.features[features], np.zeros(0, np.uint64), identities.splits[features])
    told = f" (counted among {int(kept.sum()):,} rows with the lowest hashes, of {num_rows:,})"
    return [replace(finding, message=f"{finding.message.rstrip('.')}{told}.") for finding in found]
