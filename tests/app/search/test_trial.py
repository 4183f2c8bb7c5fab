from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.search.facts_json import fact_from_json, fact_to_json
from app.search.trial import (
    Completed,
    Ended,
    Fact,
    Failed,
    History,
    Outcome,
    Paused,
    Pruned,
    Reported,
    Started,
    Suggestion,
)


def suggestion(trial: int = 0, *, start: int = 0, budget: int = 9, rung: int = 0) -> Suggestion:
    return Suggestion(trial=trial, hyperparameters={"rate": 0.1}, start_epoch=start, budget=budget, rung=rung)


def test_trial_collects_its_curve_and_outcome() -> None:
    history = History().applied(
        [Started(suggestion()), Reported(0, 1, 0.5), Reported(0, 2, 0.3), Reported(0, 3, 0.4), Ended(0, Completed(0.3))]
    )
    trial = history[0]
    assert trial.curve == ((1, 0.5), (2, 0.3), (3, 0.4))
    assert (trial.loss, trial.epochs, trial.outcome) == (0.3, 3, Completed(0.3))
    assert trial.loss_until(1) == 0.5
    assert history.completed == (trial,)


def test_applying_facts_leaves_the_old_history_alone() -> None:
    before = History().applied([Started(suggestion())])
    after = before.applied([Reported(0, 1, 0.5)])
    assert before[0].curve == ()
    assert after[0].curve == ((1, 0.5),)


def test_trials_are_in_the_order_of_their_numbers_however_they_come() -> None:
    history = History().applied([Started(suggestion(4)), Started(suggestion(1))]).applied([Started(suggestion(2))])
    assert list(history) == [1, 2, 4]
    assert history.next_number == 5


def test_views_sort_trials_by_outcome() -> None:
    outcomes: list[Outcome | None] = [Completed(1.0), Paused(3), Pruned(2), Failed("no memory"), None]
    facts: list[Fact] = [Started(suggestion(number)) for number in range(5)]
    facts += [Ended(number, outcome) for number, outcome in enumerate(outcomes) if outcome is not None]
    history = History().applied(facts)
    views = [history.completed, history.paused, history.pruned, history.failed, history.running]
    assert [[trial.number for trial in view] for view in views] == [[0], [1], [2], [3], [4]]
    assert history.next_number == 5


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_fails_the_trial_for_good(loss: float) -> None:
    reported = History().applied([Started(suggestion()), Reported(0, 2, loss), Ended(0, Completed(0.1))])
    assert reported[0].outcome == Failed(f"The loss became {loss} in epoch 2.")
    completed = History().applied([Started(suggestion()), Ended(0, Completed(loss))])
    assert isinstance(completed[0].outcome, Failed)
    assert completed.best is None


def test_promoted_trial_keeps_its_number_and_curve() -> None:
    history = History().applied(
        [
            Started(suggestion(budget=3)),
            Reported(0, 3, 0.5),
            Ended(0, Paused(3)),
            Started(suggestion(start=3, budget=9, rung=1)),
            Reported(0, 9, 0.2),
        ]
    )
    assert len(history) == 1
    assert history[0].curve == ((3, 0.5), (9, 0.2))
    assert history.running == (history[0],)
    assert (history[0].rung, history[0].budget) == (1, 9)


def test_trial_started_again_after_a_kill_forgets_the_epochs_it_repeats() -> None:
    killed = History().applied([Started(suggestion()), Reported(0, 1, 0.5), Reported(0, 2, 0.1)])
    again = killed.running[0].suggestion
    assert again == suggestion()
    assert killed.applied([Started(again), Reported(0, 1, 0.5)])[0].curve == ((1, 0.5),)


def test_failed_trial_may_be_tried_again() -> None:
    failed = History().applied([Started(suggestion()), Reported(0, 1, 0.5), Ended(0, Failed("worker died"))])
    again = failed.applied([Started(suggestion()), Ended(0, Completed(0.4))])
    assert again[0].outcome == Completed(0.4)
    assert again[0].curve == ()


def test_best_is_the_earliest_of_the_lowest_ended_losses() -> None:
    facts: list[Fact] = [Started(suggestion(number)) for number in range(5)]
    facts += [Ended(0, Completed(2.0)), Ended(1, Completed(1.0)), Ended(2, Completed(1.0)), Reported(3, 1, 0.1)]
    facts += [Reported(4, 1, 0.1), Ended(4, Failed("killed"))]
    best = History().applied(facts).best
    assert best is not None
    assert best.number == 1


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ([Reported(7, 1, 0.5)], "trial 7, which has not started"),
        ([Ended(7, Completed(0.5))], "trial 7, which has not started"),
        (
            [Started(suggestion()), Started(Suggestion(0, {"rate": 0.2}, start_epoch=0, budget=9))],
            "starts again with other hyperparameters",
        ),
        ([Started(suggestion()), Ended(0, Completed(1.0)), Started(suggestion())], "although it is completed"),
        ([Started(suggestion(start=9))], "starts at epoch 9 with budget 9"),
    ],
)
def test_contradicting_facts_are_refused(facts: list[Fact], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        History().applied(facts)


numbers = st.integers(0, 10**6)
losses = st.floats(allow_nan=False, allow_infinity=False)
suggestions = st.builds(
    Suggestion,
    trial=numbers,
    hyperparameters=st.dictionaries(st.text(max_size=5), st.booleans() | st.integers() | losses | st.text(max_size=5)),
    start_epoch=numbers,
    budget=numbers,
    rung=numbers,
    bracket=numbers,
)
outcomes = (
    st.builds(Completed, losses)
    | st.builds(Paused, numbers)
    | st.builds(Pruned, numbers)
    | st.builds(Failed, st.text())
)
facts = (
    st.builds(Started, suggestions)
    | st.builds(Reported, trial=numbers, epoch=numbers, loss=losses)
    | st.builds(Ended, numbers, outcomes)
)


@settings(max_examples=150, deadline=None)
@given(fact=facts)
def test_fact_json_round_trip_is_exact(fact: Fact) -> None:
    text = json.dumps({**fact_to_json(fact), "time": 1.5}, allow_nan=False)
    assert fact_from_json(json.loads(text)) == fact


def test_loss_that_is_not_finite_travels_as_null() -> None:
    assert fact_to_json(Reported(0, 1, math.inf))["loss"] is None
    told = fact_from_json(fact_to_json(Ended(0, Completed(math.nan))))
    assert isinstance(History().applied([Started(suggestion()), told])[0].outcome, Failed)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"event": "stopped"}, "event 'stopped'; expected 'started', 'reported', 'measured' or 'ended'"),
        ({"event": "reported", "trial": 1}, "'reported' record has no 'epoch'"),
        ({"event": "ended", "trial": 1, "outcome": "lost"}, "outcome 'lost'; expected 'completed'"),
    ],
)
def test_unknown_records_are_refused(record: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fact_from_json(record)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_history_of_its_own_facts_is_equal_whatever_the_interleaving(data: st.DataObject) -> None:
    # Four workers: each trial's facts keep their order, trials interleave in any way.
    queues: list[list[Fact]] = []
    for number in range(4):
        queue: list[Fact] = [Started(suggestion(number))]
        queue += [Reported(number, epoch, data.draw(losses)) for epoch in range(1, data.draw(st.integers(1, 4)))]
        queue += data.draw(st.sampled_from([[], [Ended(number, Paused(3))], [Ended(number, Failed("x"))]]))
        queues.append(queue)
    in_order = History().applied(fact for queue in queues for fact in queue)
    live = History()
    while any(queues):
        queue = data.draw(st.sampled_from([queue for queue in queues if queue]))
        live = live.applied([queue.pop(0)])
    assert live == in_order
    assert History().applied(in_order.facts()) == in_order
