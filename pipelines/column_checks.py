"""Whether columns can be used at all: infinite numbers, and numbers mixed with text, are refused.

Asked of all rows, since all of them will be encoded; what a column means is guessed in `pipelines.inference`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.column_values import numbers_of, parse_numbers, plain_array
from pipelines.errors import DataError
from pipelines.schema import FeatureKind, Override
from pipelines.survey import Misfit, Survey

MIXED_SHARE = 0.9
"""Share of numbers from which the other values of a column are mistakes rather than what it is about."""

_AS_TEXT = (FeatureKind.CATEGORICAL, FeatureKind.TEXT, FeatureKind.DATETIME, "ignore")


def check_columns(
    table: pa.Table, *, target: str | None = None, overrides: Mapping[str, Override] | None = None
) -> None:
    """Refuse columns that hold infinite numbers, or mostly numbers and some text.

    Called on the table as it was read, the row numbers in the messages are those of the file.

    Args:
        table: The rows.
        target: Column that is judged elsewhere.
        overrides: Column name to kind; a column that is to be categorical, text, a date or ignored may be mixed.

    Raises:
        DataError: The first column that cannot be used.
    """
    overrides = overrides or {}
    for name in table.column_names:
        override = overrides.get(name)
        if name == target or override == "ignore":
            continue
        array = plain_array(table, name)
        numbers = array
        if array.type == pa.string():
            numbers = parse_numbers(array)
            if override not in _AS_TEXT:
                _refuse_mixed(name, array, numbers, must_be_number=override is FeatureKind.NUMERIC)
        if numbers.type == pa.float64() and override not in _AS_TEXT:
            _refuse_infinite(name, numbers)


def _refuse_mixed(name: str, array: pa.Array, numbers: pa.Array, *, must_be_number: bool) -> None:
    present = len(array) - array.null_count
    wrong = numbers.null_count - array.null_count
    if wrong == 0 or (wrong > (1 - MIXED_SHARE) * present and not must_be_number):
        return
    row = int(np.flatnonzero(pc.and_(numbers.is_null(), array.is_valid()))[0])
    raise DataError(_mixed(name, Misfit(num_wrong=wrong, num_present=present, first_row=row, first=array[row].as_py())))


def _mixed(name: str, misfit: Misfit) -> str:
    return (
        f"Expected numbers in column {name!r}, but {misfit.num_wrong:,} of {misfit.num_present:,} values are none, the "
        f"first {misfit.first!r} in row {misfit.first_row + 1}; mend them, read them as missing (--missing "
        f"{misfit.first!r}), or use the column as text (--feature {name}=categorical)."
    )


def _refuse_infinite(name: str, numbers: pa.Array) -> None:
    infinite = np.isinf(numbers_of(numbers))
    if infinite.any():
        raise DataError(_not_finite(name, int(infinite.sum()), int(np.flatnonzero(infinite)[0])))


def _not_finite(name: str, number: int, first_row: int) -> str:
    return (
        f"Expected finite numbers in column {name!r}, but {number:,} are infinite, the first in row {first_row + 1}; "
        f"mend them, leave them empty, or drop the column (--feature {name}=ignore)."
    )


def check_survey(survey: Survey, *, overrides: Mapping[str, Override] | None = None) -> None:
    """Refuse what ``check_columns`` refuses, of rows that are not in memory.

    Args:
        survey: A look at all rows.
        overrides: Column name to kind.

    Raises:
        DataError: The first column that cannot be used.
    """
    overrides = overrides or {}
    for name in survey.facts:
        override = overrides.get(name)
        misfit = survey.no_numbers.get(name)
        if override in _AS_TEXT:
            continue
        if misfit is not None and (
            misfit.num_wrong <= (1 - MIXED_SHARE) * misfit.num_present or override is FeatureKind.NUMERIC
        ):
            raise DataError(_mixed(name, misfit))
        if name in survey.infinite:
            raise DataError(_not_finite(name, survey.infinite[name].num_wrong, survey.infinite[name].first_row))
