"""Families with recipes of their own in a real training: what is resumed, and when a trial is over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.search.warm_start import filled
from app.training.checkpoint import load_state
from app.training.declaration import declare
from app.training.epochs import EpochResult, Verdict
from app.training.trainer import End, Trainer, TrainingResult

MakeTrainer = Callable[..., Trainer]

NETWORKS: dict[str, dict[str, Any]] = {
    "realmlp": {"family": "realmlp", "batch_size": 16, "realmlp/width": 64, "realmlp/depth": 1},
    "tabm": {
        "family": "tabm",
        "batch_size": 16,
        "tabm/width": 64,
        "tabm/members": 8,
        "tabm/num_blocks": 1,
        "tabm/num_bins": 8,
    },
}


def train(
    trainer: Trainer, values: dict[str, Any], *, state: Path, budget: int
) -> tuple[TrainingResult, list[EpochResult]]:
    curve: list[EpochResult] = []
    space = declare(trainer.space())
    result = trainer.train_trial(
        filled(values, space=space),
        known=space,
        budget=budget,
        seed=7,
        state=state,
        report=curve.append,
        ask=lambda: Verdict.GO_ON,
    )
    return result, curve


@pytest.mark.parametrize("family", NETWORKS)
def test_a_paused_trial_of_a_family_goes_on_bit_for_bit(
    family: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(space="tabular", max_epochs=4)
    _, whole = train(trainer, NETWORKS[family], state=tmp_path / "whole", budget=4)
    paused, _ = train(trainer, NETWORKS[family], state=tmp_path / "parts", budget=2)
    assert (paused.end, paused.epoch) == (End.BUDGET, 2)
    _, resumed = train(trainer, NETWORKS[family], state=tmp_path / "parts", budget=4)
    assert resumed == whole
    one, other = (load_state(tmp_path / name / "current")[0] for name in ("whole", "parts"))
    for name in one:
        for left, right in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_trial_is_over_with_its_schedule_and_not_inside_a_cycle(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    # Without patience, any other trial ends after its first epoch.
    trainer = make_trainer(space="tabular", max_epochs=8, patience=0)
    result, curve = train(trainer, NETWORKS["realmlp"] | {"realmlp/epoch_share": 0.5}, state=tmp_path, budget=8)
    assert (result.end, result.epoch) == (End.EARLY, 4)
    assert curve[-1].scalars["learning_rate"] == pytest.approx(0.0, abs=1e-6)
