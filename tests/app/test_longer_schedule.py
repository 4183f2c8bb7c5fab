from __future__ import annotations

from collections.abc import Mapping

import pytest

from app.longer_schedule import longer_schedule
from app.search.space import Categorical, Configuration, Float, Space
from app.search.trial import Completed, Ended, Fact, History, Reported, Started, Suggestion
from app.search_progress import Progress, Search

SHARES = Categorical("epoch_share", (0.125, 0.25, 0.5, 1.0), default=1.0, ordered=True)
SPACE = Space([Float("rate", 0.0, 1.0), SHARES])
SHORT: Configuration = {"rate": 0.5, "epoch_share": 0.125}


def search(algorithm: str = "bayesian") -> Search:
    return Search(algorithm=algorithm, reason="", objective="accuracy", max_epochs=80, seed=0, max_trials=None)


def progress_of(
    trials: Mapping[int, tuple[Configuration, float]], *, best_epoch: int = 10, algorithm: str = "bayesian"
) -> Progress:
    """Trials of ten epochs and 20 seconds each, best at `best_epoch`."""
    facts: list[Fact] = []
    for number, (configuration, loss) in trials.items():
        facts.append(Started(Suggestion(number, configuration, 0, 80)))
        facts += [Reported(number, epoch, loss + abs(best_epoch - epoch)) for epoch in range(1, 11)]
        facts.append(Ended(number, Completed(loss)))
    seconds = dict.fromkeys(trials, 20.0)
    return Progress(
        history=History().applied(facts),
        facts=facts,
        seconds=seconds,
        alone_seconds=seconds,
        space=SPACE,
        search=search(algorithm),
    )


# Whole schedules take 20 s for 10 of 80 epochs, and a tenth more: 176 s; a half 88 s, a quarter 44 s.


@pytest.mark.parametrize(
    ("usable", "whole", "share"),
    [
        (100.0, 180.0, 0.5),
        (80.0, 180.0, 0.25),  # there is no time any more for the one that was wanted
        (60.0, 100.0, 0.25),
        (190.0, 400.0, 1.0),
    ],
)
def test_the_longest_schedule_is_taken_that_half_of_the_search_has_time_for(
    usable: float, whole: float, share: float
) -> None:
    progress = progress_of({0: (SHORT, 0.4), 1: ({"rate": 0.25, "epoch_share": 0.125}, 0.3)})
    assert longer_schedule(progress, usable=usable, whole=whole) == {"rate": 0.25, "epoch_share": share}


def test_it_waits_while_another_trial_fits_before_it() -> None:
    progress = progress_of({0: (SHORT, 0.4)})
    assert longer_schedule(progress, usable=110.0, whole=180.0) is None
    assert longer_schedule(progress, usable=107.0, whole=180.0) is not None


def test_there_is_none_without_the_time_for_it() -> None:
    progress = progress_of({0: (SHORT, 0.4)})
    assert longer_schedule(progress, usable=40.0, whole=180.0) is None
    assert longer_schedule(progress, usable=50.0, whole=80.0) is None


def test_a_network_that_was_best_early_is_not_trained_for_longer() -> None:
    assert longer_schedule(progress_of({0: (SHORT, 0.4)}, best_epoch=5), usable=100.0, whole=180.0) is None


def test_a_whole_schedule_has_no_longer_one_and_nothing_is_tried_twice() -> None:
    whole = progress_of({0: ({"rate": 0.5, "epoch_share": 1.0}, 0.4)})
    assert longer_schedule(whole, usable=100.0, whole=180.0) is None
    tried = progress_of({0: (SHORT, 0.4), 1: ({"rate": 0.5, "epoch_share": 0.5}, 0.9)})
    assert longer_schedule(tried, usable=100.0, whole=180.0) is None


def test_a_rate_that_stays_as_it_is_has_no_longer_schedule() -> None:
    # All of its epochs are trained whatever the share says: another share would be the same training once more.
    constant = progress_of({0: ({**SHORT, "schedule": "constant"}, 0.4)})
    assert longer_schedule(constant, usable=100.0, whole=180.0) is None


def test_what_was_wished_for_once_is_not_wished_for_again() -> None:
    progress = progress_of({0: (SHORT, 0.4)})
    longer = longer_schedule(progress, usable=100.0, whole=180.0)
    assert longer is not None
    progress.wishes.append(longer)
    assert longer_schedule(progress, usable=100.0, whole=180.0) is None


@pytest.mark.parametrize("algorithm", ["grid", "hyperband", "asha", "one-shot"])
def test_algorithms_that_keep_to_their_own_configurations_or_epochs_are_left_alone(algorithm: str) -> None:
    progress = progress_of({0: (SHORT, 0.4)}, algorithm=algorithm)
    assert longer_schedule(progress, usable=100.0, whole=180.0) is None
