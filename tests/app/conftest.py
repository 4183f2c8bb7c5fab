from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import PreparedData, prepare_data
from app.evaluation.intervals import Difference, MetricEstimate
from app.evaluation.sealed_test import SealedTestReport
from app.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class SmallRun:
    """A run directory with its data, before the search."""

    directory: RunDirectory
    config: ExperimentConfig
    data: PreparedData


@pytest.fixture
def small_run(tmp_path: Path) -> SmallRun:
    """120 rows with two features; `shop[1]` would be markup if it were not text."""
    rng = np.random.default_rng(0)
    size = rng.normal(40.0, 5.0, size=120).round(1)
    frame = pd.DataFrame(
        {
            "size": np.where(rng.random(120) < 0.1, np.nan, size),
            "shop[1]": rng.choice(["north", "south"], size=120),
            "constant": ["x"] * 120,
            "outcome": np.where(size + rng.normal(0, 2, size=120) > 40, "high", "low"),
        }
    )
    config = ExperimentConfig(name="small", data=DataConfig(target="outcome"), search=SearchConfig(space="mlp"))
    data = prepare_data(read_source(frame, config), config)
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(data, config, directory=staged)
    return SmallRun(directory, config, data)


@pytest.fixture
def tested() -> SealedTestReport:
    """A sealed test in which brier has no interval and the linear baseline is as good as the model."""
    return SealedTestReport(
        objective="roc_auc",
        num_rows=18,
        num_resamples=1000,
        model=(MetricEstimate("roc_auc", 0.9, 0.8, 0.97), MetricEstimate("brier", 0.1234, None, None)),
        baselines={
            "constant": (MetricEstimate("roc_auc", 0.5, 0.5, 0.5), MetricEstimate("brier", 0.25, 0.2, 0.3)),
            "linear": (MetricEstimate("roc_auc", 0.89, 0.79, 0.96),),
        },
        differences={"constant": Difference(0.4, 0.3, 0.47), "linear": Difference(0.01, -0.02, 0.04)},
        classes=("high", "low"),
        confusion=((8, 1), (2, 7)),
        notes=("A note.",),
    )
