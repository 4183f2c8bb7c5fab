"""The data contract: what new rows must be like. Written from a profile, edited by a person, checked before use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.data_report import NUM_TOP_VALUES, ColumnProfile, DataProfile
from pipelines.errors import DataError, suggest_name
from pipelines.schema import checked_fields

KINDS = ("numeric", "boolean", "categorical", "datetime", "text")
_SPARE_MISSING = 0.05
"""By how much the missing share may exceed that of the profile before it is a problem."""
_SPARE_ROWS = 0.01
"""Share of the rows that may lie outside of what the profile saw; what a person writes holds for all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRule:
    """What a column must be like.

    Attributes:
        name: Name of the column.
        kind: ``numeric``, ``boolean``, ``categorical``, ``datetime`` or ``text``.
        required: Whether the column must be there.
        datetime_format: strptime format of dates that are not ISO 8601, or None.
        max_missing_share: In [0, 1]; 0 for not null.
        min: Smallest number, or None.
        max: Largest number, or None.
        values: The only values as text, or None for any.
        unique: Whether no value occurs twice.
        pattern: Regular expression (RE2) that text must match from its beginning to its end, or None.
        tolerance: Share of the rows that may break range, values, type and pattern, in [0, 1].
    """

    name: str
    kind: str = "categorical"
    required: bool = True
    datetime_format: str | None = None
    max_missing_share: float = 1.0
    min: float | None = None
    max: float | None = None
    values: tuple[str, ...] | None = None
    unique: bool = False
    pattern: str | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Checks what a person may have written.

        Raises:
            DataError: A kind is unknown, a share is out of range, or a pattern is none.
        """
        where = f"of column {self.name!r} in the data contract"
        if self.kind not in KINDS:
            raise DataError(f"Expected the kind {where} to be one of {', '.join(KINDS)}, received {self.kind!r}.")
        for field in ("max_missing_share", "tolerance"):
            if not 0 <= getattr(self, field) <= 1:
                raise DataError(f"Expected {field} {where} to be a share from 0 to 1, received {getattr(self, field)}.")
        if self.pattern is not None:
            try:
                pc.match_substring_regex(pa.array([""]), self.pattern)
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"Expected a regular expression as the pattern {where}, received {self.pattern!r}."
                ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A rule that rows break.

    Attributes:
        column: Name of the column.
        rule: The rule, such as ``range``.
        message: What was expected and what came, with counts.
    """

    column: str
    rule: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What new rows must be like.

    Attributes:
        columns: A rule for each column.
    """

    columns: tuple[ColumnRule, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the contract as JSON values."""
        return {"contract": 1, "columns": {rule.name: _written(rule) for rule in self.columns}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote, perhaps edited.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown or missing, or a value cannot be used.
        """
        if not isinstance(record, Mapping) or not isinstance(record.get("columns"), Mapping):
            raise DataError("Expected a data contract as `tamiz profile` writes it, with an object 'columns' in it.")
        rules = []
        for name, values in record["columns"].items():
            given = checked_fields(ColumnRule, {"name": name, **values})
            given["values"] = None if given.get("values") is None else tuple(map(str, given["values"]))
            rules.append(ColumnRule(**given))
        return cls(columns=tuple(rules))

    def with_expectations(self, expectations: Mapping[str, Any]) -> Contract:
        """Return the contract with what a person expects, which holds for all rows.

        Args:
            expectations: Column name to ``not_null``, ``range`` (a pair), ``in_set``, ``unique`` and ``matches``.

        Raises:
            DataError: An expectation is unknown or of the wrong type.
        """
        rules = {rule.name: rule for rule in self.columns}
        for name, wanted in expectations.items():
            rules[name] = _expected(rules.get(name, ColumnRule(name=name, kind="text")), wanted)
        return Contract(columns=tuple(rules.values()))


def contract_of(
    profile: DataProfile, *, datetime_formats: Mapping[str, str | None], targets: Collection[str] = ()
) -> Contract:
    """Return the contract that a profile suggests.

    Args:
        profile: The training rows.
        datetime_formats: strptime format of the datetime columns that are not ISO 8601.
        targets: Columns that new rows may lack.
    """
    return Contract(
        columns=tuple(
            _suggested(column, datetime_formats.get(column.name), required=column.name not in targets)
            for column in profile.columns
        )
    )


def _suggested(column: ColumnProfile, datetime_format: str | None, *, required: bool) -> ColumnRule:
    number = column.min is not None
    kind = column.kind if column.kind in KINDS else ("numeric" if number else "categorical")
    few = kind in ("categorical", "boolean") and 0 < column.num_distinct <= NUM_TOP_VALUES and column.kind != "text"
    values = tuple(value for value, _ in column.top_values) if few and kind == "categorical" else None
    return ColumnRule(
        name=column.name,
        kind=kind,
        required=required,
        datetime_format=datetime_format,
        max_missing_share=min(1.0, round(column.missing_share + _SPARE_MISSING, 4)) if required else 1.0,
        min=column.min if kind == "numeric" else None,
        max=column.max if kind == "numeric" else None,
        values=values,
        tolerance=_SPARE_ROWS,
    )


def _written(rule: ColumnRule) -> dict[str, Any]:
    """Return what differs from the defaults: a person reads it."""
    defaults = {field.name: field.default for field in fields(ColumnRule)}
    values = {name: value for name, value in asdict(rule).items() if name in ("kind",) or value != defaults[name]}
    values.pop("name")
    return values | ({"values": list(rule.values)} if rule.values is not None else {})


def _expected(rule: ColumnRule, wanted: Any) -> ColumnRule:
    known = ("not_null", "range", "in_set", "unique", "matches")
    if not isinstance(wanted, Mapping):
        raise DataError(f"Expected a table of expectations for column {rule.name!r}, such as not_null = true.")
    for name in wanted:
        if name not in known:
            raise DataError(
                f"Column {rule.name!r} has an unknown expectation {name!r}.{suggest_name(name, known)} Known are "
                f"{', '.join(known)}."
            )
    changes: dict[str, Any] = {"tolerance": 0.0}
    if wanted.get("not_null"):
        changes["max_missing_share"] = 0.0
    if "range" in wanted:
        limits = wanted["range"]
        if not (isinstance(limits, Sequence) and len(limits) == 2 and all(isinstance(x, int | float) for x in limits)):
            raise DataError(f"Expected range = [LOWEST, HIGHEST] for column {rule.name!r}, received {limits!r}.")
        changes |= {"min": float(limits[0]), "max": float(limits[1]), "kind": "numeric"}
    if "in_set" in wanted:
        if not isinstance(wanted["in_set"], list):
            raise DataError(f"Expected in_set = [VALUES] for column {rule.name!r}, received {wanted['in_set']!r}.")
        changes["values"] = tuple(map(str, wanted["in_set"]))
    if "unique" in wanted:
        changes["unique"] = bool(wanted["unique"])
    if "matches" in wanted:
        changes["pattern"] = str(wanted["matches"])
    return replace(rule, **changes)
