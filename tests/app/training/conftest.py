from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.config import Balance, DataConfig, ExperimentConfig, TrainingConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.run_directory import RunDirectory

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

NUM_ROWS = 260
OBJECTIVES = {
    "binary": "log_loss",
    "multiclass": "log_loss",
    "regression": "rmse",
    "numbers": "rmse",
    "labels": "log_loss",
}
SEVERAL = {"numbers": "regression", "labels": "multilabel"}
"""Task with two targets, ``outcome`` and ``other`` -> what the product calls it."""

NETWORK: Mapping[str, Any] = {
    "embedding_size": 4,
    "depth": 2,
    "width": 16,
    "activation": "relu",
    "normalisation": "batch",
    "dropout": 0.2,
    "residual": True,
    "optimizer": "adamw",
    "learning_rate": 5e-3,
    "weight_decay": 1e-3,
    "schedule": "cosine",
    "warmup_share": 0.1,
    "batch_size": 16,
    "label_smoothing": 0.0,
}


def make_frame(task: str, *, rare: bool = False) -> pd.DataFrame:
    """Numbers, categories and missing values, with a target that can be learned from both kinds."""
    rng = np.random.default_rng(11)
    size, age = rng.normal(50.0, 10.0, NUM_ROWS), rng.integers(18, 80, NUM_ROWS)
    town = rng.choice(["north", "south", "east"], NUM_ROWS)
    signal = (size - 50.0) / 10.0 + np.where(town == "north", 1.0, -0.5) + 0.2 * rng.normal(size=NUM_ROWS)
    target: Any = signal * 1_000.0 + 50_000.0
    if task == "binary":
        target = np.where(signal > np.quantile(signal, 0.9 if rare else 0.5), "yes", "no")
    elif task == "multiclass":
        target = np.array(["low", "middle", "high"])[np.digitize(signal, [-0.5, 0.7])]
    elif task == "labels":
        target = (signal > 0.0).astype(int)
    frame = pd.DataFrame(
        {
            "size": np.where(rng.random(NUM_ROWS) < 0.05, np.nan, size),
            "age": age,
            "town": np.where(rng.random(NUM_ROWS) < 0.05, None, town),
            "member": rng.random(NUM_ROWS) < 0.5,
            "outcome": target,
        }
    )
    if task in SEVERAL:
        other = age + rng.normal(0.0, 5.0, NUM_ROWS)
        frame["other"] = (other > 45.0).astype(int) if task == "labels" else other
    return frame


@dataclass(frozen=True)
class Experiment:
    directory: RunDirectory
    data: Any


def prepare(
    path: Path,
    task: str,
    *,
    rare: bool = False,
    weighting: str = "auto",
    weighted: bool = False,
    levels: tuple[float, ...] = (),
) -> Experiment:
    from app.training.trial_data import load_trial_data

    weight = "count" if weighted else ""
    target = "outcome,other" if task in SEVERAL else "outcome"
    data = DataConfig(target=target, task=SEVERAL.get(task, task), weight=weight, quantiles=levels)
    config = ExperimentConfig(name=path.name, data=data)
    directory = RunDirectory(path)
    path.mkdir()
    frame = make_frame(task, rare=rare)
    frame = frame.assign(count=np.arange(len(frame)) % 4) if weighted else frame
    write_data(prepare_data(read_source(frame, config), config), config, directory=directory)
    return Experiment(directory, load_trial_data(directory, balance=Balance(weighting)))


@pytest.fixture(scope="session", name="make_frame")
def make_frame_fixture() -> Callable[..., pd.DataFrame]:
    return make_frame


@pytest.fixture(scope="session")
def placement() -> Any:
    from app.training.strategy import prepare_devices

    return prepare_devices(TrainingConfig())


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory, placement: Any) -> Callable[..., Experiment]:  # noqa: ARG001
    """Prepared experiments, each made once."""
    made: dict[Any, Experiment] = {}
    folder = tmp_path_factory.mktemp("experiments")

    def experiment(
        task: str,
        *,
        rare: bool = False,
        weighting: str = "auto",
        weighted: bool = False,
        levels: tuple[float, ...] = (),
    ) -> Experiment:
        key = (task, rare, weighting, weighted, levels)
        if key not in made:
            place = folder / f"experiment-{len(made)}"
            made[key] = prepare(place, task, rare=rare, weighting=weighting, weighted=weighted, levels=levels)
        return made[key]

    return experiment


@pytest.fixture(scope="session")
def make_trainer(experiments: Callable[..., Experiment], placement: Any) -> Callable[..., Any]:
    """A trainer on a prepared experiment."""
    from app.evaluation.metrics import METRICS
    from app.training.trainer import Trainer

    def trainer(
        task: str = "binary",
        *,
        space: str = "mlp",
        patience: int = 100,
        rare: bool = False,
        weighting: str = "auto",
        weighted: bool = False,
        levels: tuple[float, ...] = (),
        max_epochs: int = 6,
    ) -> Any:
        return Trainer(
            experiments(task, rare=rare, weighting=weighting, weighted=weighted, levels=levels).data,
            space_name=space,
            objective=METRICS[OBJECTIVES[task]],
            placement=placement,
            max_epochs=max_epochs,
            patience=patience,
        )

    return trainer


@pytest.fixture(scope="session")
def network_values() -> Callable[..., dict[str, Any]]:
    """Hyperparameters of a small network, with changes."""

    def values(**changes: Any) -> dict[str, Any]:
        merged = {**NETWORK, **changes}
        return {name: value for name, value in merged.items() if value is not None}

    return values
