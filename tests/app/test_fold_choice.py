from __future__ import annotations

import re
from typing import Any

import pytest

from app.fold_choice import BAG_ROWS, BAG_SECONDS, MIN_SECONDS, NUM_FOLDS, SMALL_ROWS, choose_folds

SMALL: dict[str, Any] = {"num_rows": 300, "seconds": 0.0, "trials": 0, "smallest_class": 60, "in_time": False}


def test_a_small_table_gets_folds() -> None:
    choice = choose_folds(0, **SMALL)
    assert (choice.number, choice.reason) == (NUM_FOLDS, "one part of 300 rows would be too small to select on")
    assert choose_folds(0, **SMALL | {"smallest_class": None, "seconds": MIN_SECONDS}).number == NUM_FOLDS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_rows": SMALL_ROWS}, r"rows are enough to select on one part of them"),
        ({"in_time": True}, r"the latest rows say most about what comes after them"),
        ({"smallest_class": 4}, r"the rarest class has 4 rows, too few to hold out in turn"),
        ({"trials": 5}, r"5 trials are few to choose among; --folds 5 asks for cross-validation"),
        ({"seconds": MIN_SECONDS - 1}, r"trial would take 5 trainings and \d+ s leave time for too few; --folds 5"),
    ],
)
def test_one_part_is_taken_for_a_reason(changes: dict[str, Any], reason: str) -> None:
    choice = choose_folds(0, **SMALL | changes)
    assert choice.number == 1
    assert re.search(reason, choice.reason)


MEDIUM = SMALL | {"num_rows": BAG_ROWS - 1, "seconds": BAG_SECONDS, "bagging": True}


def test_a_table_of_some_thousand_rows_gets_folds_whose_networks_answer_together() -> None:
    choice = choose_folds(0, **MEDIUM)
    reason = "4,999 rows are few enough for the networks of all folds to answer together"
    assert (choice.number, choice.reason) == (NUM_FOLDS, reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_rows": BAG_ROWS},
        {"seconds": BAG_SECONDS - 1},
        {"seconds": 0.0},
        {"bagging": False},
        {"in_time": True},
        {"smallest_class": 4},
        {"trials": 5},
    ],
)
def test_it_gets_none_without_rows_time_or_use_for_them(changes: dict[str, Any]) -> None:
    assert choose_folds(0, **MEDIUM | changes).number == 1


def test_what_is_asked_for_is_taken() -> None:
    assert choose_folds(1, **SMALL).number == 1
    assert choose_folds(3, **SMALL | {"num_rows": 10**6, "seconds": 10.0, "in_time": True}).number == 3


def test_only_a_choice_that_surprises_is_said() -> None:
    assert not choose_folds(0, **SMALL | {"num_rows": 10**6}).is_worth_saying
    assert not choose_folds(1, **SMALL).is_worth_saying
    assert choose_folds(0, **SMALL).is_worth_saying
    assert choose_folds(0, **SMALL | {"seconds": 10.0}).is_worth_saying
