from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import TrainingConfig
from app.errors import ConfigError
from app.run_directory import RunDirectory

SCRIPT = Path(__file__).with_name("two_replicas.py")
ROOT = Path(__file__).parents[3]


def test_a_device_that_does_not_exist_is_refused(placement: object) -> None:  # noqa: ARG001
    from app.training.strategy import prepare_devices

    with pytest.raises(ConfigError, match=r"device GPU:7 does not exist here: expected one of CPU:0"):
        prepare_devices(TrainingConfig(devices=("GPU:7",)))


def test_a_device_named_twice_is_refused(placement: object) -> None:  # noqa: ARG001
    from app.training.strategy import prepare_devices

    with pytest.raises(ConfigError, match=r"devices are CPU:0, CPU:0: expected each one once"):
        prepare_devices(TrainingConfig(devices=("CPU:0", "CPU:0")))


def test_one_device_needs_no_copies(placement: object) -> None:
    from app.training.strategy import Placement

    assert isinstance(placement, Placement)
    assert (placement.num_replicas, placement.description) == (1, "CPU:0, float32")


def test_two_replicas_train_pause_resume_and_save(experiments: object, tmp_path: Path) -> None:
    # Logical devices have to be configured before TensorFlow starts.
    directory: RunDirectory = experiments("binary", rare=True, weighting="weights").directory  # type: ignore[operator]
    command = [sys.executable, str(SCRIPT), str(directory.path), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("all is well")
