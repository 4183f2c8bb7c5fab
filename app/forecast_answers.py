"""What an exported forecast asks for, made from the past of series: the window up to each one's last known value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.column_values import numbers_of, plain_array, require_column, text_of
from pipelines.instants import time_text
from pipelines.schema import DatasetSchema
from pipelines.series_steps import order_series
from pipelines.windows import WindowSpec, latest_windows, window_table

LAST_KNOWN = "last known"
"""Column of the answers that says up to when the past of each series was known."""


def wants_past(table_names: list[str], schema: DatasetSchema) -> bool:
    """Returns whether a model forecasts and the columns are those of series rather than of windows."""
    if schema.windows is None:
        return False
    spec = WindowSpec.from_json(schema.windows)
    return spec.time_column in table_names and spec.target in table_names


def latest_rows(table: pa.Table, windows: Mapping[str, Any]) -> tuple[pa.Table, pd.DataFrame]:
    """Returns the row of each series that the model forecasts from, and whose it is and up to when it knows.

    Args:
        table: The past of the series; rows without a target hold what is known ahead.
        windows: What windows are made of, as the schema has it.

    Raises:
        DataError: A column is absent or unfit, or the past of a series is too short or has a gap.
    """
    spec = WindowSpec.from_json(windows)
    ordered = order_series(table, time_column=spec.time_column, series_id=spec.series_id or None)
    known = ~np.isnan(numbers_of(plain_array(table, require_column(table, spec.target, role="target column"))))
    rows = latest_windows(ordered, known, spec)
    last = rows[:, spec.context - 1]
    times = np.empty_like(ordered.times)
    times[ordered.order] = ordered.times
    found: dict[str, Any] = {}
    if spec.series_id:
        found[spec.series_id] = text_of(plain_array(table, spec.series_id)).take(pa.array(last)).to_pandas()
    found[LAST_KNOWN] = [time_text(time) for time in times[last]]
    return window_table(table, rows, spec, with_targets=False), pd.DataFrame(found)
