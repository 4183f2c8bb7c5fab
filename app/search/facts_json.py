"""Facts as JSON objects and back, fit to be lines of the journal.

Every object has "event": "started", "reported", "measured" or "ended". Keys beyond those written here are ignored on
reading, so that a journal may add the time of day or a worker's name. A loss that is not finite is written as null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from app.search.space import Configuration
from app.search.trial import (
    Completed,
    Ended,
    Fact,
    Failed,
    Measured,
    Outcome,
    Paused,
    Pruned,
    Reported,
    Started,
    Suggestion,
)

Json = dict[str, object]


def fact_to_json(fact: Fact) -> Json:
    """A JSON object that `fact_from_json` turns back into an equal fact (infinite losses become NaN)."""
    match fact:
        case Started(suggestion):
            return {"event": "started", **suggestion_to_json(suggestion)}
        case Reported(trial, epoch, loss):
            return {"event": "reported", "trial": trial, "epoch": epoch, "loss": _finite_or_none(loss)}
        case Measured(trial, measures):
            finite = {name: _finite_or_none(value) for name, value in measures.items()}
            return {"event": "measured", "trial": trial, "measures": finite}
        case Ended(trial, outcome):
            return {"event": "ended", "trial": trial, **outcome_to_json(outcome)}


def fact_from_json(record: Mapping[str, object]) -> Fact:
    """The fact in `record`; raises ValueError naming the event or the missing key."""
    event = record.get("event")
    try:
        if event == "started":
            return Started(suggestion_from_json(record))
        if event == "reported":
            trial, epoch = cast(int, record["trial"]), cast(int, record["epoch"])
            return Reported(trial, epoch, _number(record["loss"]))
        if event == "measured":
            measures = cast(Mapping[str, object], record["measures"])
            return Measured(cast(int, record["trial"]), {name: _number(value) for name, value in measures.items()})
        if event == "ended":
            return Ended(cast(int, record["trial"]), outcome_from_json(record))
    except KeyError as error:
        raise ValueError(f"A {event!r} record has no {error}: {dict(record)!r}.") from error
    raise ValueError(f"A record with event {event!r}; expected 'started', 'reported', 'measured' or 'ended'.")


def suggestion_to_json(suggestion: Suggestion) -> Json:
    """A JSON object that `suggestion_from_json` turns back into an equal suggestion."""
    return {
        "trial": suggestion.trial,
        "hyperparameters": dict(suggestion.hyperparameters),
        "start_epoch": suggestion.start_epoch,
        "budget": suggestion.budget,
        "rung": suggestion.rung,
        "bracket": suggestion.bracket,
    }


def suggestion_from_json(record: Mapping[str, object]) -> Suggestion:
    """The suggestion in `record`; raises KeyError for a missing key."""
    return Suggestion(
        trial=cast(int, record["trial"]),
        hyperparameters=dict(cast(Configuration, record["hyperparameters"])),
        start_epoch=cast(int, record["start_epoch"]),
        budget=cast(int, record["budget"]),
        rung=cast(int, record["rung"]),
        bracket=cast(int, record["bracket"]),
    )


def outcome_to_json(outcome: Outcome) -> Json:
    """A JSON object that `outcome_from_json` turns back into an equal outcome."""
    match outcome:
        case Completed(value):
            return {"outcome": "completed", "value": _finite_or_none(value)}
        case Paused(step):
            return {"outcome": "paused", "step": step}
        case Pruned(step):
            return {"outcome": "pruned", "step": step}
        case Failed(reason):
            return {"outcome": "failed", "reason": reason}


def outcome_from_json(record: Mapping[str, object]) -> Outcome:
    """The outcome in `record`; raises ValueError for an unknown one, KeyError for a missing key."""
    kind = record["outcome"]
    if kind == "completed":
        return Completed(_number(record["value"]))
    if kind == "paused":
        return Paused(cast(int, record["step"]))
    if kind == "pruned":
        return Pruned(cast(int, record["step"]))
    if kind == "failed":
        return Failed(str(record["reason"]))
    raise ValueError(f"An outcome {kind!r}; expected 'completed', 'paused', 'pruned' or 'failed'.")


def _finite_or_none(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _number(content: object) -> float:
    return math.nan if content is None else float(cast(float, content))
