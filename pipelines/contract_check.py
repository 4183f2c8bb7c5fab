"""Rows held against a data contract, a part at a time, so that no more than a part of them is in memory."""

from __future__ import annotations

from typing import final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import numbers_of, plain_array, text_of, truth_of
from pipelines.contract import ColumnRule, Contract, Problem
from pipelines.datetime_text import timestamps_of
from pipelines.errors import list_names, suggest_name
from pipelines.row_hash import hash_column
from pipelines.schema import FeatureKind


def check_rows(table: pa.Table, contract: Contract) -> list[Problem]:
    """Return the rules that rows break; columns without a rule are fine.

    Args:
        table: The rows.
        contract: The rules.
    """
    check = ContractCheck(contract)
    check.add(table)
    return check.problems()


@final
class ContractCheck:
    """The rules that rows break.

    Args:
        contract: The rules.
        fixed_columns: Whether the rows show every column that they could have; else one that all of them leave out is
            one of missing values only.
    """

    def __init__(self, contract: Contract, *, fixed_columns: bool = True) -> None:
        self._fixed = fixed_columns
        self._columns = {rule.name: _ColumnCheck(rule) for rule in contract.columns}
        self._names: list[str] = []

    def add(self, table: pa.Table) -> None:
        """Look at some rows; all parts have the same columns of the same types."""
        self._names = table.column_names
        for name, column in self._columns.items():
            if name in self._names:
                column.add(plain_array(table, name))

    def problems(self) -> list[Problem]:
        """Return the rules that the rows so far break, in the order of the contract."""
        found: list[Problem] = []
        for name, column in self._columns.items():
            if name in self._names:
                found += column.problems()
            elif column.rule.required and (self._fixed or column.rule.max_missing_share < 1):
                near = suggest_name(name, self._names)
                found.append(Problem(column=name, rule="present", message=f"is not there.{near}"))
        return found


@final
class _Broken:
    """Rows that break one rule of a column."""

    def __init__(self, expected: str) -> None:
        self.expected, self.num_rows, self.first_row = expected, 0, 0
        self.first: object = None

    def add(self, wrong: pa.Array, array: pa.Array, *, start: int) -> None:
        """Count the marked rows of a part that begins at row `start`."""
        rows = np.flatnonzero(np.asarray(pc.fill_null(wrong, False).to_numpy(zero_copy_only=False), bool))
        if rows.size and not self.num_rows:
            self.first_row, self.first = start + int(rows[0]), array[int(rows[0])].as_py()
        self.num_rows += rows.size


@final
class _ColumnCheck:
    """What has been seen of one column, held against its rule."""

    def __init__(self, rule: ColumnRule) -> None:
        self.rule = rule
        self._num_rows = self._num_missing = 0
        self._unfit: pa.DataType | None = None
        self._identities: list[NDArray[np.uint64]] = []
        low, high = _limit(rule.min, -np.inf), _limit(rule.max, np.inf)
        of_format = f" ({rule.datetime_format})" if rule.datetime_format else ""
        self._broken = {
            "type": _Broken(f"{rule.kind} values{of_format}"),
            "range": _Broken(f"numbers from {low:g} to {high:g}"),
            "values": _Broken(f"only {list_names(rule.values)}" if rule.values is not None else ""),
            "pattern": _Broken(f"text that matches {rule.pattern!r}"),
        }

    def add(self, array: pa.Array) -> None:
        """Look at some rows."""
        start, self._num_rows = self._num_rows, self._num_rows + len(array)
        self._num_missing += array.null_count
        usable = _of_kind(array, self.rule)
        if usable is None:
            self._unfit = array.type
            return
        for name, wrong in self._wrong(array, usable).items():
            self._broken[name].add(wrong, array, start=start)
        if self.rule.unique:
            self._identities.append(_identities(array.drop_null()))

    def problems(self) -> list[Problem]:
        """Return the rules that the rows so far break."""
        rule, total = self.rule, max(self._num_rows, 1)
        messages = {}
        share = self._num_missing / total
        if share > rule.max_missing_share:
            messages["missing"] = (
                f"expected at most {rule.max_missing_share:.1%} missing values, received {share:.1%}."
            )
        if self._unfit is not None:
            messages["type"] = f"expected {rule.kind} values, received {self._unfit}."
        for name, broken in self._broken.items():
            if broken.num_rows > rule.tolerance * total:
                messages[name] = (
                    f"expected {broken.expected}, but {broken.num_rows:,} of {self._num_rows:,} rows have others, the "
                    f"first {broken.first!r} in row {broken.first_row + 1}."
                )
        known = np.concatenate([np.zeros(0, np.uint64), *self._identities])
        if doubles := len(known) - np.unique(known).size:
            messages["unique"] = f"expected each value once, but {doubles:,} rows repeat the value of another."
        return [Problem(column=rule.name, rule=name, message=message) for name, message in messages.items()]

    def _wrong(self, array: pa.Array, usable: pa.Array) -> dict[str, pa.Array]:
        """Return for each rule the rows that break it; a missing value breaks none."""
        rule = self.rule
        wrong = {"type": pc.and_(pc.is_null(usable), pc.is_valid(array))}
        if rule.kind == "numeric" and (rule.min is not None or rule.max is not None):
            low, high = _limit(rule.min, -np.inf), _limit(rule.max, np.inf)
            wrong["range"] = pc.or_(pc.less(usable, low), pc.greater(usable, high))
        if rule.values is None and rule.pattern is None:
            return wrong
        text = text_of(array) if array.type != pa.null() else array.cast(pa.string())
        if rule.values is not None:
            wrong["values"] = pc.and_(
                pc.invert(pc.is_in(text, pa.array(rule.values, pa.string()))), pc.is_valid(text)
            )
        if rule.pattern is not None:
            wrong["pattern"] = pc.invert(pc.match_substring_regex(text, f"^(?:{rule.pattern})$"))
        return wrong


def _identities(array: pa.Array) -> NDArray[np.uint64]:
    """Return 8 bytes for each value; text is told apart letter by letter, also where it stands for the same date."""
    if array.type != pa.string():
        return hash_column(array)
    return np.asarray(pd.util.hash_array(np.array(array.to_pylist(), object), categorize=False), np.uint64)


def _limit(value: float | None, default: float) -> float:
    return default if value is None else value


def _of_kind(array: pa.Array, rule: ColumnRule) -> pa.Array | None:
    """Return the column with nulls where a value is not of the kind; None if no value can be."""
    if array.type == pa.null() or rule.kind in (FeatureKind.CATEGORICAL, FeatureKind.TEXT):
        return array.cast(pa.float64()) if array.type == pa.null() and rule.kind == "numeric" else array
    is_time = pa.types.is_timestamp(array.type)
    if rule.kind == FeatureKind.DATETIME:
        if is_time or array.type == pa.string():
            return timestamps_of(array, datetime_format=rule.datetime_format)
        return None
    if is_time:
        return None
    if rule.kind == FeatureKind.BOOLEAN:
        return truth_of(array)
    numbers = numbers_of(array)
    return pa.array(numbers, mask=np.isnan(numbers))
