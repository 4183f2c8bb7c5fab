from __future__ import annotations

import numpy as np
import pytest

from app.search import Completed, Ended, Fact, Failed, Float, History, Reported, Space, Started, Suggestion
from app.search.recommendation import ranking
from app.search.trial import Resource

LINE = Space([Float("x", 0.0, 1.0)])


def history_of(points: dict[float, float]) -> History:
    facts: list[Fact] = []
    for number, (x, loss) in enumerate(points.items()):
        facts += [Started(Suggestion(number, {"x": x}, 0, 1)), Ended(number, Completed(loss))]
    return History().applied(facts)


@pytest.mark.parametrize("seed", range(3))
def test_a_lucky_loss_among_bad_neighbours_is_not_believed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = {float(x): (x - 0.3) ** 2 + 0.01 * rng.standard_normal() for x in np.linspace(0.0, 1.0, 31)}
    lucky = list(points)[-3]
    points[lucky] = min(points.values()) - 0.01
    history = history_of(points)
    assert history.best is not None
    assert history.best.hyperparameters["x"] == lucky
    believed = history[ranking(LINE, history)[0]].hyperparameters["x"]
    assert abs(float(believed) - 0.3) < 0.2


def test_few_losses_are_taken_as_they_are() -> None:
    assert ranking(LINE, history_of({0.1: 3.0, 0.5: 1.0, 0.9: 2.0})) == [1, 2, 0]
    assert ranking(LINE, History()) == []


def test_failed_and_running_trials_are_not_ranked() -> None:
    history = history_of({x / 20: abs(x / 20 - 0.5) for x in range(20)})
    history = history.applied([Started(Suggestion(20, {"x": 0.51}, 0, 1)), Started(Suggestion(21, {"x": 0.52}, 0, 1))])
    history = history.applied([Ended(20, Failed("lost"))])
    assert sorted(ranking(LINE, history)) == list(range(20))


def test_equal_losses_everywhere_are_ranked_by_number() -> None:
    assert ranking(LINE, history_of({x / 12: 1.0 for x in range(12)})) == list(range(12))


def test_trials_with_more_folds_come_first() -> None:
    history = History(resource=Resource.FOLDS)
    for number in range(12):
        folds = 5 if number % 3 == 0 else 1
        suggestion = Suggestion(number, {"x": number / 12}, 0, folds)
        news: list[Fact] = [Started(suggestion), Reported(number, folds, 1.0 + number), Ended(number, Completed(1.0))]
        history = history.applied(news)
    assert set(ranking(LINE, history)[:4]) == {0, 3, 6, 9}


def noisy_line(seed: int) -> dict[float, float]:
    rng = np.random.default_rng(seed)
    return {float(x): (x - 0.3) ** 2 + 0.01 * rng.standard_normal() for x in np.linspace(0.0, 1.0, 41)}


@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, -3.0), (1e300, 0.0)])
def test_the_unit_of_losses_does_not_matter(factor: float, shift: float) -> None:
    points = noisy_line(0)
    others = {x: factor * loss + shift for x, loss in points.items()}
    assert ranking(LINE, history_of(others))[:10] == ranking(LINE, history_of(points))[:10]


def test_trials_that_diverged_do_not_blur_the_good_ones() -> None:
    points = noisy_line(1)
    diverged = {x: 1e12 if x > 0.7 else loss for x, loss in points.items()}
    believed = history_of(diverged)[ranking(LINE, history_of(diverged))[0]].hyperparameters["x"]
    assert abs(float(believed) - 0.3) < 0.1


def test_a_crowd_of_equal_best_losses_is_ranked() -> None:
    points = {x / 40: max(0.0, x / 40 - 0.7) for x in range(40)}
    best = {number for number, loss in enumerate(points.values()) if loss == 0.0}
    assert set(ranking(LINE, history_of(points))[: len(best) // 2]) <= best
