"""What a search is after, as people say it: `--objective roc_auc,latency --limit "latency<=5ms"`.

Inside the search everything is minimised, so a limit on a metric where more is better is turned around here, and turned
back for people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from app.evaluation.metrics import METRICS, Direction, Metric, Needs, Objective, default_objective, resolve_objective
from app.search.limits import (
    FLOPS,
    LATENCY,
    MEMORY,
    MODEL_MEASURES,
    PARAMETERS,
    SIZE,
    Limit,
    Sense,
    Unmet,
    parse_limit,
    resolve_measure,
)
from pipelines.schema import Task

_TASKS = (Task.BINARY, Task.REGRESSION)  # every metric is for one of them


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchGoals:
    """What a search is after.

    Attributes:
        objective: The metric that selects, and why; it is the loss of a trial.
        others: Measures to minimise beside it: of the model (`MODEL_MEASURES`), or names of metrics, whose values are
            turned into losses.
        limits: What a trial must keep; measured as `others` are.
    """

    objective: Objective
    others: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    @property
    def measure(self) -> tuple[str, ...]:
        """Everything that workers have to measure of a trial (`OpenRun.measure`)."""
        return tuple(dict.fromkeys([*self.others, *(limit.measure for limit in self.limits)]))


def read_goals(
    objective: str,
    *,
    limits: Sequence[str] = (),
    task: Task,
    imbalance_ratio: float = 1.0,
    quantiles: bool = False,
    num_targets: int = 1,
) -> SearchGoals:
    """Returns what a person asks for.

    The first metric named selects; every other name is an objective beside it. When only measures are named, or `auto`,
    the task's own metric selects: a fast network that is always wrong is of no use.

    Args:
        objective: Names of metrics and measures with commas between them, or `auto`.
        limits: Each such as `latency_ms<=5`, `num_parameters<=2e6` or `accuracy>=0.9`.
        task: Kind of the target.
        imbalance_ratio: Rows of the most frequent class over rows of the rarest, >= 1.
        quantiles: Whether the regression is one of quantiles.
        num_targets: Values that a regression predicts.

    Raises:
        ValueError: An unknown name (the nearest is offered), a metric that does not fit the task, a name twice, or a
            limit that cannot be read.
    """
    names = [part.strip() for part in objective.split(",")]
    if "" in names:
        raise ValueError(f"The objective {objective!r} has an empty name; expected names with commas between them.")
    found = [_named(name, task) for name in names if name.lower() != "auto"]
    metrics = [name for name in found if name in METRICS]
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"The objective {objective!r} names {twice!r} twice; name it once.")
    _check_quantiles([*metrics, *(re.split(r"[<>=\s]", limit.strip())[0] for limit in limits)], quantiles)
    if metrics and not METRICS[metrics[0]].selects:
        raise ValueError(
            f"The objective {metrics[0]!r} is met by any interval that is wide or narrow enough; name pinball or "
            f"interval_score first, and {metrics[0]} as a limit."
        )
    if metrics and "auto" not in map(str.lower, names):
        main = Objective(METRICS[metrics[0]], "as asked")
    else:
        main = default_objective(
            task, imbalance_ratio=imbalance_ratio, quantiles=quantiles, num_targets=num_targets
        )
    return SearchGoals(
        objective=main,
        others=tuple(name for name in found if name != main.metric.name),
        limits=tuple(read_limit(text, task=task) for text in limits),
    )


def _check_quantiles(names: Sequence[str], quantiles: bool) -> None:
    asked = [name for name in names if name in METRICS and METRICS[name].needs is Needs.QUANTILES]
    if asked and not quantiles:
        raise ValueError(f"{asked[0]} is of quantiles: ask for them with --interval 0.9 or --quantiles 0.05,0.5,0.95.")


def read_limit(text: str, *, task: Task | None = None) -> Limit:
    """Returns the limit that a person asks for; before the task is known, metrics of any task are taken.

    Raises:
        ValueError: As `parse_limit`, or a metric that does not fit the task.
    """
    name = re.split(r"[<>=\s]", text.strip(), maxsplit=1)[0]
    metric = _metric(name, task)
    if metric is None:
        return parse_limit(text, others=METRICS)
    limit = parse_limit(text.replace(name, metric.name, 1), others=METRICS)
    return _turned(limit) if metric.direction is Direction.MAXIMIZE else limit


def shown_limit(limit: Limit) -> str:
    """Returns a limit as people read it: `accuracy >= 0.9`, `size <= 12 MB`."""
    if limit.measure in METRICS and METRICS[limit.measure].direction is Direction.MAXIMIZE:
        limit = _turned(limit)
        return f"{limit.measure} {limit.sense} {limit.bound:g}"
    return f"{measure_label(limit.measure)} {limit.sense} {_amount(limit.measure, limit.bound)}"


def shown_measure(name: str, value: float) -> str:
    """Returns a measured value as people read it: `3.2 ms`, `41,000`, `0.93`."""
    return _amount(name, METRICS[name].from_loss(value) if name in METRICS else value)


def measure_label(name: str) -> str:
    """Returns a measure's name as people read it: `latency`, `size`."""
    return _LABELS.get(name, name)


def shown_unmet(unmet: Unmet) -> str:
    """Returns a sentence about a limit that no trial has kept so far."""
    return (
        f"none of the first {unmet.num_trials} trials keeps the limit {shown_limit(unmet.limit)}: the nearest is trial "
        f"{unmet.trial} with {shown_measure(unmet.limit.measure, unmet.closest)}; the search goes on towards it"
    )


def none_keeps(unmet: Unmet, *, reason: str) -> str:
    """Returns why a search came to nothing whose trials all break a limit.

    Args:
        unmet: The limit.
        reason: Why the search ended.
    """
    return (
        f"no trial keeps the limit {shown_limit(unmet.limit)} ({reason}); the nearest is trial {unmet.trial} with "
        f"{shown_measure(unmet.limit.measure, unmet.closest)}: allow more in a new search, or give this one more time "
        "or trials with `tamiz resume`, and it comes as near as it can"
    )


_LABELS = {LATENCY: "latency", PARAMETERS: "parameters", SIZE: "size", FLOPS: "operations", MEMORY: "memory"}


def _amount(name: str, value: float) -> str:
    if name == LATENCY:
        return f"{value:.3g} ms"
    if name in (PARAMETERS, FLOPS):
        return f"{value:,.0f}"
    if name in (SIZE, MEMORY):
        return f"{value / 1e6:.3g} MB"
    return f"{value:.4g}"


def _turned(limit: Limit) -> Limit:
    sense = Sense.AT_LEAST if limit.sense is Sense.AT_MOST else Sense.AT_MOST
    return replace(limit, bound=-limit.bound, sense=sense)


def _named(name: str, task: Task) -> str:
    """The metric or measure called `name`."""
    metric = _metric(name, task)
    if metric is not None:
        return metric.name
    try:
        return resolve_measure(name)[0]
    except ValueError:
        known = [*(each for each in METRICS if METRICS[each].fits(task)), "auc", "latency", "size", *MODEL_MEASURES]
        key = name.strip().lower().replace("-", "_").removeprefix("val_")
        near = get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(dict.fromkeys(known))}"
        raise ValueError(f"expected the name of a metric or a measure, got {name!r}; {hint}") from None


def _metric(name: str, task: Task | None) -> Metric | None:
    """The metric called `name`; None when no task has one; raises ValueError when it is for other tasks only."""
    for other in _TASKS:
        try:
            found = resolve_objective(name, other)
        except ValueError:
            continue
        return found if task is None else resolve_objective(name, task)
    return None
