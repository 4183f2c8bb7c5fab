"""How `auto` lays trials of large networks out over two devices; two logical CPUs stand for two GPUs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from app.config import DataConfig, ExperimentConfig, SearchConfig, TrainingConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.execution.executors import make_executor
from app.execution.messages import OpenRun
from app.run_directory import RunDirectory

SPACE = """
import keras


def large(hp):
    layers = [keras.layers.Dense(4500, kernel_initializer="zeros") for _ in range(2)]
    model = keras.Sequential([*layers, keras.layers.Dense(3)])
    rate = hp.Float("rate", 1e-3, 1e-2)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
"""


def test_large_networks_train_on_all_devices(
    penguins_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sized_spaces.py").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    config = ExperimentConfig(
        data=DataConfig(target="species"),
        search=SearchConfig(space="sized_spaces:large"),
        training=TrainingConfig(devices=("CPU:0", "CPU:1")),
    )
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(prepare_data(read_source(penguins_csv, config), config), config, directory=staged)
    open_run = OpenRun(directory=str(directory.path), objective="accuracy", max_epochs=1, seed=1)
    with contextlib.closing(make_executor(config.execution, devices=config.training.devices)) as executor:
        opened, num_workers = executor.open(open_run), executor.num_workers
    assert (opened.num_replicas, num_workers) == (2, 1)
    assert "each trial on all devices: the default network has 20," in opened.devices
    assert opened.devices.endswith(" weights, 20,000,000 or more")
