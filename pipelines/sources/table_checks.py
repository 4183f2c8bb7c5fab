"""The checks that hold for every source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from pipelines.column_values import TextForm, plain_table
from pipelines.errors import DataError


def plain_source(table: pa.Table, name: str, *, text: TextForm = TextForm.PLAIN) -> pa.Table:
    """Return a table of plain types after the checks that hold for every source.

    Args:
        table: What was read.
        name: Name of the source in messages.
        text: The form of text.

    Raises:
        DataError: There is no column or no row, or two columns have one name.
    """
    check_column_names(table.column_names, name)
    if table.num_columns == 0:
        raise DataError(f"Expected a table, but {name} has no columns; give a header and rows.")
    if table.num_rows == 0:
        raise DataError(f"Expected rows, but {name!r} has a header and no row below it; give one with rows.")
    return plain_table(table, text=text)


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
