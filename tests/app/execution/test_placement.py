"""How `auto` lays trials out over two devices, by the size of the networks; two logical CPUs stand for two GPUs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from app.config import DataConfig, ExperimentConfig, SearchConfig, TrainingConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.execution.executors import make_executor
from app.execution.messages import OpenRun, RunOpened
from app.run_directory import RunDirectory

SPACE = """
import keras


def networks(units):
    def build(hp):
        layers = [keras.layers.Dense(units, kernel_initializer="zeros") for _ in range(2)]
        model = keras.Sequential([*layers, keras.layers.Dense(3)])
        rate = hp.Float("rate", 1e-3, 1e-2)
        model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    return build


small, large = networks(4), networks(4500)
"""


@pytest.fixture
def opened_on_two_devices(
    penguins_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[RunOpened, int]:
    """What a search of the space that a test asks for finds when it opens, and the number of its workers."""
    (tmp_path / "sized_spaces.py").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    config = ExperimentConfig(
        data=DataConfig(target="species"),
        search=SearchConfig(space=f"sized_spaces:{request.param}"),
        training=TrainingConfig(devices=("CPU:0", "CPU:1")),
    )
    directory = RunDirectory(tmp_path / "run")
    with directory.staged() as staged:
        write_data(prepare_data(read_source(penguins_csv, config), config), config, directory=staged)
    open_run = OpenRun(directory=str(directory.path), objective="accuracy", max_epochs=1, seed=1)
    with contextlib.closing(make_executor(config.execution, devices=config.training.devices)) as executor:
        return executor.open(open_run), executor.num_workers


@pytest.mark.parametrize("opened_on_two_devices", ["small"], indirect=True)
def test_small_networks_train_side_by_side(opened_on_two_devices: tuple[RunOpened, int]) -> None:
    opened, num_workers = opened_on_two_devices
    assert (opened.num_replicas, num_workers) == (1, 2)
    assert opened.devices.endswith(
        "each trial on one of CPU:0, CPU:1: there are 2 workers; the default network has 111 weights"
    )


@pytest.mark.parametrize("opened_on_two_devices", ["large"], indirect=True)
def test_large_networks_train_on_all_devices(opened_on_two_devices: tuple[RunOpened, int]) -> None:
    opened, num_workers = opened_on_two_devices
    assert (opened.num_replicas, num_workers) == (2, 1)
    assert "each trial on all devices: the default network has 20," in opened.devices
    assert opened.devices.endswith(" weights, 20,000,000 or more")
