from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from app.evaluation.baselines import constant
from app.evaluation.metrics import METRICS
from app.training.checkpoint import CheckpointError, load_state
from app.training.declaration import declare
from app.training.epochs import EpochResult, NonFiniteError, Verdict
from app.training.network import forget_graphs
from app.training.trainer import End, Trainer, TrainingResult
from app.training.trial_data import tensors
from pipelines.schema import Task
from search_spaces.catalogue import SpaceError

MakeTrainer = Callable[..., Trainer]
Values = Callable[..., dict[str, Any]]

SHALLOW = {"depth": 1, "residual": None}  # half the time to trace
OPTIMIZERS = {
    "adamw": {},
    "rmsprop": {
        **SHALLOW,
        "optimizer": "rmsprop",
        "normalisation": "layer",
        "schedule": "constant",
        "warmup_share": None,
    },
    "sgd": {**SHALLOW, "optimizer": "sgd", "learning_rate": None, "sgd_learning_rate": 0.05, "momentum": 0.9},
}


@dataclass(frozen=True)
class Trained:
    result: TrainingResult
    curve: list[EpochResult]
    state: Path


def go_on() -> Verdict:
    return Verdict.GO_ON


def train(
    trainer: Trainer,
    values: dict[str, Any],
    *,
    state: Path,
    budget: int = 6,
    seed: int = 7,
    ask: Callable[[], Verdict] = go_on,
) -> Trained:
    curve: list[EpochResult] = []
    known = declare(trainer.space())
    result = trainer.train_trial(
        values, known=known, budget=budget, seed=seed, state=state, report=curve.append, ask=ask
    )
    return Trained(result, curve, state)


@pytest.fixture(scope="module")
def six_epochs(
    make_trainer: MakeTrainer, network_values: Values, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    """A trial of every optimizer, trained to six epochs in one go."""
    done: dict[str, Trained] = {}

    def trained(optimizer: str) -> Trained:
        if optimizer not in done:
            values = network_values(**OPTIMIZERS[optimizer])
            done[optimizer] = train(make_trainer(), values, state=tmp_path_factory.mktemp(optimizer))
        return done[optimizer]

    return trained


def assert_same_state(one: Path, other: Path) -> None:
    (arrays, header), (other_arrays, other_header) = load_state(one), load_state(other)
    assert header == other_header
    assert arrays.keys() == other_arrays.keys()
    for name in arrays:
        for left, right in zip(arrays[name], other_arrays[name], strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_binary_trial_beats_the_constant_prediction(six_epochs: Any, make_trainer: MakeTrainer) -> None:
    data = make_trainer().data
    baseline = constant(data.training, data.validation, task=Task.BINARY, num_classes=2)
    trained = six_epochs("adamw")
    assert trained.result.end is End.BUDGET
    assert min(result.objective for result in trained.curve) < 0.8 * METRICS["log_loss"].value(baseline)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_trial_beats_the_constant_prediction(
    task: str, make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    trainer = make_trainer(task)
    data = trainer.data
    baseline = constant(data.training, data.validation, task=Task(task), num_classes=len(data.schema.target.classes))
    values = network_values(label_smoothing=None if task == "regression" else 0.05)
    trained = train(trainer, values, state=tmp_path)
    assert min(result.objective for result in trained.curve) < 0.8 * trainer.objective.value(baseline)


def test_every_epoch_reports_losses_objective_and_learning_rate(six_epochs: Any) -> None:
    trained = six_epochs("adamw")
    assert [result.epoch for result in trained.curve] == [1, 2, 3, 4, 5, 6]
    for result in trained.curve:
        assert set(result.scalars) == {"train/loss", "val/loss", "val/log_loss", "learning_rate"}
        assert result.scalars["val/log_loss"] == result.objective
    rates = [result.scalars["learning_rate"] for result in trained.curve]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_same_seed_gives_the_same_curve_and_weights_bit_for_bit(
    six_epochs: Any, make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    first = six_epochs("adamw")
    again = train(make_trainer(), network_values(), state=tmp_path)
    assert again.curve == first.curve
    assert_same_state(first.state / "current", tmp_path / "current")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_paused_trial_goes_on_bit_for_bit(
    optimizer: str, six_epochs: Any, make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    values = network_values(**OPTIMIZERS[optimizer])
    paused = train(make_trainer(), values, state=tmp_path, budget=3)
    assert (paused.result.end, paused.result.epoch) == (End.BUDGET, 3)
    resumed = train(make_trainer(), values, state=tmp_path, budget=6)
    whole = six_epochs(optimizer)
    assert resumed.result.epoch == 6
    assert resumed.curve == whole.curve
    assert_same_state(whole.state / "current", tmp_path / "current")
    assert_same_state(whole.state / "best", tmp_path / "best")


def test_early_stopping_ends_a_trial_and_remembers_its_best(
    make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    values = network_values(learning_rate=0.05, dropout=0.0, weight_decay=1e-6, schedule="constant", warmup_share=None)
    trained = train(make_trainer(patience=2, max_epochs=60), values, state=tmp_path, budget=60)
    best = min(trained.curve, key=lambda result: result.objective)
    assert trained.result.end is End.EARLY
    assert trained.result.epoch == best.epoch + 2 < 60
    kept, last = load_state(tmp_path / "best")[0], load_state(tmp_path / "current")[0]
    assert any((one != other).any() for one, other in zip(kept["model"], last["model"], strict=True))
    again = train(make_trainer(patience=2, max_epochs=60), values, state=tmp_path, budget=60)
    assert (again.result.end, again.result.epoch) == (End.EARLY, trained.result.epoch)
    assert again.curve == trained.curve


def test_a_stop_in_the_middle_of_an_epoch_leaves_the_last_whole_one(
    six_epochs: Any, make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    curve: list[EpochResult] = []
    looks_after_two = 0

    def ask() -> Verdict:
        nonlocal looks_after_two
        looks_after_two += len(curve) == 2
        return Verdict.STOP if looks_after_two > 1 else Verdict.GO_ON

    trainer = make_trainer()
    known = declare(trainer.space())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.training.network.SECONDS_PER_CALL", 0.0)
        result = trainer.train_trial(
            network_values(), known=known, budget=6, seed=7, state=tmp_path, report=curve.append, ask=ask
        )
    assert (result.end, result.epoch) == (End.STOPPED, 2)
    resumed = train(make_trainer(), network_values(), state=tmp_path)
    assert resumed.curve == six_epochs("adamw").curve


def test_a_trial_that_has_to_answer_is_judged_in_the_middle_of_its_first_epoch(
    make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    curve: list[EpochResult] = []
    trainer = make_trainer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.training.network.SECONDS_PER_CALL", 0.0)
        result = trainer.train_trial(
            network_values(),
            known=declare(trainer.space()),
            budget=6,
            seed=7,
            state=tmp_path,
            report=curve.append,
            ask=lambda: Verdict.ANSWER,
        )
    assert (result.end, result.epoch, len(curve)) == (End.STOPPED, 1, 1)
    assert np.isfinite([curve[0].objective, curve[0].scalars["train/loss"]]).all()
    assert (tmp_path / "best").exists()


def test_an_evaluation_gives_a_sign_of_life_before_every_batch(
    make_trainer: MakeTrainer, network_values: Values
) -> None:
    trainer, looks = make_trainer(), 0

    def ask() -> Verdict:
        nonlocal looks
        looks += 1
        return Verdict.STOP

    rows = trainer.data.validation
    network = trainer.network(network_values(**SHALLOW), trainer.part, num_rows=trainer.data.training.num_rows, seed=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.training.network.prediction_batch", lambda _: 16)
        parts, _ = network.evaluate(tensors(rows.features), rows, ask=ask)
    assert looks == len(parts) == -(-rows.num_rows // 16)
    forget_graphs()


def test_a_diverging_trial_ends_with_a_non_finite_error(
    make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    values = network_values(learning_rate=1e30, normalisation="none", schedule="constant", warmup_share=None)
    with pytest.raises(NonFiniteError, match=r"became .*epoch"):
        train(make_trainer("regression"), {**values, "label_smoothing": 0.0}, state=tmp_path)
    assert not (tmp_path / "current").exists()


def test_every_balance_changes_the_loss_and_the_probabilities_stay_calibrated(
    make_trainer: MakeTrainer, network_values: Values
) -> None:
    values = network_values(**SHALLOW, dropout=0.0)
    curves: dict[str, list[EpochResult]] = {}
    means, positives = {}, {}
    share = make_trainer(rare=True).data.training.y.mean()
    for weighting in ("none", "weights", "oversample", "undersample"):
        trainer = make_trainer(rare=True, weighting=weighting)
        curves[weighting] = []
        model, answers, _ = trainer.train_final(values, epochs=6, seed=7, report=curves[weighting].append, ask=go_on)
        predictions = trainer.predict(model, answers, trainer.data.training)
        assert predictions.probabilities is not None
        means[weighting] = predictions.probabilities[:, 1].mean()
        positives[weighting] = int((predictions.predicted_labels == 1).sum())
    assert len({curve[0].scalars["train/loss"] for curve in curves.values()}) == 4
    assert all(abs(mean - share) < 0.1 for mean in means.values()), means
    assert all(number >= positives["none"] for number in positives.values())


def test_regression_predicts_in_the_users_units(
    make_trainer: MakeTrainer, network_values: Values
) -> None:
    trainer = make_trainer("regression", max_epochs=20)
    values = network_values(label_smoothing=None, dropout=0.0)
    model, answers, _ = trainer.train_final(values, epochs=20, seed=7, report=lambda _: None, ask=go_on)
    y = trainer.data.training.y
    values_found = trainer.predict(model, answers, trainer.data.training).values
    assert values_found is not None
    assert abs(values_found.mean() - y.mean()) < 0.3 * y.std()
    assert np.corrcoef(values_found, y)[0, 1] > 0.8


def test_final_training_uses_training_and_validation_rows_for_the_asked_epochs(
    make_trainer: MakeTrainer, network_values: Values
) -> None:
    trainer = make_trainer()
    curve: list[EpochResult] = []
    model, _, epochs = trainer.train_final(network_values(), epochs=3, seed=7, report=curve.append, ask=go_on)
    rows = trainer.data.training.num_rows + trainer.data.validation.num_rows
    assert (epochs, [result.epoch for result in curve]) == (3, [1, 2, 3])
    assert int(model.optimizer.iterations) == 3 * (rows // 16)
    assert rows // 16 != trainer.data.training.num_rows // 16


def test_the_state_of_another_network_is_refused(
    six_epochs: Any, make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    shutil.copytree(six_epochs("adamw").state, tmp_path / "state")
    with pytest.raises(CheckpointError, match=r"belongs to another network"):
        train(make_trainer(), network_values(width=32), state=tmp_path / "state", budget=7)


def test_a_finished_trial_leaves_the_precision_to_the_next(
    make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        train(make_trainer(), network_values(**SHALLOW), state=tmp_path, budget=1)
        assert keras.config.dtype_policy().name == "mixed_float16"
        forget_graphs()
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_finished_trial_leaves_no_graph_behind(
    make_trainer: MakeTrainer, network_values: Values, tmp_path: Path
) -> None:
    def graphs() -> int:
        gc.collect()
        return sum(isinstance(found, FuncGraph) for found in gc.get_objects())

    trainer = make_trainer()
    train(trainer, network_values(**SHALLOW), state=tmp_path / "first", budget=1)
    before = graphs()
    train(trainer, network_values(**SHALLOW), state=tmp_path / "second", budget=1)
    assert graphs() == before


def test_a_function_is_traced_once_a_trial(
    make_trainer: MakeTrainer, network_values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[str] = []
    original = keras.Model.train_step

    def counting(self: Any, data: Any) -> Any:
        traces.append("train")
        return original(self, data)

    answers = "search_spaces.answers.AnswerForm.predictions"
    from search_spaces.answers import AnswerForm

    predictions = AnswerForm.predictions

    def counting_predictions(self: AnswerForm, output: tf.Tensor) -> Any:
        traces.append("evaluate")
        return predictions(self, output)

    monkeypatch.setattr(keras.Model, "train_step", counting)
    monkeypatch.setattr(answers, counting_predictions)
    # A short last batch must not be traced anew.
    monkeypatch.setattr("app.training.prediction_batches.PREDICTION_BATCH", 25)
    train(make_trainer(), network_values(**SHALLOW), state=tmp_path, budget=3)
    assert sorted(traces) == ["evaluate", "train"]


def test_a_space_that_builds_no_usable_model_is_refused_before_any_trial(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "useless_space.py").write_text(
        "def nothing(hp):\n    hp.Int('n', 1, 3)\n\ndef broken(hp):\n    raise KeyError('units')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpaceError, match=r"returned NoneType: expected build\(hp\) to return a keras.Model"):
        make_trainer(space="useless_space:nothing")
    with pytest.raises(SpaceError, match=r"useless_space:broken could not build a network: KeyError: 'units'"):
        make_trainer(space="useless_space:broken")


OWN_SPACES = '''
import keras


def one_hot(hp):
    model = keras.Sequential([keras.layers.Dense(hp.Int("units", 4, 16)), keras.layers.Dense(3, activation="softmax")])
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


class Subclassed(keras.Model):
    def __init__(self, units, num_outputs):
        super().__init__()
        self.head = keras.layers.Dense(num_outputs)
        self.body = keras.layers.Dense(units, activation="sigmoid")

    def call(self, inputs):
        return self.head(self.body(inputs))


def subclassed(hp):
    return Subclassed(hp.Int("units", 4, 16), 3)


def revealing(hp):
    units = hp.Int("units", 4, 16)
    model = keras.Sequential([keras.Input((hp.Fixed("width", WIDTH),)), keras.layers.Dense(units)])
    if hp.Float("rate", 0.0, 0.5) > 0.2:
        hp.Choice("batch_size", [8, 16])
        model.add(keras.layers.Dropout(hp.Float("extra", 0.1, 0.3)))
    model.add(keras.layers.Dense(3))
    return model
'''


@pytest.fixture
def own_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_trainer: MakeTrainer) -> str:
    context = make_trainer("multiclass").context(rows=100)
    width = context.num_numeric + sum(context.cardinalities)
    (tmp_path / "own_training_spaces.py").write_text(OWN_SPACES.replace("WIDTH", str(width)))
    monkeypatch.syspath_prepend(tmp_path)
    return "own_training_spaces"


@pytest.mark.parametrize("name", ["one_hot", "subclassed"])
def test_a_model_of_ones_own_trains(name: str, own_spaces: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer("multiclass", space=f"{own_spaces}:{name}")
    trained = train(trainer, {"units": 16}, state=tmp_path / name, budget=4)
    assert trained.curve[-1].scalars["train/loss"] < trained.curve[0].scalars["train/loss"]
    assert trained.curve[-1].objective < 1.2 * np.log(3)


def test_parameters_that_appear_during_a_trial_are_told(
    own_spaces: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer("multiclass", space=f"{own_spaces}:revealing")
    known = declare(trainer.space())
    assert set(known.names) == {"units", "width", "rate"}
    values = {"units": 8, "width": known["width"].fallback, "rate": 0.4}
    trained = train(trainer, values, state=tmp_path / "revealing", budget=1)
    assert {parameter.name for parameter in trained.result.new_parameters} == {"batch_size", "extra"}
