from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.evaluation.predictions import Predictions
from app.search.space import Float, Space
from app.state_store import PREDICTIONS_FILE
from app.training import kept_predictions as module
from app.training.kept_predictions import keep_predictions, kept_predictions
from pipelines.schema import Task

KNOWN = Space([Float("x", 0.0, 1.0)])


def classified(num_rows: int = 5) -> Predictions:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), num_rows)
    return Predictions(task=Task.MULTICLASS, y=np.arange(num_rows) % 3, probabilities=probabilities)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    predictions = classified()
    keep_predictions(tmp_path, predictions, class_weights=(1.0, 2.0, 0.5))
    kept = kept_predictions(tmp_path)
    assert kept is not None
    assert kept.probabilities is not None
    assert predictions.probabilities is not None
    np.testing.assert_array_equal(kept.probabilities, predictions.probabilities.astype(np.float32))
    assert (kept.values, kept.class_weights, kept.num_rows) == (None, (1.0, 2.0, 0.5), 5)
    regression = Predictions(task=Task.REGRESSION, y=np.arange(4.0), values=np.array([1.5, 2.0, -3.0, 1e6]))
    keep_predictions(tmp_path, regression, class_weights=())
    kept = kept_predictions(tmp_path)
    assert kept is not None
    assert kept.values is not None
    assert kept.values.tolist() == [1.5, 2.0, -3.0, 1e6]
    assert kept.quantiles is None
    rising = np.arange(12.0).reshape(4, 3)
    keep_predictions(
        tmp_path,
        dataclasses.replace(regression, quantiles=rising, levels=(0.1, 0.5, 0.9)),
        class_weights=(),
    )
    kept = kept_predictions(tmp_path)
    assert kept is not None
    assert kept.quantiles is not None
    assert kept.quantiles.tolist() == rising.tolist()


def test_what_is_missing_damaged_or_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_predictions(tmp_path) is None
    keep_predictions(tmp_path, classified(), class_weights=())
    file = tmp_path / PREDICTIONS_FILE
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert kept_predictions(tmp_path) is None
    file.unlink()
    monkeypatch.setattr(module, "MOST_BYTES", 5 * 3 * 4 - 1)
    keep_predictions(tmp_path, classified(), class_weights=())
    assert not file.exists()


def test_a_trial_keeps_what_its_best_epoch_answered(
    make_trainer: Callable[..., Any], network_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from app.training.epochs import Verdict

    trainer, told = make_trainer("multiclass"), []
    trainer.train_trial(
        network_values(),
        known=KNOWN,
        budget=4,
        seed=1,
        state=tmp_path,
        report=told.append,
        ask=lambda: Verdict.GO_ON,
    )
    assert_kept_is_the_best(trainer, tmp_path, told)


def test_a_member_of_a_pack_keeps_what_its_best_epoch_answered(
    make_trainer: Callable[..., Any], network_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from app.training.packing.live import PackMember
    from app.training.packing.pack import PackTrainer

    trainer = make_trainer("multiclass")
    told: dict[int, list[Any]] = {0: [], 1: []}
    members = [
        PackMember(
            number=number,
            values=network_values(dropout=0.1 * number),
            known=KNOWN,
            budget=4,
            seed=number,
            state=tmp_path / str(number),
        )
        for number in told
    ]
    PackTrainer(trainer, seed=3).train(
        members, report=lambda number, result: told[number].append(result), ended=lambda _: None, ask=set
    )
    for number, curve in told.items():
        assert_kept_is_the_best(trainer, tmp_path / str(number), curve)


def assert_kept_is_the_best(trainer: Any, state: Path, curve: list[Any]) -> None:
    kept = kept_predictions(state)
    assert kept is not None
    rows = trainer.data.validation
    predictions = Predictions(task=Task.MULTICLASS, y=rows.y, probabilities=kept.probabilities)
    assert (state / "best").is_file()
    best = min(result.objective for result in curve)
    assert trainer.objective.value(predictions) == pytest.approx(best, rel=1e-5)
