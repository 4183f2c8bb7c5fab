"""What is measured of a network is what its export will have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.evaluation.metrics import METRICS
from app.training.epochs import EpochResult
from app.training.measuring import MEASURES_FILE, ModelMeasurer, metric_measures
from search_spaces.catalogue import SpaceError
from tf_serving.export import stage_saved_model
from tf_serving.measure import measure_export, quiet_milliseconds, size_bytes

ALL = ("latency_ms", "num_parameters", "size_bytes", "flops", "memory_bytes", "accuracy")


@pytest.fixture(scope="module")
def measured(
    make_trainer: Callable[..., Any],
    experiments: Callable[..., Any],
    network_values: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, float], Path]:
    measurer = ModelMeasurer(make_trainer(), experiments("binary").directory, measures=ALL)
    state = tmp_path_factory.mktemp("measured") / "state"
    return measurer.measure(network_values(), state=state), state


def test_measures_of_the_model_are_taken_before_training(measured: tuple[dict[str, float], Path]) -> None:
    found, _ = measured
    # A metric is no property of an untrained network.
    assert set(found) == {"latency_ms", "num_parameters", "size_bytes", "flops", "memory_bytes"}
    assert 0.0 < found["latency_ms"] < 1e4
    assert found["num_parameters"] > 100
    assert found["size_bytes"] > 4 * found["num_parameters"]
    # A weight of a dense layer is one multiply-add; its training holds four numbers.
    assert 1.5 * found["num_parameters"] < found["flops"] < 20 * found["num_parameters"]
    assert found["memory_bytes"] > 15 * found["num_parameters"]


def test_resumed_trial_keeps_its_measures(
    measured: tuple[dict[str, float], Path],
    make_trainer: Callable[..., Any],
    experiments: Callable[..., Any],
    network_values: Callable[..., dict[str, Any]],
) -> None:
    found, state = measured
    (state / MEASURES_FILE).write_text(json.dumps({**found, "latency_ms": 12.5}))
    measurer = ModelMeasurer(make_trainer(), experiments("binary").directory, measures=("latency_ms",))
    assert measurer.measure(network_values(), state=state) == {"latency_ms": 12.5}


def test_measured_size_and_parameters_are_those_of_the_export(
    make_trainer: Callable[..., Any],
    experiments: Callable[..., Any],
    network_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    from app.training.declaration import hyperparameters
    from app.training.trial_data import tensors
    from search_spaces.user_space import answers_logits, arrange, checked_model, input_form

    trainer = make_trainer("regression")
    data, context = trainer.data, trainer.context(rows=trainer.data.training.num_rows)
    measurer = ModelMeasurer(trainer, experiments("regression").directory, measures=ALL)
    found = measurer.measure(network_values(width=48), state=tmp_path / "state")
    example = tensors({name: array[:2] for name, array in data.training.features.items()})
    model, _ = checked_model(
        trainer.space().build(hyperparameters(network_values(width=48))), example=example, context=context
    )
    answers, form = data.answer_form(logits=answers_logits(model, context.task)), input_form(model)
    staged = stage_saved_model(
        lambda columns: answers.answer(model(arrange(data.encoder(columns), form, context), training=False)),
        track=[model, data.encoder],
        schema=data.schema,
        directory=tmp_path / "model",
        sample=measurer._row,
        extra_files={"notes.txt": b"x" * 100_000},
    )
    assert found["num_parameters"] == model.count_params()
    # Names of functions differ in length; what is kept beside the model is not counted.
    assert size_bytes(staged) == pytest.approx(found["size_bytes"], rel=0.01)
    exported = measure_export(staged, row=measurer._row)
    assert measurer.exported(staged)["size_bytes"] == exported["size_bytes"] == size_bytes(staged)
    assert exported["latency_ms"] > 0.0


def test_nothing_is_built_when_nothing_is_asked(
    make_trainer: Callable[..., Any], experiments: Callable[..., Any], tmp_path: Path
) -> None:
    measurer = ModelMeasurer(make_trainer(), experiments("binary").directory, measures=("accuracy",))
    assert measurer.measure({"no such": "parameter"}, state=tmp_path / "state") == {}
    assert not (tmp_path / "state").exists()


def test_network_that_cannot_be_built_is_refused(
    make_trainer: Callable[..., Any],
    experiments: Callable[..., Any],
    network_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    measurer = ModelMeasurer(make_trainer(), experiments("binary").directory, measures=("num_parameters",))
    with pytest.raises((SpaceError, ValueError)):
        measurer.measure(network_values(activation="no such activation"), state=tmp_path / "state")


def test_metrics_become_numbers_to_minimise_at_the_best_epoch() -> None:
    best = EpochResult(epoch=3, objective=0.4, scalars={"val/accuracy": 0.75, "val/brier": 0.2, "val/f1": float("nan")})
    assert metric_measures(["accuracy", "brier", "f1", "roc_auc", "latency_ms"], best) == {
        "accuracy": METRICS["accuracy"].to_loss(0.75),
        "brier": 0.2,
    }
    assert metric_measures(["accuracy"], None) == {}


def test_time_is_taken_over_many_calls() -> None:
    calls = []

    class Answer:
        def numpy(self) -> Any:
            return np.zeros(1)

    def call() -> dict[str, Any]:
        calls.append(1)
        return {"answer": Answer()}

    assert quiet_milliseconds(call) >= 0.0
    assert len(calls) >= 40
