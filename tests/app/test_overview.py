from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app.overview import OverviewBoard, importance_text, overview_of, scalars_of
from app.search.limits import Limit
from app.search.space import Categorical, Float, Int, Space
from app.search.trial import (
    Completed,
    Ended,
    Fact,
    Failed,
    History,
    Measured,
    Paused,
    Pruned,
    Reported,
    Resource,
    Started,
    Suggestion,
)
from app.search_progress import Progress, Search

SPACE = Space([Float("rate", 0.0, 1.0), Int("depth", 1, 4)])
SEARCH = Search(
    algorithm="hyperband", reason="as asked", objective="accuracy", max_epochs=9, seed=3, max_trials=None
)


def progress_of(*facts: Fact) -> Progress:
    return Progress(history=History().applied(facts), facts=list(facts), space=SPACE, search=SEARCH)


def trial(number: int, value: float, *, rate: float = 0.5) -> list[Fact]:
    return [
        Started(Suggestion(number, {"rate": rate, "depth": 1 + number % 4}, 0, 9)),
        Reported(number, 1, -value),
        Ended(number, Completed(-value)),
    ]


def test_the_best_value_never_gets_worse() -> None:
    failed = [Started(Suggestion(0, {"rate": 0.1, "depth": 1}, 0, 9)), Ended(0, Failed("nan"))]
    overview = overview_of(progress_of(*failed, *trial(1, 0.5), *trial(2, 0.25), *trial(3, 0.75)))
    assert math.isnan(overview.best[0])
    assert overview.best[1:] == (0.5, 0.5, 0.75)
    assert overview.counts == {"failed": 1, "completed": 3}


def test_what_breaks_a_limit_is_the_best_only_while_nothing_keeps_it() -> None:
    limited = replace(SEARCH, limits=(Limit("latency_ms", 5.0),))
    facts = [*trial(0, 0.9), Measured(0, {"latency_ms": 9.0}), *trial(1, 0.5), Measured(1, {"latency_ms": 4.0})]
    facts += [*trial(2, 0.8), Measured(2, {"latency_ms": 6.0}), *trial(3, 0.6), Measured(3, {"latency_ms": 5.0})]
    assert overview_of(replace(progress_of(*facts), search=limited)).best == (0.9, 0.5, 0.5, 0.6)


def test_a_mean_over_fewer_folds_is_not_the_best() -> None:
    facts: list[Fact] = []
    for number, folds in enumerate((1, 3, 3, 2)):
        facts += [
            Started(Suggestion(number, {"rate": 0.5, "depth": 1}, 0, 3)),
            Reported(number, folds, -(0.9, 0.5, 0.6, 0.8)[number]),
            Ended(number, Pruned(folds)),
        ]
    history = History(resource=Resource.FOLDS).applied(facts)
    progress = Progress(history=history, facts=facts, space=SPACE, search=SEARCH)
    assert overview_of(progress).best == (0.9, 0.5, 0.6, 0.6)


def test_the_best_stays_the_best_while_it_goes_on() -> None:
    paused = [*trial(0, 0.9)[:2], Ended(0, Paused(1))]
    goes_on = Started(Suggestion(0, {"rate": 0.5, "depth": 1}, 1, 9, rung=1))
    assert overview_of(progress_of(*paused, *trial(1, 0.5), goes_on)).best == (0.9, 0.9)
    assert overview_of(progress_of(*paused, goes_on, Reported(0, 2, -0.95), *trial(1, 0.5))).best == (0.9, 0.9)


def test_rungs_are_counted_by_bracket() -> None:
    facts: list[Fact] = []
    for number in range(3):
        facts += [
            Started(Suggestion(number, {"rate": number / 4, "depth": 1}, 0, 1)),
            Reported(number, 1, float(number)),
            Ended(number, Paused(1)),
        ]
    facts.append(Started(Suggestion(0, {"rate": 0.0, "depth": 1}, 1, 3, rung=1)))
    first, second = overview_of(progress_of(*facts)).rungs
    assert (first.entered, first.running, first.promoted, first.budget) == (3, 0, 1, 1)
    assert (second.entered, second.running, second.promoted, second.budget) == (1, 1, 0, 3)


def test_trials_that_leave_rungs_out_do_not_move_them() -> None:
    facts: list[Fact] = []
    for number, budget in enumerate((1, 9)):
        facts += [
            Started(Suggestion(number, {"rate": number / 4, "depth": 1}, 0, budget)),
            Reported(number, budget, float(number)),
            Ended(number, Paused(budget)),
        ]
    assert [rung.budget for rung in overview_of(progress_of(*facts)).rungs] == [1]


def test_trials_at_full_budget_have_no_rungs() -> None:
    assert overview_of(progress_of(*trial(0, 0.5), *trial(1, 0.6))).rungs == ()


def test_the_parameter_that_decides_is_the_important_one() -> None:
    rates = np.linspace(0.0, 1.0, 24)
    facts = [fact for number, rate in enumerate(rates) for fact in trial(number, float(rate), rate=float(rate))]
    overview = overview_of(progress_of(*facts))
    assert next(iter(overview.importance)) == "rate"
    assert importance_text(overview.importance).startswith("rate ")
    assert overview_of(progress_of(*facts), with_importance=False).importance == {}


def test_trials_that_do_not_tell_parameters_apart_say_nothing_of_importance() -> None:
    facts = [fact for number in range(12) for fact in trial(number, 0.5, rate=number / 12)]
    assert overview_of(progress_of(*facts)).importance == {}
    # Nor where a parameter has but one value, whose share is nothing in any case.
    space = Space([*SPACE.parameters, Categorical("family", ["mlp"])])
    assert overview_of(replace(progress_of(*facts), space=space)).importance == {}


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    board = OverviewBoard(tmp_path / "search")
    facts: list[Fact] = []
    for number in range(8):
        facts += trial(number, number / 10, rate=number / 10)
        board.trial_ended(progress_of(*facts))
    board.close(progress_of(*facts))
    events = EventAccumulator(str(tmp_path / "search"), size_guidance={"tensors": 0})
    events.Reload()
    expected = scalars_of(overview_of(progress_of(*facts)))
    assert set(events.Tags()["tensors"]) == set(expected)
    last = {tag: float(events.Tensors(tag)[-1].tensor_proto.float_val[0]) for tag in expected}
    assert last == pytest.approx(expected)
    assert [event.step for event in events.Tensors("best/accuracy")] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_search_that_has_not_begun_has_no_numbers() -> None:
    with pytest.raises(ValueError, match="the search has not begun"):
        overview_of(Progress())
