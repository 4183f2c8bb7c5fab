"""What each column means, guessed from its values; every guess carries the numbers that led to it.

The guess reads the training rows only; whether a column can be used at all is asked in `pipelines.column_checks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_checks import check_columns
from pipelines.column_values import (
    PLAIN_TYPES,
    TIMESTAMP,
    has_leading_zeros,
    is_bytes,
    is_whole,
    num_distinct,
    parse_numbers,
    plain_array,
    present_numbers,
    require_column,
    spelled_truths,
    take_rows,
    truth_of,
)
from pipelines.datetime_text import ISO_8601, recognise_format
from pipelines.errors import DataError
from pipelines.image_headers import looks_like_image
from pipelines.image_references import is_image_file
from pipelines.preprocessing import MAX_VOCABULARY
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, Override, RawType, TargetSpec
from pipelines.survey import ColumnFacts
from pipelines.target_encoding import MAX_OUTPUTS, MIN_CATEGORIES
from pipelines.target_inference import drop_rows_without_target, infer_target

__all__ = ["drop_rows_without_target", "infer_features", "infer_target"]

_TABLE_KINDS = (FeatureKind.NUMERIC, FeatureKind.BOOLEAN, FeatureKind.CATEGORICAL, FeatureKind.DATETIME)

_DATE_SHARE = 0.95
_NEAR_UNIQUE_SHARE = 0.95
_MANY_ROWS = 1_000
_TEXT_MIN_DISTINCT = 50
_TEXT_SHARE = 0.5
_TEXT_MIN_WORDS = 4.0
_AS_NGRAMS = "read by its character n-grams"
# Below this every whole number has its own float32.
_EXACT_FLOAT32 = 2**24
_ID_NAME = re.compile(
    r"(?:^|[_\s.:-])(?:id|ids|uuid|guid|key|index|idx|rownames?|row[_\s.-]?(?:number|num|no|id|names?))$"
    r"|^unnamed: ?\d+$",
    re.IGNORECASE,
)
_CAMEL_ID = re.compile(r"(?<=[a-z0-9])I[dD]$")


@dataclass(frozen=True, slots=True)
class _Guess:
    kind: FeatureKind
    reason: str
    used: bool = True
    datetime_format: str | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    """One column: all of its rows, and the facts of its training rows that every rule asks for."""

    name: str
    whole: pa.Array
    train: pa.Array
    known: ColumnFacts | None = None
    distinct: int = field(init=False)
    num_rows: int = field(init=False)
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        known = self.known
        if known is not None:
            distinct, num_rows, missing = known.num_distinct, known.num_rows, known.num_missing
        else:
            distinct = num_distinct(self.train) if self.train.type in PLAIN_TYPES else 0
            num_rows, missing = len(self.train), self.train.null_count
        for name, value in (("distinct", distinct), ("num_rows", num_rows), ("missing", missing)):
            object.__setattr__(self, name, value)

    @property
    def present(self) -> int:
        """Training rows with a value."""
        return self.num_rows - self.missing

    @property
    def is_whole(self) -> bool:
        """Whether all numbers, in all rows, are whole."""
        return is_whole(self.whole) if self.known is None else self.known.is_whole

    @property
    def magnitude(self) -> float:
        """The largest magnitude of its numbers, in all rows."""
        if self.known is not None:
            return max(abs(self.known.smallest), abs(self.known.largest))
        return float(np.abs(present_numbers(self.whole)).max(initial=0))

    @property
    def has_gaps(self) -> bool:
        """Whether a value is missing, in any row."""
        return bool(self.whole.null_count if self.known is None else self.known.missing_anywhere)

    @property
    def holds_truths(self) -> bool:
        """Whether all numbers, in all rows, are 0 or 1."""
        if self.known is None or self.whole.type == pa.string():
            return bool(truth_of(self.whole).null_count == self.whole.null_count)
        return self.known.is_whole and self.known.smallest >= 0 and self.known.largest <= 1

    @property
    def spells_truths(self) -> bool:
        """Whether its values are true and false, as such or as words."""
        if self.whole.type == pa.string():
            return self.present > 0 and spelled_truths(self.whole) is not None
        return bool(self.whole.type == pa.bool_())

    @property
    def is_text_of_numbers(self) -> bool:
        """Whether all text, in all rows, is a number, and none a code with leading zeros."""
        if self.known is not None:
            return self.known.only_numbers
        numbers = parse_numbers(self.whole)
        return bool(numbers.null_count == self.whole.null_count and not has_leading_zeros(self.whole))

    @property
    def facts(self) -> str:
        """The counts in words."""
        return f"{self.distinct:,} distinct values in {self.present:,} rows"


def infer_features(
    table: pa.Table,
    target: TargetSpec,
    *,
    rows: NDArray[np.bool_] | None = None,
    overrides: Mapping[str, Override] | None = None,
    group: str | None = None,
    time_column: str | None = None,
    weight: str | None = None,
    facts: Mapping[str, ColumnFacts] | None = None,
) -> DatasetSchema:
    """Say what each column means and which ones are used.

    Args:
        table: All rows.
        target: What is predicted; without a name nothing is, and every column is looked at.
        rows: Mask of shape ``(num_rows,)``: the training rows; None for all.
        overrides: Column name to kind, or to ``"ignore"``.
        group: Column whose equal values stay in one split; it is no feature.
        time_column: Column that orders the splits; it is no feature.
        weight: Column that says how much a row counts; it is no feature.
        facts: What is known of all rows, where `table` is a sample of them; None where it is not.

    Raises:
        DataError: An override names no column or a kind that the column cannot have, a column cannot be used (see
            ``check_columns``), or none is left.
    """
    overrides = dict(overrides or {})
    for name in overrides:
        require_column(table, name, role="column")
    for name in set(target.names) & set(overrides):
        raise DataError(f"Column {name!r} is the target; its task is set by --task, not by --feature.")
    roles: dict[str, str] = {}
    if group is not None:
        roles[require_column(table, group, role="group column")] = "keeps its rows in one split"
    if time_column is not None:
        roles[require_column(table, time_column, role="time column")] = (
            "orders the splits; a model must not learn the position in time"
        )
    if weight is not None:
        roles[require_column(table, weight, role="weight column")] = "says how much a row counts"
    ignored: dict[str, Override] = dict.fromkeys([*roles, *target.names], "ignore")
    check_columns(table, target=target.names[0], overrides=ignored | overrides)
    features = []
    for name in table.column_names:
        if name in target.names:
            continue
        whole = plain_array(table, name)
        column = _Column(name, whole, take_rows(whole, rows), known=(facts or {}).get(name))
        guess = _overridden(column, overrides[name]) if name in overrides else _guess(column)
        if name in roles:
            guess = replace(guess, reason=f"not a feature: {roles[name]}", used=False)
        features.append(_with_mean_targets(_spec(column, guess), column, target))
    schema = DatasetSchema(
        features=tuple(features), target=target, group=group, time_column=time_column, weight=weight
    )
    if target.name and not schema.used_features:  # without a target rows are only described
        why = "; ".join(f"{feature.name}: {feature.reason}" for feature in features[:5])
        raise DataError(
            f"No column can be used to predict {target.name!r} ({why or 'there is no other'}); "
            "add columns or set a kind with --feature NAME=KIND."
        )
    return schema


def _spec(column: _Column, guess: _Guess) -> FeatureSpec:
    array = column.whole
    whole = array.type == pa.bool_() or (array.type in (pa.int64(), pa.float64()) and column.is_whole)
    raw_type = RawType.STRING
    truths = guess.kind is FeatureKind.CATEGORICAL and column.spells_truths
    if guess.kind in (FeatureKind.NUMERIC, FeatureKind.BOOLEAN):
        raw_type = RawType.FLOAT32
    elif guess.kind is FeatureKind.CATEGORICAL and whole and not truths:
        raw_type = RawType.FLOAT32 if column.magnitude <= _EXACT_FLOAT32 else RawType.STRING
    return FeatureSpec(
        column.name,
        kind=guess.kind,
        raw_type=raw_type,
        reason=guess.reason,
        used=guess.used,
        # With gaps, pandas and NumPy can hold whole numbers only as decimals.
        integer=whole and not truths and (array.type != pa.float64() or column.has_gaps),
        datetime_format=guess.datetime_format,
        optional=column.has_gaps and guess.kind is not FeatureKind.IMAGE,
        truths=truths,
    )


def _with_mean_targets(feature: FeatureSpec, column: _Column, target: TargetSpec) -> FeatureSpec:
    """Give a categorical column of many categories their mean targets, where each is met twice or more on average."""
    if not feature.used or feature.kind is not FeatureKind.CATEGORICAL or column.distinct < MIN_CATEGORIES:
        return feature
    if column.present < 2 * column.distinct or max(len(target.classes), len(target.names)) > MAX_OUTPUTS:
        return feature
    hashed = f"; those beyond the {MAX_VOCABULARY:,} most frequent are hashed" * (column.distinct > MAX_VOCABULARY)
    reason = f"{feature.reason}: also by the mean target of each, as there are {MIN_CATEGORIES} or more{hashed}"
    return replace(feature, target_encoded=True, reason=reason)


def _overridden(column: _Column, override: Override) -> _Guess:
    if override == "ignore":
        return replace(_guess(column), reason="dropped: the user ignores it", used=False)
    if override is FeatureKind.TEXT:
        if column.whole.type not in PLAIN_TYPES:
            raise DataError(f"Column {column.name!r} is {column.whole.type}, which cannot be used as {override}.")
        return _Guess(override, f"set by the user: {column.facts}; {_AS_NGRAMS}")
    if override is FeatureKind.IMAGE:
        if not is_bytes(column.whole.type) and not is_image_file(column.whole.type):
            raise DataError(f"Column {column.name!r} is {column.whole.type}, which cannot be used as {override}.")
        return _Guess(override, f"set by the user: {len(column.whole):,} images")
    if override not in _TABLE_KINDS:
        raise DataError(
            f"Expected one of {', '.join(_TABLE_KINDS)}, text, image or ignore for column {column.name!r}, "
            f"received {override}."
        )
    if column.whole.type not in PLAIN_TYPES:
        raise DataError(f"Column {column.name!r} is {column.whole.type}, which cannot be used as {override}.")
    if override is FeatureKind.DATETIME:
        return _overridden_datetime(column)
    if override in (FeatureKind.NUMERIC, FeatureKind.BOOLEAN) and column.whole.type == TIMESTAMP:
        raise DataError(f"Column {column.name!r} holds dates, which cannot be used as {override}; use datetime.")
    return _Guess(override, f"set by the user: {column.facts}")


def _overridden_datetime(column: _Column) -> _Guess:
    if column.whole.type == TIMESTAMP:
        return _Guess(FeatureKind.DATETIME, "set by the user: timestamps")
    datetime_format, share, _ = None, 0.0, False
    if column.whole.type == pa.string():
        datetime_format, share, _ = recognise_format(column.train)
    if datetime_format is None:
        raise DataError(
            f"Expected dates in column {column.name!r}, such as 2024-01-31 or 31/01/2024 12:00, received "
            f"{column.whole.drop_null().slice(0, 1).to_pylist()}; give it another kind."
        )
    reason = f"set by the user: {share:.0%} of {column.present:,} values read as {datetime_format}"
    return _Guess(FeatureKind.DATETIME, reason, datetime_format=_stored(datetime_format))


def _guess(column: _Column) -> _Guess:
    kind = column.train.type
    if is_image_file(kind):
        return _Guess(FeatureKind.IMAGE, f"images in {len(column.train):,} rows, which stay on disk")
    if is_bytes(kind):
        return _guess_bytes(column)
    if kind not in PLAIN_TYPES:
        return _Guess(FeatureKind.TEXT, f"dropped: type {kind} is not read", used=False)
    if column.present == 0:
        by_type = FeatureKind.NUMERIC if kind in (pa.int64(), pa.float64()) else FeatureKind.CATEGORICAL
        return _Guess(by_type, f"dropped: missing in all {column.num_rows:,} training rows", used=False)
    guess = _guess_by_type(column)
    if column.distinct == 1 and column.missing == 0:
        value = column.train[0].as_py()
        reason = f"dropped: constant, {value!r} in all {column.present:,} training rows"
        return replace(guess, reason=reason, used=False)
    return guess


def _guess_bytes(column: _Column) -> _Guess:
    values = column.train.drop_null()
    if len(values) and all(looks_like_image(value.as_py()) for value in values[:_MANY_ROWS]):
        return _Guess(FeatureKind.IMAGE, f"encoded images in {len(values):,} rows")
    return _Guess(FeatureKind.TEXT, "dropped: bytes that are no images are not read", used=False)


def _guess_by_type(column: _Column) -> _Guess:
    kind = column.train.type
    if kind == pa.bool_():
        return _Guess(FeatureKind.BOOLEAN, "true or false")
    if kind == TIMESTAMP:
        return _Guess(FeatureKind.DATETIME, f"timestamps, {column.facts}")
    if kind == pa.string():
        return _guess_text(column)
    return _guess_number(column, column.train)


def _guess_number(column: _Column, numbers: pa.Array) -> _Guess:
    if not is_whole(numbers):  # of a sample too: decimals are no matter of a few rows
        return _Guess(FeatureKind.NUMERIC, f"numbers with decimals, {column.facts}")
    values = present_numbers(numbers)
    low, high = values.min(), values.max()
    if column.distinct == 2 and low == 0 and high == 1 and column.holds_truths:
        return _Guess(FeatureKind.BOOLEAN, f"only 0 and 1 in {column.present:,} rows")
    identifier = _identifier_reason(column, values)
    if identifier:
        return _Guess(FeatureKind.NUMERIC, f"dropped as an identifier: {identifier}", used=False)
    return _Guess(FeatureKind.NUMERIC, f"whole numbers, {column.facts}")


def _identifier_reason(column: _Column, values: NDArray[np.float64] | None) -> str | None:
    """Return why a column identifies its row, or None.

    A measurement in whole numbers may well be distinct in every row of a small table, so that whole numbers must also
    be numbered through, sorted, named like an identifier, or distinct over many rows.
    """
    share = column.distinct / max(column.present, 1)
    if column.present < 10 or share < _NEAR_UNIQUE_SHARE:
        return None
    if _ID_NAME.search(column.name) or _CAMEL_ID.search(column.name):
        return f"its name, and {column.facts}"
    if share < 1:
        return None
    if values is None or column.present >= _MANY_ROWS:
        return f"distinct in all {column.present:,} rows"
    if values.max() - values.min() < 2 * values.size:
        return f"numbered through, {column.facts}"
    steps = np.diff(values)
    if (steps > 0).all() or (steps < 0).all():
        return f"distinct and sorted in all {column.present:,} rows"
    return None


def _guess_text(column: _Column) -> _Guess:
    if column.is_text_of_numbers:
        guess = _guess_number(column, parse_numbers(column.train))
        return _Guess(guess.kind, f"{guess.reason} (text that holds numbers only)", used=guess.used)
    datetime_format, share, ambiguous = recognise_format(column.train)
    if datetime_format is not None and share >= _DATE_SHARE:
        reason = f"{share:.1%} of {column.present:,} values read as {datetime_format}"
        if ambiguous:
            reason += "; day and month could be exchanged"
        return _Guess(FeatureKind.DATETIME, reason, datetime_format=_stored(datetime_format))
    words = float(pc.mean(pc.add(pc.count_substring_regex(column.train, r"\s+"), 1)).as_py())
    facts = f"{column.facts}, {words:.1f} words on average"
    distinct_share = column.distinct / column.present
    many = column.distinct > _TEXT_MIN_DISTINCT
    if many and words > _TEXT_MIN_WORDS:
        return _Guess(FeatureKind.TEXT, f"free text, {facts}: {_AS_NGRAMS}")
    identifier = _identifier_reason(column, None)
    if identifier:
        return _Guess(FeatureKind.CATEGORICAL, f"dropped as an identifier: {identifier}", used=False)
    if many and distinct_share > _TEXT_SHARE:
        return _Guess(FeatureKind.TEXT, f"text that hardly repeats, {facts}: {_AS_NGRAMS}")
    zeros = ", codes with leading zeros" if has_leading_zeros(column.train) else ""
    return _Guess(FeatureKind.CATEGORICAL, f"text{zeros}, {column.facts}")


def _stored(datetime_format: str) -> str | None:
    return None if datetime_format == ISO_8601 else datetime_format
