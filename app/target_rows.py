"""Which rows have a target, what is predicted of them, and which split each is in: alike in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.config import DataConfig, ExperimentConfig
from app.forecast_stage import embargo_of
from pipelines.schema import TargetSpec, Task
from pipelines.several_targets import infer_targets, known_targets
from pipelines.splits import assign_splits
from pipelines.target_inference import with_quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRows:
    """The rows that have a target.

    Attributes:
        table: These rows.
        known: Which of all rows they are, ``(num_rows,)``.
        target: What is predicted of them.
        notes: How many rows have none, if there are such.
    """

    table: pa.Table
    known: NDArray[np.bool_]
    target: TargetSpec
    notes: tuple[str, ...]


def rows_with_target(table: pa.Table, names: tuple[str, ...], data: DataConfig) -> TargetRows:
    """Returns the rows that have a target, and what it is.

    Args:
        table: All rows.
        names: The target columns.
        data: The settings.

    Raises:
        DataError: The target cannot be predicted.
    """
    known, note = known_targets(table, names)
    table = table if note is None else table.filter(pa.array(known))
    target = infer_targets(table, names, task=None if data.task == "auto" else Task(data.task))
    target = with_quantiles(target, data.quantiles)
    return TargetRows(table=table, known=known, target=target, notes=() if note is None else (note,))


def split_rows(
    table: pa.Table,
    target: TargetSpec,
    config: ExperimentConfig,
    *,
    identities: NDArray[np.uint64] | None = None,
) -> NDArray[np.int8]:
    """Returns the split of every row, before anything looks at the features (R6).

    Args:
        table: The rows that have a target.
        target: What is predicted.
        config: The settings.
        identities: As for `assign_splits`, where the table has not all columns.

    Raises:
        DataError: The rows cannot be split so.
    """
    data = config.data
    return assign_splits(
        table,
        target,
        seed=config.search.seed,
        validation_share=data.validation_share,
        test_share=data.test_share,
        group=data.group or None,
        time_column=data.time_column or None,
        embargo=embargo_of(data),
        identities=identities,
    )
