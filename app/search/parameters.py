"""One parameter of a search space, and how its values map to the unit interval.

Every parameter lives on a unit coordinate `u` in [0, 1]: `value_at(u)` is its quantile function, `unit_of(value)`
the canonical coordinate of a value (the middle of its cell when the values are countable). Models see *columns*:
one a parameter, or one a choice (one-hot) for unordered categories. A parameter with one value has no column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

Value = bool | int | float | str
Array = NDArray[np.float64]

NEUTRAL = 0.5  # the column of an inactive parameter: as far from one end as from the other


class Scale(StrEnum):
    """How a numeric range is walked: by equal differences or by equal ratios."""

    LINEAR = "linear"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Condition:
    """A parameter exists only when `parent` is active and has one of `values`."""

    parent: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise ValueError(f"The condition on {self.parent!r} lists no values; expected at least one.")


def same_value(left: object, right: object) -> bool:
    """Whether two values are equal and of one kind (Python's True == 1 must not mix choices)."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in [low, high]; a step makes it countable (a difference, or a factor > 1 when LOG)."""

    name: str
    low: float
    high: float
    scale: Scale = Scale.LINEAR
    step: float | None = None
    default: float | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        object.__setattr__(self, "scale", Scale(self.scale))
        _check_name(self.name)
        for field in ("low", "high", "step", "default"):
            number = getattr(self, field)
            if number is None and field in ("step", "default"):
                continue
            if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
                raise ValueError(f"Parameter {self.name!r}: {field} is {number!r}; expected a finite number.")
            object.__setattr__(self, field, float(number))
        _check_range(self)
        if self.default is not None:
            self.check(self.default)

    @property
    def num_values(self) -> int | None:
        """How many values there are; None when uncountable."""
        if self.low == self.high:
            return 1
        if self.step is None:
            return None
        span = self.high / self.low if self.scale is Scale.LOG else (self.high - self.low) / self.step
        return 1 + math.floor((math.log(span, self.step) if self.scale is Scale.LOG else span) + 1e-9)

    @property
    def width(self) -> int:
        """Number of model columns."""
        return 0 if self.num_values == 1 else 1

    @property
    def fallback(self) -> float:
        """The default, or the low end."""
        return self.low if self.default is None else self.default

    def check(self, value: object) -> None:
        """Raise ValueError unless `value` is in the range and on the step."""
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"Parameter {self.name!r} is {value!r}; expected a number {_range_text(self)}.")
        number = float(value)
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        inside = self.low - slack <= number <= self.high + slack
        if not inside or not math.isclose(self.value_at(self.unit_of(number)), number, rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(f"Parameter {self.name!r} is {value!r}; expected a number {_range_text(self)}.")

    def value_at(self, unit: float) -> float:
        """The value whose cell holds the coordinate `unit` in [0, 1]."""
        count = self.num_values
        if count == 1:
            return self.low
        if count is None:
            if self.scale is Scale.LOG:
                number = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
            else:
                number = self.low + unit * (self.high - self.low)
            return min(max(number, self.low), self.high)
        return self.nth(_cell(unit, count))

    def nth(self, index: int) -> float:
        """The `index`-th value of a parameter with a step."""
        step = self.step or 0.0
        number = self.low * step**index if self.scale is Scale.LOG and index else self.low + index * step
        # 12 digits hide the noise of repeated addition (0.1 + 2 * 0.1 is 0.30000000000000004).
        return min(max(float(f"{number:.12g}"), self.low), self.high)

    def unit_of(self, value: object) -> float:
        """The canonical coordinate of a value; values outside the range are pulled to its ends."""
        number = min(max(float(value), self.low), self.high)  # type: ignore[arg-type]
        count = self.num_values
        if count == 1:
            return NEUTRAL
        if self.scale is Scale.LOG:
            position = math.log(number / self.low)
            span = math.log(self.high / self.low) if count is None else math.log(self.step or math.e)
        else:
            position = number - self.low
            span = self.high - self.low if count is None else (self.step or 1.0)
        if count is None:
            return position / span
        return (min(round(position / span), count - 1) + 0.5) / count

    def snap(self, units: Array) -> Array:
        """Move coordinates (n,) to the canonical ones of their values."""
        count = self.num_values
        return np.clip(units, 0.0, 1.0) if count is None else _snap_cells(units, count)


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number in [low, high]; when LOG, a step > 1 is a factor and step 1 means every whole number."""

    name: str
    low: int
    high: int
    step: int = 1
    scale: Scale = Scale.LINEAR
    default: int | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        object.__setattr__(self, "scale", Scale(self.scale))
        _check_name(self.name)
        for field in ("low", "high", "step", "default"):
            number = getattr(self, field)
            if number is None and field == "default":
                continue
            if isinstance(number, bool) or not isinstance(number, Integral):
                raise ValueError(f"Parameter {self.name!r}: {field} is {number!r}; expected a whole number.")
            object.__setattr__(self, field, int(number))
        _check_range(self)
        if self.default is not None:
            self.check(self.default)

    @property
    def _by_factor(self) -> bool:
        return self.scale is Scale.LOG and self.step > 1

    @property
    def num_values(self) -> int:
        """How many values there are."""
        if not self._by_factor:
            return 1 + (self.high - self.low) // self.step
        count, number = 1, self.low * self.step
        while number <= self.high:
            count, number = count + 1, number * self.step
        return count

    @property
    def width(self) -> int:
        """Number of model columns."""
        return 0 if self.num_values == 1 else 1

    @property
    def fallback(self) -> int:
        """The default, or the low end."""
        return self.low if self.default is None else self.default

    def check(self, value: object) -> None:
        """Raise ValueError unless `value` is in the range and on the step."""
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or self.value_at(self.unit_of(value)) != value:
            raise ValueError(f"Parameter {self.name!r} is {value!r}; expected a whole number {_range_text(self)}.")

    def _log_ends(self) -> tuple[float, float]:
        # Half a unit beyond each end, so that the first and last number get a full cell.
        return math.log(self.low - 0.5), math.log(self.high + 0.5)

    def value_at(self, unit: float) -> int:
        """The value whose cell holds the coordinate `unit` in [0, 1]."""
        if self.scale is Scale.LOG and self.step == 1:
            low, high = self._log_ends()
            return min(max(round(math.exp(low + unit * (high - low))), self.low), self.high)
        return self.nth(_cell(unit, self.num_values))

    def nth(self, index: int) -> int:
        """The `index`-th value from the low end."""
        return self.low * self.step**index if self._by_factor else self.low + index * self.step

    def unit_of(self, value: object) -> float:
        """The canonical coordinate of a value; values outside the range are pulled to its ends."""
        number = min(max(int(value), self.low), self.high)  # type: ignore[call-overload]
        count = self.num_values
        if count == 1:
            return NEUTRAL
        if self.scale is Scale.LOG and self.step == 1:
            low, high = self._log_ends()
            return float((math.log(number) - low) / (high - low))
        index = round(math.log(number / self.low, self.step)) if self._by_factor else (number - self.low) // self.step
        return (min(index, count - 1) + 0.5) / count

    def snap(self, units: Array) -> Array:
        """Move coordinates (n,) to the canonical ones of their values."""
        if self.scale is Scale.LOG and self.step == 1 and self.low < self.high:
            low, high = self._log_ends()
            numbers = np.clip(np.rint(np.exp(low + np.clip(units, 0.0, 1.0) * (high - low))), self.low, self.high)
            return np.asarray((np.log(numbers) - low) / (high - low))
        return _snap_cells(units, self.num_values)


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of several choices; `ordered` ones share a column, others get a column each."""

    name: str
    choices: tuple[Value, ...]
    ordered: bool = False
    default: Value | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        object.__setattr__(self, "choices", tuple(self.choices))
        _check_name(self.name)
        if not self.choices:
            raise ValueError(f"Parameter {self.name!r} has no choices; expected at least one.")
        for index, choice in enumerate(self.choices):
            if not isinstance(choice, bool | int | float | str):
                raise ValueError(
                    f"Parameter {self.name!r}: choice {choice!r} is a {type(choice).__name__}; "
                    "expected text, a number, True or False."
                )
            if any(same_value(choice, other) for other in self.choices[:index]):
                raise ValueError(f"Parameter {self.name!r} lists the choice {choice!r} twice; list it once.")
        if self.default is not None:
            self.check(self.default)

    @property
    def num_values(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    @property
    def width(self) -> int:
        """Number of model columns: two choices differ in one column as well as in two."""
        if self.num_values == 1:
            return 0
        return 1 if self.ordered or self.num_values == 2 else self.num_values

    @property
    def fallback(self) -> Value:
        """The default, or the first choice."""
        return self.choices[0] if self.default is None else self.default

    def check(self, value: object) -> None:
        """Raise ValueError unless `value` is one of the choices."""
        if not any(same_value(value, choice) for choice in self.choices):
            listed = ", ".join(repr(choice) for choice in self.choices)
            raise ValueError(f"Parameter {self.name!r} is {value!r}; expected one of {listed}.")

    def value_at(self, unit: float) -> Value:
        """The choice whose cell holds the coordinate `unit` in [0, 1]."""
        return self.nth(_cell(unit, self.num_values))

    def nth(self, index: int) -> Value:
        """The `index`-th choice."""
        return self.choices[index]

    def unit_of(self, value: object) -> float:
        """The canonical coordinate of a choice; the default's for an unknown one."""
        for index, choice in enumerate(self.choices):
            if same_value(value, choice):
                return (index + 0.5) / self.num_values
        return self.unit_of(self.fallback)

    def snap(self, units: Array) -> Array:
        """Move coordinates (n,) to the canonical ones of their choices."""
        return _snap_cells(units, self.num_values)


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or False."""

    name: str
    default: bool | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        _check_name(self.name)
        if self.default is not None:
            self.check(self.default)

    @property
    def num_values(self) -> int:
        """Two."""
        return 2

    @property
    def width(self) -> int:
        """One column."""
        return 1

    @property
    def fallback(self) -> bool:
        """The default, or False."""
        return bool(self.default)

    def check(self, value: object) -> None:
        """Raise ValueError unless `value` is True or False."""
        if not isinstance(value, bool):
            raise ValueError(f"Parameter {self.name!r} is {value!r}; expected True or False.")

    def value_at(self, unit: float) -> bool:
        """False below one half, True from there on."""
        return unit >= 0.5

    def nth(self, index: int) -> bool:
        """False, then True."""
        return index == 1

    def unit_of(self, value: object) -> float:
        """The canonical coordinate: 1/4 for False, 3/4 for True."""
        return 0.75 if value else 0.25

    def snap(self, units: Array) -> Array:
        """Move coordinates (n,) to 1/4 or 3/4."""
        return _snap_cells(units, 2)


Parameter = Float | Int | Categorical | Boolean


def _cell(unit: float, count: int) -> int:
    return min(max(int(unit * count), 0), count - 1)


def _snap_cells(units: Array, count: int) -> Array:
    return np.asarray((np.clip(np.floor(units * count), 0, count - 1) + 0.5) / count)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"A parameter is named {name!r}; expected text that is not empty.")


def _check_range(parameter: Float | Int) -> None:
    name, low, high, step = parameter.name, parameter.low, parameter.high, parameter.step
    if low > high:
        raise ValueError(f"Parameter {name!r} goes from {low!r} to {high!r}; expected low <= high.")
    if parameter.scale is Scale.LOG and low <= 0:
        raise ValueError(f"Parameter {name!r} has a log scale from {low!r}; expected low > 0.")
    if step is None:
        return
    if step <= 0:
        raise ValueError(f"Parameter {name!r} has step {step!r}; expected a step above 0.")
    if parameter.scale is Scale.LOG and step <= 1 and isinstance(parameter, Float):
        raise ValueError(f"Parameter {name!r} has step {step!r} on a log scale; expected a factor above 1.")


def _range_text(parameter: Float | Int) -> str:
    text = f"between {parameter.low!r} and {parameter.high!r}"
    if parameter.num_values is None or (isinstance(parameter, Int) and parameter.step == 1):
        return text
    kind = "factors" if parameter.scale is Scale.LOG else "steps"
    return f"{text} in {kind} of {parameter.step!r}"
