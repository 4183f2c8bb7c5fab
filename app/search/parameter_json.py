"""Parameters as JSON objects and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.search.parameters import Boolean, Categorical, Condition, Float, Int, Parameter


def parameter_to_json(parameter: Parameter) -> dict[str, object]:
    """A JSON object that `parameter_from_json` turns back into an equal parameter."""
    record: dict[str, object] = {"kind": type(parameter).__name__.lower()}
    for field in parameter.__dataclass_fields__:
        content = getattr(parameter, field)
        if field == "conditions":
            content = [{"parent": condition.parent, "values": list(condition.values)} for condition in content]
        record[field] = list(content) if isinstance(content, tuple) else content
    return record


def parameter_from_json(record: Mapping[str, object]) -> Parameter:
    """The parameter described by `record`; raises ValueError for an unknown kind or field."""
    fields = dict(record)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"A parameter of kind {kind!r}; expected one of {', '.join(_KINDS)}.")
    cls = _KINDS[kind]
    unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
    if unknown:
        raise ValueError(f"A {kind} parameter has no field {unknown[0]!r}.")
    conditions = fields.pop("conditions", ())
    if isinstance(conditions, Sequence):
        fields["conditions"] = tuple(Condition(item["parent"], tuple(item["values"])) for item in conditions)
    return cls(**fields)  # type: ignore[arg-type]


_KINDS: dict[str, type[Float] | type[Int] | type[Categorical] | type[Boolean]] = {
    "float": Float,
    "int": Int,
    "categorical": Categorical,
    "boolean": Boolean,
}
