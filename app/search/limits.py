"""Limits on what is measured of a trial beside its loss, such as `latency_ms<=5`; and how far a trial breaks them.

Measures are always to be minimised, like losses: a metric where more is better is measured with its sign turned, and
whoever reads a limit on it (`accuracy>=0.9`) turns the limit too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import cast

from app.search.trial import Failed, History, Trial

LATENCY, PARAMETERS, SIZE = "latency_ms", "num_parameters", "size_bytes"
FLOPS, MEMORY = "flops", "memory_bytes"

MODEL_MEASURES: dict[str, str] = {
    LATENCY: "time of one row through the exported model, in milliseconds",
    PARAMETERS: "weights of the network",
    SIZE: "size of the exported model, in bytes",
    FLOPS: "floating-point operations of the network for one row; a multiply-add counts as two",
    MEMORY: "memory of a training step, in bytes, as far as it can be told from the graph",
}
"""What every model has, whatever its task; each is known before the network is trained."""

# Other name -> (measure, factor to the measure's unit).
_ALIASES: dict[str, tuple[str, float]] = {
    "latency": (LATENCY, 1.0),
    "latency_s": (LATENCY, 1e3),
    "latency_us": (LATENCY, 1e-3),
    "parameters": (PARAMETERS, 1.0),
    "params": (PARAMETERS, 1.0),
    "size": (SIZE, 1.0),
    "size_kb": (SIZE, 1e3),
    "size_mb": (SIZE, 1e6),
    "size_gb": (SIZE, 1e9),
    "flop": (FLOPS, 1.0),
    "mflops": (FLOPS, 1e6),
    "gflops": (FLOPS, 1e9),
    "memory": (MEMORY, 1.0),
    "memory_mb": (MEMORY, 1e6),
    "memory_gb": (MEMORY, 1e9),
}

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_BYTES = {"": 1.0, "b": 1.0} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmg", start=1)
    for suffix, base in (("", 1000.0), ("b", 1000.0), ("ib", 1024.0))
}
_UNITS: dict[str, dict[str, float]] = {
    LATENCY: {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3},
    PARAMETERS: _COUNTS,
    SIZE: _BYTES,
    FLOPS: _COUNTS,
    MEMORY: _BYTES,
}

_PATTERN = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=|=<|=>|<|>|==?|)\s*(.*?)\s*")
# A comma stands between thousands only: in half of the world 1,5 is less than 2, and nobody means 15 by it.
_NUMBER = re.compile(
    r"([+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([a-zµ]*)", re.IGNORECASE
)


class Sense(StrEnum):
    """Which side of the bound is allowed."""

    AT_MOST = "<="
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on one measure.

    Args:
        measure: a name among a trial's measures.
        bound: in the measure's own unit.
        sense: which side of the bound is allowed; the bound itself always is.

    Raises:
        ValueError: the bound is not a finite number.
    """

    measure: str
    bound: float
    sense: Sense = Sense.AT_MOST

    def __post_init__(self) -> None:
        object.__setattr__(self, "sense", Sense(self.sense))
        if isinstance(self.bound, bool) or not isinstance(self.bound, int | float) or not math.isfinite(self.bound):
            raise ValueError(f"The limit on {self.measure!r} is {self.bound!r}; expected a finite number.")
        object.__setattr__(self, "bound", float(self.bound))

    def __str__(self) -> str:
        return f"{self.measure}{self.sense}{self.bound:g}"

    def holds(self, value: float) -> bool:
        """Whether `value` keeps the limit; NaN does not."""
        return value <= self.bound if self.sense is Sense.AT_MOST else value >= self.bound

    def violation(self, value: float) -> float:
        """How far `value` is on the wrong side, >= 0: the logarithm of the ratio where both are above zero.

        Ratios, since a limit on milliseconds and one on millions of weights must be comparable.
        """
        if self.holds(value):
            return 0.0
        if not math.isfinite(value):
            return math.inf
        if value > 0.0 and self.bound > 0.0:
            return abs(math.log(value / self.bound))
        return abs(value - self.bound) / max(abs(self.bound), 1e-3)

    def to_json(self) -> dict[str, object]:
        """A JSON object that `from_json` turns back into an equal limit."""
        return {"measure": self.measure, "bound": self.bound, "sense": self.sense.value}

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Limit:
        """The limit written by `to_json`."""
        return cls(str(record["measure"]), cast(float, record["bound"]), Sense(str(record["sense"])))


def resolve_measure(name: str, *, others: Collection[str] = ()) -> tuple[str, float]:
    """The measure that a person means, and what a number in that person's unit is multiplied by.

    Args:
        name: case and dashes do not matter; `latency` is `latency_ms`, `size_mb` is `size_bytes` in units of 10⁶.
        others: names beside the measures of every model (metrics), to be found and offered too.

    Raises:
        ValueError: no such measure; the nearest is offered.
    """
    key = name.strip().lower().replace("-", "_")
    if key in MODEL_MEASURES or key in others:
        return key, 1.0
    if key in _ALIASES:
        return _ALIASES[key]
    known = [*MODEL_MEASURES, *_ALIASES, *others]
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join([*MODEL_MEASURES, *others])}."
    raise ValueError(f"There is no measure {name!r}; {hint}")


def parse_limit(text: str, *, others: Collection[str] = ()) -> Limit:
    """The limit that `latency_ms<=5`, `latency <= 5ms`, `num_parameters<=2e6`, `parameters<=2M` or `size<=10MB` mean.

    `<` and `>` are taken for `<=` and `>=`: nobody can tell the difference in a measured number.

    Args:
        text: measure, `<=` or `>=`, number, perhaps a unit.
        others: further measures that may be named.

    Raises:
        ValueError: not of this form, an unknown measure (the nearest is offered), a unit that it does not have, or a
            bound that no model can keep.
    """
    found = _PATTERN.fullmatch(text)
    name, sign, right = found.groups() if found else ("", "", "")
    if not sign or not right or not set(sign) & set("<>"):
        raise ValueError(
            f"The limit {text!r} cannot be read; expected a measure, <= or >=, and a number, such as latency_ms<=5."
        )
    measure, factor = resolve_measure(name, others=others)
    number = _NUMBER.fullmatch(right)
    units = _UNITS.get(measure, {"": 1.0})
    if factor != 1.0:
        units = {"": 1.0}  # the name says the unit already
    unit = number[2].lower() if number else ""
    if number is None or unit not in units:
        accepted = ", ".join(unit for unit in units if unit)
        rule = f", perhaps followed by one of {accepted}" if accepted else ""
        point = ", with a point before its decimals" if "," in right else ""
        raise ValueError(f"The limit {text!r} ends in {right!r}; expected a number{point}{rule}.")
    bound = float(number[1].replace("_", "").replace(",", "")) * factor * units[unit]
    if measure in MODEL_MEASURES and "<" in sign and bound <= 0.0:
        raise ValueError(f"The limit {text!r} can never be kept; expected a number above 0.")
    return Limit(measure, bound, Sense.AT_MOST if "<" in sign else Sense.AT_LEAST)


def violation(trial: Trial, limits: Iterable[Limit]) -> float | None:
    """Sum of a trial's violations, >= 0; None when one of the limited measures is unknown."""
    total = 0.0
    for limit in limits:
        if limit.measure not in trial.measures:
            return None
        total += limit.violation(trial.measures[limit.measure])
    return total


def is_feasible(trial: Trial, limits: Iterable[Limit]) -> bool:
    """Whether a trial is known to keep every limit."""
    return violation(trial, limits) == 0.0


@dataclass(frozen=True, slots=True)
class Unmet:
    """A limit that no trial has kept so far.

    Args:
        limit: the limit.
        num_trials: trials whose measure is known.
        closest: the measure nearest to the bound.
        trial: the trial that had it.
    """

    limit: Limit
    num_trials: int
    closest: float
    trial: int

    def __str__(self) -> str:
        return (
            f"none of {self.num_trials} trials keeps the limit {self.limit} "
            f"(the nearest: {self.closest:.4g}, trial {self.trial})"
        )


def unmet_limits(history: History, limits: Sequence[Limit], *, after: int = 5) -> tuple[Unmet, ...]:
    """The limits that none of the trials keeps, once `after` of them are measured; () before, and when all are met.

    When every limit alone is kept by some trial but no trial keeps all of them, the one that is broken least by the
    trial that comes nearest is named.
    """
    unmet = []
    together = [trial for trial in history.values() if violation(trial, limits) is not None and _counts(trial)]
    for limit in limits:
        measured = [trial for trial in history.values() if limit.measure in trial.measures and _counts(trial)]
        if len(measured) < after:
            continue
        nearest = min(measured, key=lambda trial: limit.violation(trial.measures[limit.measure]))
        value = nearest.measures[limit.measure]
        if not limit.holds(value):
            unmet.append(Unmet(limit, len(measured), value, nearest.number))
    if not unmet and len(together) >= after and not any(is_feasible(trial, limits) for trial in together):
        nearest = min(together, key=lambda trial: cast(float, violation(trial, limits)))
        broken = [limit for limit in limits if not limit.holds(nearest.measures[limit.measure])]
        limit = min(broken, key=lambda limit: limit.violation(nearest.measures[limit.measure]))
        unmet.append(Unmet(limit, len(together), nearest.measures[limit.measure], nearest.number))
    return tuple(unmet)


def _counts(trial: Trial) -> bool:
    return not isinstance(trial.outcome, Failed)
