"""Run by test_strategy in a process of its own: a trial on two logical CPU devices."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from conftest import NETWORK as DEEP  # of this folder, which is on the path of a script

from app.config import Balance, TrainingConfig
from app.run_directory import RunDirectory
from app.training.strategy import prepare_devices

NETWORK = {**{name: value for name, value in DEEP.items() if name != "residual"}, "depth": 1}
TOLERANCE = 1e-4  # replicas add their gradients in no fixed order


def main(directory: Path, scratch: Path) -> None:
    placement = prepare_devices(TrainingConfig(devices=("CPU:0", "CPU:1")))
    assert placement.num_replicas == 2
    assert placement.description == (
        "MirroredStrategy over CPU:0, CPU:1, float32, each trial on all devices: there is one worker"
    )

    import keras

    from app.evaluation.baselines import constant
    from app.evaluation.metrics import METRICS
    from app.training.declaration import declare
    from app.training.epochs import EpochResult, Verdict
    from app.training.trainer import Trainer
    from app.training.trial_data import load_trial_data
    from pipelines.schema import Task

    log_loss = METRICS["log_loss"]

    def trainer() -> Trainer:
        data = load_trial_data(RunDirectory(directory), balance=Balance.WEIGHTS)
        return Trainer(
            data, space_name="mlp", objective=log_loss, placement=placement, max_epochs=6, patience=100
        )

    first = trainer()
    known = declare(first.space())

    def train(which: Trainer, *, state: str, budget: int) -> list[EpochResult]:
        curve: list[EpochResult] = []
        result = which.train_trial(
            NETWORK,
            known=known,
            budget=budget,
            seed=7,
            state=scratch / state,
            report=curve.append,
            ask=lambda: Verdict.GO_ON,
        )
        assert result.epoch == budget
        return curve

    whole = train(first, state="whole", budget=6)
    train(first, state="paused", budget=3)
    resumed = train(trainer(), state="paused", budget=6)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(list(one.scalars.values()), list(other.scalars.values()), atol=TOLERANCE)
    assert whole[-1].scalars["train/loss"] < whole[0].scalars["train/loss"]

    model, answers, _ = first.train_final(
        NETWORK, epochs=6, seed=7, report=lambda _: None, ask=lambda: Verdict.GO_ON
    )
    # Sixteen rows a replica, in two replicas.
    assert int(np.asarray(model.optimizer.iterations)) == 6 * (first.data.development.num_rows // 32)
    model.save(scratch / "model.keras")
    loaded = keras.models.load_model(scratch / "model.keras", safe_mode=True, compile=False)
    rows = first.data.validation
    predictions = first.predict(loaded, answers, rows)
    assert predictions.probabilities is not None
    assert np.isfinite(predictions.probabilities).all()
    baseline = constant(first.data.training, rows, task=Task.BINARY, num_classes=2)
    assert log_loss.value(predictions) < log_loss.value(baseline)
    print("all is well")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
