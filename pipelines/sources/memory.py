"""Tables that are in memory already: DataFrames and Arrow tables; the columns keep their types."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import final

import pandas as pd
import pyarrow as pa

from pipelines.errors import DataError
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Loaded, Parsed, Source, wanted_columns
from pipelines.sources.table_checks import check_column_names

_NUMBER_TYPES = ("integer", "floating", "mixed-integer-float", "decimal", "complex")


@final
class MemorySource(Source):
    """A DataFrame or an Arrow table.

    Args:
        data: The rows; a DataFrame's index is left out.
    """

    def __init__(self, data: pd.DataFrame | pa.Table) -> None:
        self._data = data

    @property
    def name(self) -> str:
        """The kind of object."""
        return "DataFrame" if isinstance(self._data, pd.DataFrame) else "Arrow table"

    def num_bytes(self) -> int | None:
        """Return the size of the columns; text in a DataFrame counts as its references."""
        if isinstance(self._data, pd.DataFrame):
            return int(self._data.memory_usage(deep=False).sum())
        return int(self._data.nbytes)

    def load(self, options: ReadOptions) -> Loaded:
        """Return the rows as they are."""
        table = table_from_frame(self._data, options) if isinstance(self._data, pd.DataFrame) else self._data
        return Loaded(parsed=Parsed(table=table))

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield one table; it is in memory anyway."""
        del chunk_rows
        table = self.load(options).parsed.table
        yield table.select(wanted_columns(table.column_names, columns))


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
