from __future__ import annotations

import json

import numpy as np
import pytest

from app.evaluation import intervals
from app.evaluation.intervals import MetricEstimate, estimate_metrics
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
    assert estimates.notes == ("the intervals rest on 300 resamples instead of 1000, to bound the time",)


def test_very_many_rows_are_represented_by_a_bag_with_an_interval_of_the_same_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions = binary(20_000)
    full = {e.name: e for e in estimate_metrics(predictions, seed=0, num_resamples=200).metrics}
    monkeypatch.setattr(intervals, "_WORK", 7 * 200 * 4_000)
    bag = estimate_metrics(predictions, seed=0)
    assert bag.num_resamples == 200
    assert bag.notes[0] == "the intervals rest on 4,000 of 20,000 rows, weighted up"
    for estimate in bag.metrics:
        assert estimate.value == full[estimate.name].value
        if estimate.name != "ece":
            assert estimate.low < estimate.value < estimate.high  # type: ignore[operator]
            assert width(estimate) == pytest.approx(width(full[estimate.name]), rel=0.35)


def test_a_metric_that_is_not_defined_has_no_estimate_and_a_note() -> None:
    predictions = Predictions(task=Task.REGRESSION, y=np.arange(5.0), values=np.arange(5.0) + 1)
    estimates = estimate_metrics(predictions, seed=0)
    assert [estimate.name for estimate in estimates.metrics] == ["rmse", "mae", "r2"]
    assert "mape is left out: the target holds zeros" in estimates.notes[0]


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


def test_no_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1 resample, got 0"):
        estimate_metrics(binary(10), seed=0, num_resamples=0)
