"""What the columns of a data set are: frozen, JSON round-trip, no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from enum import StrEnum
from typing import Any, Literal, Self, TypeVar

from pipelines.errors import DataError, suggest_name

_E = TypeVar("_E", bound=StrEnum)


class Task(StrEnum):
    """What is predicted."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    FORECAST = "forecast"

    @property
    def is_classification(self) -> bool:
        """Whether the answer is one or several of a fixed list of classes."""
        return self in (Task.BINARY, Task.MULTICLASS, Task.MULTILABEL)


class FeatureKind(StrEnum):
    """What a column means, which decides how it is encoded."""

    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    CATEGORICAL = "categorical"
    DATETIME = "datetime"
    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    SERIES = "series"


Override = FeatureKind | Literal["ignore"]
"""What a user may say that a column is."""


class RawType(StrEnum):
    """Type of a column in the exported signature, where its shape is ``(batch,)``."""

    FLOAT32 = "float32"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One column that may be used as a feature.

    Attributes:
        name: Name of the column.
        kind: What the column means.
        raw_type: Type of the column in the exported signature.
        reason: Why this kind, or why the column is not used, with the numbers that led to it.
        used: False when the column is dropped.
        integer: The source holds integers or booleans, or whole numbers with gaps (an int64 feature in tf.Example).
        datetime_format: strptime format of a datetime column that is not ISO 8601; None for ISO 8601.
        target_encoded: Beside its id a category brings the mean target that it had in training.
        optional: A value is missing in some row of the source, so that new rows may leave the column out where nothing
            fixes which columns there are.
        truths: Of a categorical column, that its categories are ``true`` and ``false``, however a source spells them.
    """

    name: str
    _: KW_ONLY
    kind: FeatureKind
    raw_type: RawType
    reason: str
    used: bool = True
    integer: bool = False
    datetime_format: str | None = None
    target_encoded: bool = False
    optional: bool = False
    truths: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "kind": self.kind.value,
            "raw_type": self.raw_type.value,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown, missing or of the wrong type.
        """
        values = checked_fields(cls, record)
        values["kind"] = _member(FeatureKind, values["kind"], "kind")
        values["raw_type"] = _member(RawType, values["raw_type"], "raw_type")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """The column that is predicted.

    Attributes:
        name: Name of the column.
        task: What is predicted.
        classes: Class labels as text, in the order of the class ids; empty for regression.
        reason: Why this task.
        quantiles: Levels of a quantile regression, rising; empty for any other task.
        columns: The target columns where there are several; `name` then joins them. Empty for one.
        label_values: For several labels, what each one's column says when it does not hold and when it does.
    """

    name: str
    _: KW_ONLY
    task: Task
    classes: tuple[str, ...] = ()
    reason: str = ""
    quantiles: tuple[float, ...] = ()
    columns: tuple[str, ...] = ()
    label_values: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The target columns."""
        return self.columns or (self.name,)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "name": self.name,
            "task": self.task.value,
            "classes": list(self.classes),
            "reason": self.reason,
            "quantiles": list(self.quantiles),
            "columns": list(self.columns),
            "label_values": [list(pair) for pair in self.label_values],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown, missing or of the wrong type.
        """
        values = checked_fields(cls, record)
        values["task"] = _member(Task, values["task"], "task")
        for name in ("classes", "quantiles", "columns"):
            values[name] = tuple(values.get(name, ()))
        values["label_values"] = tuple((str(no), str(yes)) for no, yes in values.get("label_values", ()))
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSchema:
    """All columns of a data set and the part that each one plays.

    Attributes:
        features: Every column apart from the target, in the order of the source, dropped ones included.
        target: The column that is predicted.
        group: Column whose equal values stay in one split, or None.
        time_column: Column that orders the splits, or None.
        weight: Column that says how much a row counts, or None.
        windows: Of a forecast, what its rows are made of (``pipelines.windows.WindowSpec``), or None.
    """

    features: tuple[FeatureSpec, ...]
    target: TargetSpec
    group: str | None = None
    time_column: str | None = None
    weight: str | None = None
    windows: Mapping[str, Any] | None = None

    @property
    def used_features(self) -> tuple[FeatureSpec, ...]:
        """The features that reach the model, in the order of the source."""
        return tuple(feature for feature in self.features if feature.used)

    @property
    def has_images(self) -> bool:
        """Whether a feature that reaches the model is a column of images."""
        return any(feature.kind is FeatureKind.IMAGE for feature in self.used_features)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.target.classes)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON values."""
        return {
            "features": [feature.to_json() for feature in self.features],
            "target": self.target.to_json(),
            "group": self.group,
            "time_column": self.time_column,
            "weight": self.weight,
            "windows": None if self.windows is None else dict(self.windows),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown, missing or of the wrong type.
        """
        values = checked_fields(cls, record)
        values["features"] = tuple(FeatureSpec.from_json(feature) for feature in values["features"])
        values["target"] = TargetSpec.from_json(values["target"])
        return cls(**values)


def checked_fields(kind: type[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record as constructor arguments of a dataclass.

    Args:
        kind: The dataclass.
        record: Field names and JSON values.

    Raises:
        DataError: The record is no object, or a field is unknown or missing.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"Expected a JSON object for {kind.__name__}, received {type(record).__name__}.")
    known = {field.name: field for field in fields(kind)}
    for name in record:
        if name not in known:
            raise DataError(
                f"{kind.__name__} has no field {name!r}.{suggest_name(name, known)} Known fields: {', '.join(known)}."
            )
    missing = [name for name, field in known.items() if field.default is MISSING and name not in record]
    if missing:
        raise DataError(f"{kind.__name__} lacks the field {missing[0]!r}; it was not written by tamiz.")
    return dict(record)


def _member(kind: type[_E], value: str, field: str) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        raise DataError(
            f"Expected one of {', '.join(kind)} for {field!r}, received {value!r}."
            f"{suggest_name(str(value), (member.value for member in kind))}"
        ) from error
