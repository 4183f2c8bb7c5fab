from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sklearn.metrics

from app.evaluation.conformal import interval_margin, smallest_rows, stated_coverage
from app.evaluation.metrics import METRICS, compute_metrics
from app.evaluation.predictions import Predictions
from pipelines.schema import Task

LEVELS = (0.05, 0.5, 0.95)


def predictions(*, num_rows: int = 2_000, width: float = 0.5, seed: int = 0) -> Predictions:
    """Intervals of a given half width around the truth's mean; the truth is standard normal."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=num_rows)
    found = np.tile([-width, 0.0, width], (num_rows, 1))
    return Predictions(task=Task.REGRESSION, y=y, values=np.zeros(num_rows), quantiles=found, levels=LEVELS)


@pytest.mark.parametrize("width", [0.3, 1.0, 4.0])
def test_the_margin_gives_new_rows_the_stated_coverage(width: float) -> None:
    margin = interval_margin(predictions(width=width))
    assert width + margin == pytest.approx(1.645, abs=0.12)  # the 95th percentile of a standard normal variable
    covered = [np.abs(predictions(seed=seed).y) <= width + margin for seed in range(1, 6)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_weights_count_like_repeated_rows() -> None:
    plain = predictions(num_rows=400)
    weights = np.random.default_rng(4).integers(0, 3, 400).astype(np.float64)
    weighted = interval_margin(dataclasses.replace(plain, weights=weights))
    repeated = interval_margin(plain.take(np.repeat(np.arange(400), weights.astype(int))))
    assert weighted == pytest.approx(repeated, abs=0.05)


def test_few_rows_take_the_worst_miss() -> None:
    few = predictions(num_rows=5)
    assert interval_margin(few) == pytest.approx(np.abs(few.y).max() - 0.5)
    assert smallest_rows(LEVELS) == 9
    assert stated_coverage(LEVELS) == pytest.approx(0.9)


def test_single_values_have_no_margin() -> None:
    single = Predictions(task=Task.REGRESSION, y=np.zeros(3), values=np.zeros(3))
    with pytest.raises(ValueError, match="expected quantiles to learn a margin from, got single values"):
        interval_margin(single)


def test_metrics_of_quantiles() -> None:
    made = predictions(width=1.0)
    found = compute_metrics(made).values
    assert made.quantiles is not None
    losses = [
        sklearn.metrics.mean_pinball_loss(made.y, made.quantiles[:, k], alpha=q) for k, q in enumerate(LEVELS)
    ]
    assert found["pinball"] == pytest.approx(np.mean(losses))
    assert found["coverage"] == pytest.approx(np.mean(np.abs(made.y) <= 1))
    assert found["interval_width"] == 2.0
    assert found["interval_score"] == pytest.approx(2.0 + 20.0 * np.maximum(np.abs(made.y) - 1, 0).mean())
    assert set(found) == {"rmse", "mae", "pinball", "coverage", "interval_width", "interval_score", "r2", "mape"} - (
        set() if "mape" in found else {"mape"}
    )


def test_single_values_have_no_coverage() -> None:
    single = Predictions(task=Task.REGRESSION, y=np.zeros(3), values=np.zeros(3))
    with pytest.raises(ValueError, match="expected quantiles for this metric, got single values; ask for them with"):
        METRICS["coverage"].value(single)
