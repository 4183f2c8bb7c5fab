from __future__ import annotations

import numpy as np

from app.search import Float, Space
from app.search.feasibility import Feasibility

PLANE = Space([Float("x", 0.0, 1.0), Float("y", 0.0, 1.0)])


def rows(seed: int, num: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).random((num, 2))


def test_region_of_failures_is_told_from_the_rest() -> None:
    tried = rows(0)
    failed = tried[:, 0] > 0.6
    model = Feasibility.learned(PLANE, tried[~failed], tried[failed])
    probability = np.exp(model.log_probability(np.array([[0.2, 0.5], [0.4, 0.1], [0.85, 0.5], [0.9, 0.9]])))
    assert probability[:2].min() > 0.8
    assert probability[2:].max() < 0.2


def test_failures_by_chance_rule_out_no_region() -> None:
    tried = rows(1, 120)
    failed = np.random.default_rng(2).random(120) < 0.2
    probability = np.exp(Feasibility.learned(PLANE, tried[~failed], tried[failed]).log_probability(rows(3)))
    assert np.median(probability) > 0.6
    assert probability.min() > 0.3


def test_many_failures_keep_the_share_of_the_history() -> None:
    tried = rows(4, 900)
    failed = np.arange(900) % 3 == 0
    probability = np.exp(Feasibility.learned(PLANE, tried[~failed], tried[failed]).log_probability(rows(5)))
    assert 0.4 < np.median(probability) < 0.85
