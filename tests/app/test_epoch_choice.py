from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.epoch_choice import OBJECTIVE_ERROR, area_error, chosen_epoch, objective_error
from app.evaluation.metrics import METRICS
from app.evaluation.predictions import Predictions
from pipelines.schema import Task

finite = st.floats(0.0, 1.0)
curves = st.lists(st.tuples(finite, finite, st.sampled_from([0.0, 0.01, 0.1])), min_size=1, max_size=30)


def binary(scores: list[float], labels: list[int]) -> Predictions:
    probabilities = np.stack([1.0 - np.asarray(scores), scores], axis=1)
    return Predictions(task=Task.BINARY, y=np.asarray(labels), probabilities=probabilities)


def test_without_an_error_the_best_objective_counts_and_the_loss_where_it_is_equal() -> None:
    assert chosen_epoch([(0.3, 0.1, 0.0), (0.2, 0.9, 0.0), (0.2, 0.8, 0.0), (0.25, 0.0, 0.0)]) == 2
    assert chosen_epoch([]) is None


def test_within_the_error_of_the_best_the_loss_counts() -> None:
    curve = [(0.5, 0.1, 0.1), (0.25, 0.4, 0.1), (0.2, 0.6, 0.1), (0.29, 0.5, 0.1)]
    assert chosen_epoch(curve) == 1
    assert chosen_epoch([(objective, loss, 0.01) for objective, loss, _ in curve]) == 2


def test_an_epoch_without_an_objective_is_not_chosen_before_one_that_has_it() -> None:
    assert chosen_epoch([(math.nan, 0.1, 0.1), (0.2, 0.9, 0.1), (math.inf, 0.0, 0.1)]) == 1


@given(curves)
def test_the_choice_stays_or_goes_to_the_last_epoch(curve: list[tuple[float, float, float]]) -> None:
    choices = [chosen_epoch(curve[: number + 1]) for number in range(len(curve))]
    for number in range(1, len(curve)):
        assert choices[number] in (choices[number - 1], number)


def test_the_error_of_an_area_is_that_of_the_formula_by_hand() -> None:
    # Q1 = 0.8 / 1.2 and Q2 = 1.28 / 1.8, so 0.16 + 9 * 0.02667 + 19 * 0.07111 over 200 pairs.
    assert area_error(0.8, positives=10, negatives=20) == pytest.approx(math.sqrt(1.751111 / 200), rel=1e-6)
    assert area_error(1.0, positives=10, negatives=20) == 0.0
    assert area_error(0.8, positives=1_000, negatives=2_000) < 0.01


def test_the_error_is_that_of_the_rows() -> None:
    predictions = binary([0.2, 0.7, 0.4, 0.5], [0, 1, 1, 0])
    assert objective_error(METRICS["roc_auc"], predictions) == {
        OBJECTIVE_ERROR: area_error(0.75, positives=2, negatives=2)
    }


def test_other_objectives_and_rows_of_one_class_have_none() -> None:
    predictions = binary([0.2, 0.7, 0.4], [0, 1, 1])
    assert objective_error(METRICS["log_loss"], predictions) == {}
    assert objective_error(METRICS["roc_auc"], binary([0.2, 0.7], [1, 1])) == {}
