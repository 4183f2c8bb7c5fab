from __future__ import annotations

import math

import numpy as np
import pytest

from app.search import Algorithm, Completed, Ended, Fact, Float, Recipe, Reported, Space, Started, Suggestion
from app.search.curve_stopping import MIN_EPOCHS, MIN_FINISHED, MIN_SHARE, CurveStopping
from app.search.trial import History, Resource

NUM_EPOCHS = 20
EPOCHS = np.arange(1, NUM_EPOCHS + 1)


def falling(level: float) -> list[float]:
    """A power law that ends a little above `level`."""
    return [float(loss) for loss in level + 0.5 / EPOCHS]


def late(level: float) -> list[float]:
    """Flat for most of the epochs, then down, as under a cosine schedule."""
    return [float(loss) for loss in level + 0.5 * (1.0 - (EPOCHS / NUM_EPOCHS) ** 4)]


def whole(number: int, curve: list[float]) -> list[Fact]:
    suggestion = Suggestion(number, {"x": 0.01 * number}, start_epoch=0, budget=NUM_EPOCHS)
    reports = [Reported(number, epoch, loss) for epoch, loss in enumerate(curve, start=1)]
    return [Started(suggestion), *reports, Ended(number, Completed(min(curve)))]


def begun(number: int, curve: list[float], num_epochs: int, *, budget: int = NUM_EPOCHS) -> list[Fact]:
    suggestion = Suggestion(number, {"x": 0.01 * number}, start_epoch=0, budget=budget)
    return [Started(suggestion), *(Reported(number, e, loss) for e, loss in enumerate(curve[:num_epochs], start=1))]


def reason(finished: list[list[float]], curve: list[float], num_epochs: int, *, budget: int = NUM_EPOCHS) -> str:
    facts = [fact for number, one in enumerate(finished) for fact in whole(number, one)]
    number = len(finished)
    history = History().applied([*facts, *begun(number, curve, num_epochs, budget=budget)])
    return CurveStopping(max_epochs=NUM_EPOCHS).reason(history, number)


SPREAD = [falling(level) for level in (0.1, 0.15, 0.2, 0.25, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0)]


def test_curve_far_behind_is_stopped_and_the_reason_says_why() -> None:
    assert reason(SPREAD, falling(0.65), 8) == (
        "epoch 8: 6 of 10 finished trials were better by then; those like it ended at 0.725 at best, "
        "and 0.125 is to be beaten"
    )


@pytest.mark.parametrize("level", [0.0, 0.1, 0.2, 0.3])
def test_curve_in_the_better_half_goes_on(level: float) -> None:
    assert all(not reason(SPREAD, falling(level), epochs) for epochs in range(1, NUM_EPOCHS))


def test_late_bloomer_goes_on_where_one_was_seen_before() -> None:
    # At epoch 8 it is in the worse half, and its curve is flat.
    bloomer = late(0.25)
    assert reason(SPREAD, bloomer, 8)
    assert not reason([*SPREAD, late(0.26), late(0.5)], bloomer, 8)


def test_steep_curve_goes_on_although_it_is_behind() -> None:
    steep = [float(loss) for loss in 2.5 - 0.85 * np.log(EPOCHS)]
    level = [steep[7]] * NUM_EPOCHS
    assert reason(SPREAD, level, 8)
    assert not reason(SPREAD, steep, 8)


def test_first_trials_and_first_epochs_are_left_alone() -> None:
    assert not reason(SPREAD[: MIN_FINISHED - 1], falling(5.0), 15)
    first = max(MIN_EPOCHS, math.ceil(MIN_SHARE * NUM_EPOCHS))
    assert not reason(SPREAD, falling(5.0), first - 1)
    assert reason(SPREAD, falling(5.0), first)


def test_curve_behind_all_that_finished_is_held_against_the_worst_of_them() -> None:
    assert reason(SPREAD, falling(5.0), 10).startswith("epoch 10: 10 of 10 finished trials were better by then")


def test_trial_with_a_smaller_budget_is_left_to_its_scheduler() -> None:
    assert not reason(SPREAD, falling(5.0), 8, budget=9)


def test_trial_that_has_ended_or_not_reported_has_no_reason() -> None:
    facts = [fact for number, one in enumerate(SPREAD) for fact in whole(number, one)]
    history = History().applied([*facts, *begun(10, [], 0)])
    stopping = CurveStopping(max_epochs=NUM_EPOCHS)
    assert not any(stopping.reason(history, number) for number in history)


def test_early_stop_counts_as_flat_afterwards_and_a_result_without_a_curve_is_left_out() -> None:
    short = [fact for number in range(10) for fact in whole(number, SPREAD[number][:6])]
    added = [Started(Suggestion(10, {"x": 0.5}, start_epoch=0, budget=NUM_EPOCHS)), Ended(10, Completed(0.01))]
    history = History().applied([*short, *added, *begun(11, falling(0.85), 10)])
    assert CurveStopping(max_epochs=NUM_EPOCHS).reason(history, 11) == (
        "epoch 10: 8 of 10 finished trials were better by then; those like it ended at 0.8833 at best, "
        "and 0.1833 is to be beaten"
    )


def test_scale_and_shift_of_the_loss_change_nothing() -> None:
    curves = [*SPREAD, late(0.06), late(0.5)]
    for tried in (falling(0.65), late(0.05), late(0.7), falling(0.45)):
        for epochs in (5, 8, 12, 19):
            plain = bool(reason(curves, tried, epochs))
            moved = [[50.0 * loss - 90.0 for loss in curve] for curve in curves]
            assert bool(reason(moved, [50.0 * loss - 90.0 for loss in tried], epochs)) == plain


def algorithm(**fields: object) -> Algorithm:
    recipe = Recipe("bayesian", Space([Float("x", 0.0, 1.0)]), seed=0, max_epochs=NUM_EPOCHS, **fields)  # type: ignore[arg-type]
    made = Algorithm(recipe)
    made.update(fact for number, one in enumerate(SPREAD) for fact in whole(number, one))
    made.update(begun(10, falling(0.65), 8))
    return made


def test_algorithm_tells_hopeless_trials_without_changing() -> None:
    one = algorithm()
    before = one.dump()
    assert one.hopeless(10).startswith("epoch 8")
    assert one.hopeless(10) == Algorithm.load(before).hopeless(10)
    assert one.dump() == before


def test_only_rivals_tell_how_a_trial_may_go_on() -> None:
    one = algorithm()
    assert one.hopeless(10, is_rival=lambda trial: trial.number < 10)
    assert not one.hopeless(10, is_rival=lambda trial: trial.number != 3)  # nine are too few


def test_no_trial_is_hopeless_by_its_loss_when_there_are_other_objectives_or_folds() -> None:
    assert not algorithm(objectives=("latency_ms",)).hopeless(10)
    assert not algorithm(resource=Resource.FOLDS).hopeless(10)
