from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.evaluation import ensemble
from app.evaluation.ensemble import (
    Candidate,
    average,
    combine,
    is_better,
    is_surely_no_worse,
    select,
    select_resampled,
    without_last,
)
from app.evaluation.metrics import METRICS
from app.evaluation.predictions import Predictions
from app.evaluation.temperature import tempered
from pipelines.schema import Task

NUM_ROWS = 300


def regressions(noises: list[float], *, seed: int = 0, bias: float = 0.0) -> list[Candidate]:
    """Candidates whose errors have nothing in common but a bias."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=NUM_ROWS)
    return [
        Candidate(
            trial=trial,
            predictions=Predictions(task=Task.REGRESSION, y=y, values=y + bias + rng.normal(0.0, noise, NUM_ROWS)),
        )
        for trial, noise in enumerate(noises)
    ]


def classifications(num: int, *, classes: int = 3, seed: int = 0) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(NUM_ROWS, classes))
    y = (2.0 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    found = []
    for trial in range(num):
        scores = np.exp(2.0 * logits + rng.normal(size=logits.shape))
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        task = Task.BINARY if classes == 2 else Task.MULTICLASS
        found.append(Candidate(trial=trial, predictions=Predictions(task=task, y=y, probabilities=probabilities)))
    return found


def rmse(candidates: list[Candidate], weights: dict[int, float]) -> float:
    members = [candidates[trial] for trial in weights]
    return METRICS["rmse"].value(average(members, list(weights.values())))


def test_independent_candidates_are_averaged_and_weigh_what_they_are_worth() -> None:
    candidates = regressions([0.5, 0.5, 0.5, 2.0])
    weights = dict(select(candidates, objective=METRICS["rmse"], max_members=8).weights)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert list(weights.values()) == sorted(weights.values(), reverse=True)
    assert weights.get(3, 0.0) < 0.1 < min(weights[trial] for trial in (0, 1, 2))
    assert rmse(candidates, weights) < 0.7 * rmse(candidates, {0: 1.0})


def test_the_greedy_choice_is_that_of_the_paper() -> None:
    """Step by step, without any short cut: add the best candidate, replacement allowed; keep the best prefix."""
    candidates = regressions([0.8, 0.9, 1.0, 1.2], seed=7)
    order: list[int] = []
    for _ in range(ensemble.MAX_STEPS):
        steps = {trial: rmse_of(candidates, [*order, trial]) for trial in range(4)}
        order.append(min(steps, key=lambda trial: steps[trial]))
    best = min(range(1, len(order) + 1), key=lambda size: rmse_of(candidates, order[:size]))
    expected = {trial: order[:best].count(trial) / best for trial in set(order[:best])}
    assert dict(select(candidates, objective=METRICS["rmse"], max_members=4).weights) == pytest.approx(expected)


def rmse_of(candidates: list[Candidate], trials: list[int]) -> float:
    values = np.mean([candidates[trial].predictions.values for trial in trials], axis=0)
    return float(np.sqrt(np.mean((values - candidates[0].predictions.y) ** 2)))


@given(num=st.integers(1, 6), most=st.integers(1, 4), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_selection_is_never_worse_than_its_best_candidate_and_never_too_large(num: int, most: int, seed: int) -> None:
    candidates = classifications(num, seed=seed)
    metric = METRICS["log_loss"]
    weights = dict(select(candidates, objective=metric, max_members=most).weights)
    assert 1 <= len(weights) <= most
    value = metric.value(average([candidates[trial] for trial in weights], list(weights.values())))
    assert value <= min(metric.value(one.predictions) for one in candidates) + 1e-12


def test_resampled_rows_spread_the_weight_where_few_rows_say_little() -> None:
    candidates = [
        Candidate(trial=one.trial, predictions=one.predictions.take(np.arange(60))) for one in classifications(6)
    ]
    metric = METRICS["roc_auc"]
    spread = select_resampled(candidates, objective=metric, max_members=8).weights
    greedy = select(candidates, objective=metric, max_members=8).weights
    assert sum(spread.values()) == pytest.approx(1.0)
    assert list(spread.values()) == sorted(spread.values(), reverse=True)
    assert len(spread) >= len(greedy)
    assert max(spread.values()) < max(greedy.values())
    assert len(select_resampled(candidates, objective=metric, max_members=2).weights) == 2


def test_resampling_knows_a_bad_candidate_and_the_weights_of_rows() -> None:
    candidates = regressions([0.5, 0.5, 3.0])
    weights = select_resampled(candidates, objective=METRICS["rmse"], max_members=8).weights
    assert set(weights) == {0, 1}
    # Only rows on which the third is right count.
    right = np.abs(candidates[2].predictions.values - candidates[2].predictions.y) < 0.1
    counted = [
        dataclasses.replace(one, predictions=dataclasses.replace(one.predictions, weights=right.astype(float)))
        for one in candidates
    ]
    assert next(iter(select_resampled(counted, objective=METRICS["rmse"], max_members=8).weights)) == 2


def test_right_answers_and_many_rows_need_no_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = classifications(4)
    accuracy, log_loss = METRICS["accuracy"], METRICS["log_loss"]
    plain = select(candidates, objective=accuracy, max_members=3)
    assert select_resampled(candidates, objective=accuracy, max_members=3) == plain
    monkeypatch.setattr(ensemble, "SAMPLED_ROWS", NUM_ROWS)
    plain = select(candidates, objective=log_loss, max_members=3)
    assert select_resampled(candidates, objective=log_loss, max_members=3) == plain


def test_smaller_losses_count_where_the_objective_is_worse_by_chance_alone() -> None:
    y = np.arange(NUM_ROWS) % 2
    rng = np.random.default_rng(0)

    def answered(scores: np.ndarray) -> Predictions:
        positive = 1.0 / (1.0 + np.exp(-scores))
        return Predictions(task=Task.BINARY, y=y, probabilities=np.stack([1.0 - positive, positive], axis=1))

    metric, truth = METRICS["roc_auc"], 2.0 * (y - 0.5)
    noisy = truth + rng.normal(0.0, 1.0, NUM_ROWS)
    sure, too_sure = answered(noisy + rng.normal(0.0, 0.01, NUM_ROWS)), answered(9.0 * noisy)
    assert is_surely_no_worse(sure, too_sure, objective=metric)
    assert not is_surely_no_worse(too_sure, sure, objective=metric)
    # A perfect order is no luck, however unsure it is.
    assert not is_surely_no_worse(sure, answered(0.01 * truth), objective=metric)
    assert not is_surely_no_worse(sure, too_sure, objective=METRICS["accuracy"])


def test_rows_that_weigh_nothing_are_in_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "MAX_CELLS", 10)
    weights = (np.arange(NUM_ROWS) == 7).astype(float)
    weighted = [
        dataclasses.replace(one, predictions=dataclasses.replace(one.predictions, weights=weights))
        for one in regressions([0.5, 0.5])
    ]
    best = min(weighted, key=lambda one: abs(one.predictions.values[7] - one.predictions.y[7]))  # type: ignore[index]
    chosen = select(weighted, objective=METRICS["rmse"], max_members=1)
    assert dict(chosen.weights) == {best.trial: 1.0}
    one, other = (candidate.predictions for candidate in sorted(weighted, key=lambda found: found is not best))
    assert is_surely_no_worse(one, other, objective=METRICS["mae"])


def test_one_member_is_the_best_candidate() -> None:
    candidates = regressions([0.9, 0.3, 0.6])
    assert dict(select(candidates, objective=METRICS["rmse"], max_members=1).weights) == {1: 1.0}


def test_a_candidate_with_the_same_errors_is_left_out() -> None:
    first, second, _ = regressions([0.5, 0.5, 0.5])
    values = first.predictions.values
    assert values is not None
    rng = np.random.default_rng(1)
    twin = Predictions(task=Task.REGRESSION, y=first.predictions.y, values=values + rng.normal(0, 0.01, NUM_ROWS))
    found = select(
        [first, second, Candidate(trial=9, predictions=twin)], objective=METRICS["rmse"], max_members=8
    )
    assert len(found.correlated) == 1
    assert found.correlated[0] in (0, 9)
    assert len({0, 9} & set(found.weights)) == 1


def test_good_regressions_are_not_taken_for_twins_because_both_are_right() -> None:
    candidates = regressions([0.02, 0.02])
    answers = [one.predictions.values for one in candidates]
    assert np.corrcoef(np.stack([a for a in answers if a is not None]))[0, 1] > ensemble.MAX_CORRELATION
    found = select(candidates, objective=METRICS["rmse"], max_members=8)
    assert (len(found.weights), found.correlated) == (2, ())


def test_equal_accuracies_are_told_apart_by_the_log_loss() -> None:
    y = np.array([0, 1, 0, 1])
    sure, unsure = np.array([[0.9, 0.1], [0.1, 0.9]] * 2), np.array([[0.6, 0.4], [0.4, 0.6]] * 2)
    candidates = [
        Candidate(trial=trial, predictions=Predictions(task=Task.BINARY, y=y, probabilities=probabilities))
        for trial, probabilities in enumerate((unsure, sure))
    ]
    accuracy = METRICS["accuracy"]
    assert dict(select(candidates, objective=accuracy, max_members=3).weights) == {1: 1.0}
    assert is_better(candidates[1].predictions, candidates[0].predictions, objective=accuracy)
    assert not is_better(candidates[0].predictions, candidates[0].predictions, objective=accuracy)


def test_a_selection_looks_at_some_rows_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "MAX_CELLS", 10)
    candidates = classifications(3)
    assert select(candidates, objective=METRICS["accuracy"], max_members=3).weights


def test_probabilities_are_averaged_and_the_label_follows_from_the_average() -> None:
    parts = [{"probabilities": np.array([[0.9, 0.1]])}, {"probabilities": np.array([[0.2, 0.8]])}]
    combined = combine(parts, [0.25, 0.75])
    np.testing.assert_allclose(combined["probabilities"], [[0.375, 0.625]])
    assert combined["label_ids"].tolist() == [1]
    asked = combine(parts, [0.25, 0.75], temperature=2.0, class_weights=(3.0, 1.0))
    assert asked["label_ids"].tolist() == [0]
    np.testing.assert_allclose(asked["probabilities"], tempered(np.array([[0.375, 0.625]]), 2.0))


def test_the_most_important_members_are_brought_to_a_sum_of_one() -> None:
    weights = {4: 0.5, 1: 0.3, 2: 0.2}
    assert without_last(weights, keep=2) == pytest.approx({4: 0.625, 1: 0.375})
    assert without_last(weights, keep=1) == {4: 1.0}


LEVELS = (0.05, 0.25, 0.5, 0.95)


def quantile_answers(num: int = 3, *, seed: int = 0) -> list[Candidate]:
    """Candidates that know the spread, each with errors of its own at each level."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=NUM_ROWS)
    y = centre + rng.normal(size=NUM_ROWS)
    offsets = np.array([-1.64, -0.67, 0.0, 1.64])
    found = []
    for trial in range(num):
        quantiles = np.sort(centre[:, np.newaxis] + offsets + rng.normal(size=(NUM_ROWS, 4)), axis=1)
        predictions = Predictions(
            task=Task.REGRESSION, y=y, values=quantiles[:, 2], quantiles=quantiles, levels=LEVELS
        )
        found.append(Candidate(trial=trial, predictions=predictions))
    return found


@pytest.mark.parametrize("choose", [select, select_resampled])
def test_quantiles_are_averaged_for_the_pinball_loss_and_still_rise(choose: Any) -> None:
    candidates, pinball = quantile_answers(), METRICS["pinball"]
    selection = choose(candidates, objective=pinball, max_members=3)
    assert set(selection.weights) == {0, 1, 2}
    assert selection.correlated == ()
    averaged = average([candidates[trial] for trial in selection.weights], list(selection.weights.values()))
    assert averaged.quantiles is not None
    assert averaged.values is not None
    assert (np.diff(averaged.quantiles, axis=1) >= 0).all()
    np.testing.assert_array_equal(averaged.values, averaged.quantiles[:, 2])
    assert all(pinball.value(averaged) < 0.95 * pinball.value(one.predictions) for one in candidates)
    assert is_better(averaged, candidates[0].predictions, objective=pinball)


def test_a_candidate_that_differs_in_its_spread_alone_is_not_called_the_same() -> None:
    first, other, *_ = quantile_answers()
    assert first.predictions.quantiles is not None
    same = dataclasses.replace(first, trial=7)
    wide = first.predictions.quantiles + np.outer(np.abs(first.predictions.y), [-1.0, -0.5, 0.0, 1.0])
    spread = dataclasses.replace(first, trial=8, predictions=dataclasses.replace(first.predictions, quantiles=wide))
    found = select([first, same, spread, other], objective=METRICS["pinball"], max_members=4)
    assert found.correlated == (7,)
