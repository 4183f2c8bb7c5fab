"""What a person should know about the data before any search: a profile of every column and findings.

The profile of columns describes the training rows only: it is stored with the model as the baseline that drift is
measured against, and the test rows stay sealed (R6). Of the test rows only their hashes are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import PLAIN_TYPES, num_distinct, numbers_of, plain_array, text_of
from pipelines.leakage import find_leaks
from pipelines.raw_columns import class_labels
from pipelines.row_hash import hash_rows
from pipelines.schema import DatasetSchema, FeatureKind, Task, checked_fields
from pipelines.splits import Split

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
NUM_BINS = 20
NUM_TOP_VALUES = 20

_MUCH_MISSING = 0.5
_IMBALANCE = 10.0


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a person should know.

    Attributes:
        severity: How much it matters.
        code: A fixed word for programs, such as ``suspected-leak``.
        message: The matter with its numbers, in one line.
    """

    severity: Severity
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnProfile:
    """The training rows of one column.

    Attributes:
        name: Name of the column.
        kind: The kind of the feature; ``target`` for the target.
        type: Arrow's name of the type.
        missing_share: Share of missing values in [0, 1].
        num_distinct: Number of different values, missing left out.
        min: Smallest number, or None for columns without numbers.
        max: Largest number.
        mean: Mean, or None when float64 cannot hold it.
        std: Standard deviation, likewise.
        quantiles: The quantiles of ``QUANTILES``; empty for columns without numbers.
        histogram_edges: ``NUM_BINS + 1`` edges; empty for columns without numbers.
        histogram_counts: Rows in each bin.
        top_values: The most frequent values as text and their numbers of rows.
    """

    name: str
    kind: str
    type: str
    missing_share: float
    num_distinct: int
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] = ()
    histogram_edges: tuple[float, ...] = ()
    histogram_counts: tuple[int, ...] = ()
    top_values: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataProfile:
    """A data set in numbers.

    Attributes:
        num_rows: All rows.
        split_rows: Rows of training, validation and test.
        columns: The training rows of every column.
        findings: What a person should know, the most severe first.
    """

    num_rows: int
    split_rows: tuple[int, int, int]
    columns: tuple[ColumnProfile, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown or missing.
        """
        values = checked_fields(cls, record)
        values["split_rows"] = tuple(values["split_rows"])
        values["columns"] = tuple(_column_from_json(column) for column in values["columns"])
        values["findings"] = tuple(_finding_from_json(finding) for finding in values["findings"])
        return cls(**values)


def _column_from_json(record: Mapping[str, Any]) -> ColumnProfile:
    values = checked_fields(ColumnProfile, record)
    for name in ("quantiles", "histogram_edges", "histogram_counts"):
        values[name] = tuple(values[name])
    values["top_values"] = tuple((str(value), int(count)) for value, count in values["top_values"])
    return ColumnProfile(**values)


def _finding_from_json(record: Mapping[str, Any]) -> Finding:
    values = checked_fields(Finding, record)
    return Finding(**values | {"severity": Severity(values["severity"])})


def profile_table(
    table: pa.Table, schema: DatasetSchema, splits: NDArray[np.int8], *, notes: Sequence[str] = ()
) -> DataProfile:
    """Describe a table and say what a person should know about it.

    Args:
        table: All rows.
        schema: Which columns are used, and how.
        splits: ``Split`` values of shape ``(num_rows,)``.
        notes: What the source recognised; each becomes a finding.
    """
    train = table.filter(pa.array(splits == Split.TRAIN))
    kinds = {feature.name: feature.kind.value for feature in schema.features}
    kinds |= dict.fromkeys(schema.target.names, "target")
    columns = profile_columns(train, kinds)
    findings = [Finding(severity=Severity.INFO, code="recognised", message=note) for note in notes]
    findings += column_findings(schema)
    used = [feature.name for feature in schema.used_features]
    findings += missing_findings({name: table.column(name).null_count for name in used}, table.num_rows)
    rows = hash_rows(table, columns=[*used, *schema.target.names])
    findings += repeated_rows(hash_rows(table, columns=used), rows, splits)
    findings += imbalance_findings(table, schema)
    findings += leak_findings(table, schema, splits)
    counts = np.bincount(splits, minlength=len(Split))
    return DataProfile(
        num_rows=table.num_rows,
        split_rows=(int(counts[0]), int(counts[1]), int(counts[2])),
        columns=columns,
        findings=tuple(sorted(findings, key=lambda finding: finding.severity is not Severity.WARNING)),
    )


def profile_columns(table: pa.Table, kinds: Mapping[str, str]) -> tuple[ColumnProfile, ...]:
    """Describe columns.

    Args:
        table: The rows that are described.
        kinds: Column name to the kind of the feature; other columns are left out.
    """
    return tuple(_profile_column(table, name, kinds[name]) for name in table.column_names if name in kinds)


def _profile_column(table: pa.Table, name: str, kind: str) -> ColumnProfile:
    array = plain_array(table, name)
    missing_share = array.null_count / max(len(array), 1)
    if array.type not in PLAIN_TYPES or array.type == pa.null():
        return ColumnProfile(name=name, kind=kind, type=str(array.type), missing_share=missing_share, num_distinct=0)
    is_number = array.type in (pa.int64(), pa.float64())
    return ColumnProfile(
        name=name,
        kind=kind,
        type=str(array.type),
        missing_share=missing_share,
        num_distinct=num_distinct(array),
        top_values=_top_values(array),
        **(_number_facts(array) if is_number and array.null_count < len(array) else {}),
    )


def _number_facts(array: pa.Array) -> dict[str, Any]:
    values = numbers_of(array)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {}
    counts, edges = np.histogram(values, bins=_bin_edges(values))
    with np.errstate(over="ignore", invalid="ignore"):  # numbers near the limit of float64 have no finite moments
        mean, std = float(values.mean()), float(values.std())
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": mean if np.isfinite(mean) else None,
        "std": std if np.isfinite(std) else None,
        "quantiles": tuple(map(float, np.quantile(values, QUANTILES))),
        "histogram_edges": tuple(map(float, edges)),
        "histogram_counts": tuple(map(int, counts)),
    }


def _bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    # A constant, or a range that float64 cannot divide, gets bins of the next sensible width.
    margin = max(abs(low), 1.0) * 1e-6 if high - low <= max(abs(low), abs(high)) * 1e-12 else 0.0
    return np.linspace(low - margin, high + margin, NUM_BINS + 1)


def _top_values(array: pa.Array) -> tuple[tuple[str, int], ...]:
    counts = pc.value_counts(array.drop_null())
    sizes = np.asarray(counts.field("counts"))
    labels = text_of(counts.field("values"))
    # Ties go by text, so that the profile does not depend on the order of the rows.
    candidates = np.argsort(-sizes, kind="stable")
    if sizes.size > NUM_TOP_VALUES:
        candidates = candidates[sizes[candidates] >= sizes[candidates[NUM_TOP_VALUES - 1]]]
    found = zip(labels.take(pa.array(candidates)).to_pylist(), sizes[candidates].tolist(), strict=True)
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0]))[:NUM_TOP_VALUES])


def _percent(share: float) -> str:
    return "less than 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def column_findings(schema: DatasetSchema) -> list[Finding]:
    """Say which columns are not used, and why.

    Args:
        schema: The columns.
    """
    found = []
    for feature in schema.features:
        if feature.used:
            continue
        code = "text-column" if feature.kind is FeatureKind.TEXT else "dropped-column"
        code = "constant-column" if "constant" in feature.reason else code
        message = f"Column {feature.name!r} is not used; {feature.reason}."
        found.append(Finding(severity=Severity.INFO, code=code, message=message))
    return found


def missing_findings(columns: Mapping[str, int], num_rows: int) -> list[Finding]:
    """Say which columns have gaps.

    Args:
        columns: Column name to its rows without a value.
        num_rows: All rows.
    """
    found = []
    for name, num_missing in columns.items():
        if num_missing:
            share = num_missing / num_rows
            severity = Severity.WARNING if share > _MUCH_MISSING else Severity.INFO
            rows = f"{num_missing:,} of {num_rows:,} rows ({_percent(share)})"
            message = f"Column {name!r} is missing in {rows}."
            found.append(Finding(severity=severity, code="missing", message=message))
    return found


def repeated_rows(
    features: NDArray[np.uint64], rows: NDArray[np.uint64], splits: NDArray[np.int8]
) -> list[Finding]:
    """Say which rows are there twice.

    Args:
        features: Hashes of the used columns, ``(num_rows,)``.
        rows: Hashes of these and the target, ``(num_rows,)``.
        splits: ``Split`` values of shape ``(num_rows,)``.
    """
    found = []
    num_same = len(rows) - np.unique(rows).size
    if num_same:
        share = num_same / len(rows)
        message = f"{num_same:,} rows ({_percent(share)}) repeat another row in all used columns and the target."
        found.append(Finding(severity=Severity.INFO, code="duplicate-rows", message=message))
    test = features[splits == Split.TEST]
    num_known = int(np.isin(test, features[splits == Split.TRAIN]).sum())
    if num_known:
        share = num_known / test.size
        message = (
            f"{num_known:,} of {test.size:,} test rows ({_percent(share)}) equal a training row in all used columns; "
            "the test result will be too good by them."
        )
        severity = Severity.WARNING if share > 0.01 else Severity.INFO
        found.append(Finding(severity=severity, code="train-test-duplicates", message=message))
    return found


def imbalance_findings(table: pa.Table, schema: DatasetSchema) -> list[Finding]:
    """Say whether one class has many times the rows of another.

    Args:
        table: All rows; other columns than the target are not looked at.
        schema: What is predicted.
    """
    if schema.target.task not in (Task.BINARY, Task.MULTICLASS):
        return []
    counts = pc.value_counts(class_labels(plain_array(table, schema.target.name)))
    sizes, labels = np.asarray(counts.field("counts")), counts.field("values").to_pylist()
    most, least = int(np.argmax(sizes)), int(np.argmin(sizes))
    ratio = sizes[most] / sizes[least]
    if ratio <= _IMBALANCE:
        return []
    message = (
        f"Class {labels[most]!r} of {schema.target.name!r} has {sizes[most]:,} rows, class {labels[least]!r} only "
        f"{sizes[least]:,} ({ratio:.0f} to 1); accuracy alone would mislead."
    )
    return [Finding(severity=Severity.WARNING, code="imbalance", message=message)]


def leak_findings(table: pa.Table, schema: DatasetSchema, splits: NDArray[np.int8]) -> list[Finding]:
    """Say which columns know the target; arguments as for ``find_leaks``."""
    return [
        Finding(
            severity=Severity.WARNING,
            code="suspected-leak",
            message=f"Column {leak.column!r} alone predicts {schema.target.name!r} almost perfectly ({leak.metric} "
            f"{leak.score:.4f} on {leak.num_rows:,} validation rows); if it is not known at prediction time, drop it "
            f"(--feature {leak.column}=ignore).",
        )
        for leak in find_leaks(table, schema, splits)
    ]
