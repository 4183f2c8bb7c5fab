from __future__ import annotations

import json

import numpy as np
import pytest

from app.evaluation import intervals
from app.evaluation.intervals import Difference, MetricEstimate, compare_metrics, estimate_metrics
from app.evaluation.metrics import METRICS, Predictions, metrics_for
from pipelines.schema import Task


def binary(num_rows: int, *, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    score = rng.random(num_rows)
    y = (rng.random(num_rows) < score).astype(np.int32)
    return Predictions(task=Task.BINARY, y=y, probabilities=np.stack([1 - score, score], axis=1))


def multiclass(num_rows: int) -> Predictions:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), size=num_rows)
    y = (rng.random((num_rows, 1)) > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return Predictions(task=Task.MULTICLASS, y=y, probabilities=probabilities)


def regression(num_rows: int, *, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    y = 10 + rng.normal(size=num_rows)
    return Predictions(task=Task.REGRESSION, y=y, values=y + rng.normal(size=num_rows))


def width(estimate: MetricEstimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


@pytest.mark.parametrize(
    "predictions", [binary(300), multiclass(300), regression(300)], ids=["binary", "multiclass", "regression"]
)
def test_every_metric_lies_in_its_interval(predictions: Predictions) -> None:
    estimates = estimate_metrics(predictions, seed=0)
    assert [estimate.name for estimate in estimates.metrics] == [
        m.name for m in metrics_for(predictions.task)
    ]
    assert estimates.num_resamples == 1_000
    for estimate in estimates.metrics:
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value == METRICS[estimate.name].value(predictions)
        assert estimate.low < estimate.high
        if estimate.name != "ece":  # resampling adds noise that an absolute gap only grows with
            assert estimate.low < estimate.value < estimate.high


def test_same_seed_gives_same_intervals_and_another_seed_others() -> None:
    predictions = binary(200)
    assert estimate_metrics(predictions, seed=3) == estimate_metrics(predictions, seed=3)
    assert estimate_metrics(predictions, seed=3) != estimate_metrics(predictions, seed=4)


def test_interval_equals_a_bootstrap_of_copied_rows() -> None:
    predictions = binary(150)
    rng = np.random.default_rng(7)
    samples = [METRICS["roc_auc"].value(predictions.take(rng.integers(0, 150, size=150))) for _ in range(400)]
    estimate = {e.name: e for e in estimate_metrics(predictions, seed=7, num_resamples=400).metrics}[
        "roc_auc"
    ]
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))


def test_interval_of_mae_covers_the_truth_as_often_as_it_says() -> None:
    truth = np.sqrt(2 / np.pi)  # mean of |standard normal|
    covered = 0
    for seed in range(200):
        estimates = estimate_metrics(regression(100, seed=seed), seed=seed, num_resamples=200).metrics
        mae = {e.name: e for e in estimates}["mae"]
        assert mae.low is not None
        assert mae.high is not None
        covered += mae.low < truth < mae.high
    assert 0.88 < covered / 200 <= 1.0


def test_work_is_bounded_by_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_WORK", 7 * 300 * 400)
    estimates = estimate_metrics(binary(400), seed=0)
    assert estimates.num_resamples == 300
    assert estimates.notes == ("The intervals rest on 300 resamples instead of 1000, to bound the time.",)


def test_very_many_rows_are_represented_by_a_bag_with_an_interval_of_the_same_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions = binary(20_000)
    full = {e.name: e for e in estimate_metrics(predictions, seed=0, num_resamples=200).metrics}
    monkeypatch.setattr(intervals, "_WORK", 7 * 200 * 4_000)
    bag = estimate_metrics(predictions, seed=0)
    assert bag.num_resamples == 200
    assert bag.notes[0] == "The intervals rest on 4,000 of 20,000 rows, weighted up."
    for estimate in bag.metrics:
        assert estimate.value == full[estimate.name].value
        if estimate.name != "ece":
            assert estimate.low < estimate.value < estimate.high  # type: ignore[operator]
            assert width(estimate) == pytest.approx(width(full[estimate.name]), rel=0.35)


def test_a_metric_that_is_not_defined_has_no_estimate_and_a_note() -> None:
    predictions = Predictions(task=Task.REGRESSION, y=np.arange(5.0), values=np.arange(5.0) + 1)
    estimates = estimate_metrics(predictions, seed=0)
    assert [estimate.name for estimate in estimates.metrics] == ["rmse", "mae", "r2"]
    assert "Left out: mape, because the target holds zeros" in estimates.notes[0]


def test_a_metric_seldom_defined_has_a_value_without_an_interval() -> None:
    predictions = Predictions(
        task=Task.BINARY, y=np.array([0, 1]), probabilities=np.array([[0.9, 0.1], [0.2, 0.8]])
    )
    # A resample of two rows holds both classes half of the time only.
    for seed in range(20):
        auc = {e.name: e for e in estimate_metrics(predictions, seed=seed, num_resamples=99).metrics}[
            "roc_auc"
        ]
        if auc.low is None:
            assert (auc.value, auc.high) == (1.0, None)
            return
    pytest.fail("every one of 20 seeds gave an interval")


def test_estimate_survives_json() -> None:
    for estimate in (MetricEstimate("f1", 0.1 + 0.2, 0.25, 1 / 3), MetricEstimate("r2", 0.5, None, None)):
        assert MetricEstimate.from_json(json.loads(json.dumps(estimate.to_json()))) == estimate


def test_a_broken_estimate_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected an estimate with name, value, low and high, got .*'mean'"
    ):
        MetricEstimate.from_json({"name": "f1", "mean": 0.3})
    with pytest.raises(ValueError, match="got 'f1' and None; the file is damaged"):
        MetricEstimate.from_json({"name": "f1", "value": None, "low": None, "high": None})


def answers(num_rows: int, *, wrong: slice, labels_only: bool = False) -> Predictions:
    y = np.arange(num_rows) % 2
    labels = y.copy()
    labels[wrong] = 1 - labels[wrong]
    if labels_only:
        return Predictions(task=Task.BINARY, y=y, labels=labels)
    return Predictions(task=Task.BINARY, y=y, probabilities=np.where(labels[:, None] == [0, 1], 0.9, 0.1))


def test_a_difference_equals_a_bootstrap_of_both_models_on_the_same_rows() -> None:
    model, other = answers(80, wrong=slice(0, 6)), answers(80, wrong=slice(4, 20))
    rng = np.random.default_rng(5)
    samples = []
    for _ in range(300):
        rows = rng.integers(0, 80, size=80)
        samples.append(METRICS["accuracy"].value(model.take(rows)) - METRICS["accuracy"].value(other.take(rows)))
    compared = compare_metrics(
        model, baselines={"other": other}, objective=METRICS["accuracy"], seed=5, num_resamples=300
    )
    difference = compared.differences["other"]
    assert difference.value == pytest.approx(10 / 80)
    assert (difference.low, difference.high) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))


def test_comparing_gives_each_the_intervals_it_has_alone() -> None:
    model, other = binary(150), answers(150, wrong=slice(0, 9))
    other = Predictions(task=Task.BINARY, y=model.y, probabilities=other.probabilities)
    compared = compare_metrics(model, baselines={"other": other}, objective=METRICS["roc_auc"], seed=2)
    assert compared.model == estimate_metrics(model, seed=2)
    assert compared.baselines["other"] == estimate_metrics(other, seed=2).metrics


def test_one_row_of_difference_is_not_clear_where_the_model_makes_no_mistake() -> None:
    model, other = answers(52, wrong=slice(0, 0)), answers(52, wrong=slice(0, 1))
    compared = compare_metrics(model, baselines={"other": other}, objective=METRICS["accuracy"], seed=0)
    assert (compared.model.metrics[0].low, compared.model.metrics[0].high) == (1.0, 1.0)
    difference = compared.differences["other"]
    assert (difference.low, difference.sign) == (0.0, 0)
    assert difference.high == pytest.approx(3 / 52)


def test_the_same_answers_differ_by_nothing() -> None:
    compared = compare_metrics(binary(90), baselines={"same": binary(90)}, objective=METRICS["log_loss"], seed=0)
    assert compared.differences["same"] == Difference(0.0, 0.0, 0.0)


def test_a_difference_of_a_bag_is_moved_to_that_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = answers(20_000, wrong=slice(0, 2_000)), answers(20_000, wrong=slice(1_000, 4_000))
    monkeypatch.setattr(intervals, "_WORK", 7 * 200 * 4_000)
    compared = compare_metrics(model, baselines={"other": other}, objective=METRICS["accuracy"], seed=0)
    difference = compared.differences["other"]
    assert difference.value == pytest.approx(0.05)
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < 0.05 < difference.high
    # sqrt((0.15 + 0.05 - 0.05 ** 2) / 20,000) is the standard error of a paired difference of shares.
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * np.sqrt(0.1475 / 20_000), rel=0.35)


def test_no_difference_where_a_baseline_lacks_the_objective() -> None:
    model, other = answers(60, wrong=slice(0, 5)), answers(60, wrong=slice(0, 9), labels_only=True)
    compared = compare_metrics(model, baselines={"labels": other}, objective=METRICS["roc_auc"], seed=0)
    assert compared.differences == {}


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (None, None, 0)]
)
def test_the_sign_of_a_difference_is_that_of_its_whole_interval(
    low: float | None, high: float | None, sign: int
) -> None:
    assert Difference(0.05, low, high).sign == sign


def test_a_difference_survives_json_and_a_broken_one_is_refused() -> None:
    for difference in (Difference(0.1, -0.25, 1 / 3), Difference(0.5, None, None)):
        assert Difference.from_json(json.loads(json.dumps(difference.to_json()))) == difference
    with pytest.raises(ValueError, match=r"expected a difference with value, low and high, got \['low'\]"):
        Difference.from_json({"low": 0.1})


def test_no_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1 resample, got 0"):
        estimate_metrics(binary(10), seed=0, num_resamples=0)
