"""Tables that are in memory already: DataFrames and Arrow tables; the columns keep their types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from pipelines.column_values import plain_table
from pipelines.errors import DataError
from pipelines.sources.options import ReadOptions

_NUMBER_TYPES = ("integer", "floating", "mixed-integer-float", "decimal", "complex")


def plain_source(table: pa.Table, name: str) -> pa.Table:
    """Return a table of plain types after the checks that hold for every source.

    Args:
        table: What was read.
        name: Name of the source in messages.

    Raises:
        DataError: There is no column or no row, or two columns have one name.
    """
    check_column_names(table.column_names, name)
    if table.num_columns == 0:
        raise DataError(f"Expected a table, but {name} has no columns; give a header and rows.")
    if table.num_rows == 0:
        raise DataError(f"Expected rows, but {name} has a header of {table.num_columns:,} columns and no row below it.")
    return plain_table(table)


def check_column_names(names: Sequence[str], source: str) -> None:
    """Refuse two columns of one name.

    Args:
        names: The column names.
        source: Name of the source in messages.

    Raises:
        DataError: A name occurs twice.
    """
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles:
        places = [str(index + 1) for index, name in enumerate(names) if name == doubles[0]]
        raise DataError(
            f"Expected different column names, but {doubles[0]!r} names the columns {', '.join(places)} of {source}; "
            "rename all but one."
        )


def table_from_frame(frame: pd.DataFrame, options: ReadOptions) -> pa.Table:
    """Return a DataFrame as an Arrow table, without its index.

    Args:
        frame: The rows.
        options: ``text_columns`` may hold mixed values; they become text.

    Raises:
        DataError: Two columns have one name, or a column mixes numbers and text or holds other objects.
    """
    names = [str(name) for name in frame.columns]
    check_column_names(names, "the DataFrame")
    columns = {}
    for index, name in enumerate(names):
        series = frame.iloc[:, index]
        if series.dtype == object:
            series = _settle_objects(series, name, keep_text=name in options.text_columns)
        try:
            columns[name] = pa.Array.from_pandas(series)
        except (pa.ArrowException, OverflowError) as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            raise DataError(
                f"Expected one type of value in column {name!r}, received objects that Arrow cannot hold ({reason}); "
                "convert or drop the column."
            ) from error
    return pa.table(columns) if columns else pa.table({})


def _settle_objects(series: pd.Series, name: str, *, keep_text: bool) -> pd.Series:
    """Return a column of Python objects ready for Arrow, or refuse it."""
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if keep_text:
        return series.map(str, na_action="ignore")
    if kind in _NUMBER_TYPES:
        return pd.to_numeric(series)
    if kind not in ("mixed", "mixed-integer"):
        return series
    present = series[series.notna()]
    is_text = present.map(lambda value: isinstance(value, str))
    if is_text.any() and not is_text.all():
        other = "numbers" if (~is_text).sum() >= is_text.sum() else "text"
        odd = is_text if other == "numbers" else ~is_text
        position = int((series.notna().to_numpy().nonzero()[0])[odd.to_numpy().argmax()])
        what = "text" if other == "numbers" else "no text"
        raise DataError(
            f"Expected {other} in column {name!r}, but {int(odd.sum()):,} of {len(present):,} values are {what}, "
            f"the first {series.iloc[position]!r} in row {position + 1}; convert the column to one type."
        )
    return series
