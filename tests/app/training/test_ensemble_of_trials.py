"""Two trials trained, averaged, saved, loaded and exported: the numbers are the same everywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from app.ensemble_file import read_ensemble
from app.ensemble_stage import compose
from app.evaluation.conformal import interval_margin
from app.evaluation.predictions import Predictions
from app.evaluation.temperature import tempered
from app.execution.messages import EnsembleMember, EnsembleSaved, EpochEnded, SaveEnsemble, TrialEnded
from app.goals import read_limit
from app.run_directory import RunDirectory, read_json, write_json
from app.search.space import Float, Space
from app.search.trial import Completed, Suggestion
from app.search_progress import Search
from app.search_record import SearchRecord
from app.time_budget import TimeBudget
from app.training.kept_predictions import keep_predictions, kept_predictions
from app.view import ConsoleView
from pipelines.raw_columns import raw_columns
from pipelines.schema import Task

# Keras' own, on NumPy 2; module fixtures save networks too.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

KNOWN = Space([Float("x", 0.0, 1.0)])
WEIGHTS = {0: 0.75, 1: 0.25}
TEMPERATURE = 1.7


@dataclasses.dataclass
class Trained:
    """An experiment with the states of two trials and a final model."""

    trainer: Any
    directory: Any
    values: dict[int, dict[str, Any]]
    final: Any
    builder: Callable[[], Any]

    def final_of(self, state: Path) -> Any:
        """The network of a trial as the final model."""
        from app.training.final_model import final_model_of_trial

        return final_model_of_trial(self.trainer, self.directory, values=self.values[0], state=state)

    def request(self, weights: dict[int, float], **changes: Any) -> SaveEnsemble:
        members = tuple(
            EnsembleMember(trial=trial, hyperparameters=self.values[trial], weight=weight)
            for trial, weight in weights.items()
        )
        asked = SaveEnsemble(
            members=members, winner=0, temperature=TEMPERATURE, single_temperature=0.8, deadline=math.inf
        )
        return dataclasses.replace(asked, **changes)


@pytest.fixture(scope="module")
def train(experiments: Any, make_trainer: Any, network_values: Any) -> Callable[..., Trained]:
    from app.execution.ensemble_builder import EnsembleBuilder
    from app.training.epochs import Verdict
    from app.training.final_model import train_final_model
    from app.training.measuring import ModelMeasurer

    def trained(task: str, **kind: Any) -> Trained:
        trainer, directory = make_trainer(task, **kind), experiments(task, **kind).directory
        values = {
            number: network_values(depth=1, residual=None, width=width) for number, width in enumerate((8, 12))
        }
        settings: dict[str, Any] = {"report": lambda _: None, "ask": lambda: Verdict.GO_ON}
        for number, value in values.items():
            state = directory.trial_state(number)
            trainer.train_trial(value, known=KNOWN, budget=2, seed=number, state=state, **settings)
        final, _ = train_final_model(trainer, directory, values=values[0], epochs=2, seed=5, **settings)
        measurer = ModelMeasurer(trainer, directory, measures=())

        def builder() -> EnsembleBuilder:
            return EnsembleBuilder(trainer, [trainer.part], directory=directory, measurer=measurer)

        return Trained(trainer, directory, values, final, builder)

    return trained


@pytest.fixture(scope="module")
def binary(train: Callable[..., Trained]) -> Trained:
    return train("binary")


@pytest.fixture(scope="module")
def saved(binary: Trained) -> tuple[Any, EnsembleSaved]:
    final, told = binary.builder().build(binary.request(WEIGHTS, measure=("latency_ms",)), binary.final)
    return final, told


def of_file(trained: Trained, file: str) -> Any:
    """What a saved network alone answers on the validation rows."""
    from app.training.averaged_networks import WeightedNetwork
    from app.training.final_model import averaged, load_network

    model, answers = load_network(trained.directory.best / file), trained.final.single.answers
    network = WeightedNetwork(model=model, answers=answers, file=file, trial=0)
    alone = averaged(trained.trainer, [network], temperature=1.0)
    return alone.predicted({0: trained.trainer.data.validation.features})


def test_the_answer_is_the_weighted_average_of_the_saved_networks(
    binary: Trained, saved: tuple[Any, EnsembleSaved]
) -> None:
    final, told = saved
    assert (told.trials, told.num_networks) == ((0, 1), 2)
    assert [(network.trial, network.file) for network in final.saved.networks] == [
        (0, "model.keras"),
        (1, "members/0001.keras"),
    ]
    assert told.measures["num_parameters"] == told.num_parameters
    assert told.measures["latency_ms"] > 0
    parts = [of_file(binary, "model.keras"), of_file(binary, "members/0001.keras")]
    mean = 0.75 * parts[0]["probabilities"] + 0.25 * parts[1]["probabilities"]
    found = final.exported.predicted({0: binary.trainer.data.validation.features})
    np.testing.assert_allclose(found["probabilities"], tempered(mean, TEMPERATURE), atol=1e-6)
    np.testing.assert_array_equal(found["label_ids"], mean.argmax(axis=1))
    alone = final.single.predicted({0: binary.trainer.data.validation.features})
    np.testing.assert_allclose(alone["probabilities"], tempered(parts[0]["probabilities"], 0.8), atol=1e-6)


@pytest.mark.usefixtures("saved")
def test_a_member_answers_what_its_trial_kept(binary: Trained) -> None:
    kept = kept_predictions(binary.directory.trial_state(1))
    assert kept is not None
    np.testing.assert_allclose(of_file(binary, "members/0001.keras")["probabilities"], kept.probabilities, atol=1e-5)


def test_the_exported_graph_answers_what_the_networks_come_to(
    binary: Trained, saved: tuple[Any, EnsembleSaved]
) -> None:
    import tensorflow as tf

    from app.data_files import read_arrow
    from tf_serving.signatures import call_signature

    final, data = saved[0], binary.trainer.data
    staged, cases = final.export({})
    assert cases.is_file()
    raw = raw_columns(read_arrow(binary.directory.test_file), data.schema)
    signature = tf.saved_model.load(str(staged)).signatures["serving_default"]
    tensors = {
        name: tf.constant(column, tf.string if column.dtype == object else tf.float32) for name, column in raw.items()
    }
    answered = call_signature(signature, tensors)
    expected = final.exported.expected({0: data.encoder.encode_in_batches(raw)})
    np.testing.assert_allclose(answered["probabilities"].numpy(), expected["probabilities"], atol=1e-5)
    assert answered["label"].numpy().tolist() == expected["label"].tolist()


def test_a_loaded_model_is_the_saved_one(
    binary: Trained, saved: tuple[Any, EnsembleSaved], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.training.final_model import load_final_model

    rows = binary.trainer.data.validation.features
    loaded = load_final_model(binary.trainer, binary.directory)
    assert loaded.saved == saved[0].saved == read_ensemble(binary.directory)
    for one, other in ((loaded.exported, saved[0].exported), (loaded.single, saved[0].single)):
        answered = [networks.predicted({0: rows})["probabilities"] for networks in (one, other)]
        np.testing.assert_allclose(*answered)
    signs_of_life: list[int] = []
    monkeypatch.setattr(binary.trainer.data.encoder, "alive", lambda: signs_of_life.append(1))
    tested, _, single = loaded.open_test()
    # A batch that is encoded, and one that each of the two answers.
    assert len(signs_of_life) == 3
    assert single is not None
    assert tested.num_rows == single.num_rows
    assert not np.array_equal(tested.probabilities, single.probabilities)


def test_what_there_is_no_time_for_and_what_is_damaged_is_left_out(
    train: Callable[..., Trained], tmp_path: Path
) -> None:
    trained = train("regression")
    builder = trained.builder()
    _, told = builder.build(trained.request(WEIGHTS, deadline=0.0), trained.final)
    assert (told.trials, told.broken) == ((0,), ())
    damaged = trained.directory.trial_state(1) / "best"
    damaged.rename(tmp_path / "best")
    damaged.write_bytes(b"no state")
    _, told = builder.build(trained.request(WEIGHTS), trained.final)
    assert (told.trials, told.broken) == ((0,), (1,))
    (tmp_path / "best").replace(damaged)
    final, told = builder.build(trained.request(WEIGHTS, temperature=1.0), trained.final)
    assert (told.trials, told.broken) == ((0, 1), ())
    rows = trained.trainer.data.validation.features
    parts = [of_file(trained, file)["values"] for file in ("model.keras", "members/0001.keras")]
    values = final.exported.predicted({0: rows})["values"]
    np.testing.assert_allclose(values, 0.75 * parts[0] + 0.25 * parts[1], rtol=1e-6)
    alone, told = builder.build(trained.request({}), trained.final)
    assert (told.trials, told.num_networks) == ((), 1)
    assert alone.exported is alone.single
    assert not trained.directory.members.exists()


def test_intervals_of_an_average_are_widened_by_what_the_average_needs(train: Callable[..., Trained]) -> None:
    import tensorflow as tf

    from app.data_files import read_arrow
    from app.training.final_model import load_final_model
    from tf_serving.signatures import call_signature

    trained = train("regression", levels=(0.1, 0.5, 0.9))
    rows = trained.trainer.data.validation
    kept: list[Any] = [kept_predictions(trained.directory.trial_state(trial)) for trial in WEIGHTS]
    mean = np.sum([weight * part.quantiles for weight, part in zip(WEIGHTS.values(), kept, strict=True)], axis=0)
    found = Predictions(task=Task.REGRESSION, y=rows.y, values=mean[:, 1], quantiles=mean, levels=(0.1, 0.5, 0.9))
    margin = interval_margin(found)
    # The winner's own network of the search, as it is exported under quantiles.
    state = trained.directory.trial_state(0)
    final = trained.final_of(state)
    own = final.single.networks[0].answers.interval_margin
    assert own not in (0.0, margin)
    saved, _ = trained.builder().build(trained.request(WEIGHTS, temperature=1.0, interval_margin=margin), final)
    quantiles = saved.exported.predicted({0: rows.features})["quantiles"]
    np.testing.assert_allclose(quantiles[:, 1], mean[:, 1], rtol=1e-5)
    np.testing.assert_allclose(quantiles[:, [0, 2]], mean[:, [0, 2]] + [-margin, margin], rtol=1e-5)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert np.mean((rows.y >= quantiles[:, 0]) & (rows.y <= quantiles[:, 2])) >= 0.8
    loaded = load_final_model(trained.trainer, trained.directory)
    assert {network.answers.interval_margin for network in loaded.exported.networks} == {margin}
    assert loaded.single.networks[0].answers.interval_margin == own
    raw = raw_columns(read_arrow(trained.directory.test_file), trained.trainer.data.schema)
    signature = tf.saved_model.load(str(loaded.export({})[0])).signatures["serving_default"]
    tensors = {
        name: tf.constant(column, tf.string if column.dtype == object else tf.float32) for name, column in raw.items()
    }
    answered = call_signature(signature, tensors)
    expected = loaded.exported.expected({0: trained.trainer.data.encoder.encode_in_batches(raw)})
    for name in ("lower", "prediction", "upper"):
        np.testing.assert_allclose(answered[name].numpy(), expected[name], rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_class_weights_choose_the_label_of_an_average(binary: Trained, temperature: float) -> None:
    import tensorflow as tf

    from app.training.averaged_networks import AveragedNetworks

    network = dataclasses.replace(
        binary.final.single.networks[0],
        answers=dataclasses.replace(binary.final.single.answers, class_weights=(0.3, 2.0)),
        weight=0.5,
    )
    both = AveragedNetworks(
        networks=(network, network), temperature=temperature, context=binary.final.single.context
    )
    rows = binary.trainer.data.validation.features
    answer = both.answer({0: {name: tf.constant(array) for name, array in rows.items()}})
    expected = both.expected({0: rows})
    np.testing.assert_allclose(answer["probabilities"].numpy(), expected["probabilities"], atol=1e-6)
    assert answer["label"].numpy().tolist() == expected["label"].tolist()
    most_probable = np.asarray(network.answers.classes)[expected["probabilities"].argmax(axis=1)]
    assert (expected["label"].astype(str) != most_probable).any()


def test_a_trial_itself_can_be_the_final_model(binary: Trained, tmp_path: Path) -> None:
    from app.training.final_model import final_model_of_trial

    directory = RunDirectory(Path(shutil.copytree(binary.directory.path, tmp_path / "run")))
    shutil.rmtree(directory.best)
    final = final_model_of_trial(
        binary.trainer, directory, values=binary.values[1], state=directory.trial_state(1)
    )
    kept = kept_predictions(directory.trial_state(1))
    assert kept is not None
    predicted = final.exported.predicted({0: binary.trainer.data.validation.features})
    np.testing.assert_allclose(predicted["probabilities"], kept.probabilities, atol=1e-5)
    assert directory.model_file.is_file()


@pytest.mark.parametrize("task", ["numbers", "labels"])
def test_a_member_of_a_pack_with_several_targets_is_exported(
    task: str, experiments: Any, make_trainer: Any, network_values: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    from app.data_files import read_arrow
    from app.training.final_model import final_model_of_trial
    from app.training.packing.live import PackMember
    from app.training.packing.pack import PackTrainer
    from tf_serving.signatures import call_signature

    trainer = make_trainer(task)
    directory = RunDirectory(Path(shutil.copytree(experiments(task).directory.path, tmp_path / "run")))
    label = {"label_smoothing": None} if task == "numbers" else {}
    values = [network_values(width=width, **label) for width in (8, 16)]
    members = [
        PackMember(number=n, values=v, known=KNOWN, budget=2, seed=n, state=directory.trial_state(n))
        for n, v in enumerate(values)
    ]
    PackTrainer(trainer, seed=3).train(members, report=lambda *_: None, ended=lambda _: None, ask=set)
    final = final_model_of_trial(trainer, directory, values=values[1], state=directory.trial_state(1))
    staged, _ = final.export({})
    raw = raw_columns(read_arrow(directory.test_file), trainer.data.schema)
    signature = tf.saved_model.load(str(staged)).signatures["serving_default"]
    tensors = {
        name: tf.constant(column, tf.string if column.dtype == object else tf.float32) for name, column in raw.items()
    }
    answered = call_signature(signature, tensors)
    expected = final.exported.expected({0: trainer.data.encoder.encode_in_batches(raw)})
    assert {"outcome", "other"} <= set(answered)
    assert set(answered) == set(expected)
    for name, values_of in expected.items():
        if values_of.dtype.kind == "f":
            np.testing.assert_allclose(answered[name].numpy(), values_of, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            assert answered[name].numpy().tolist() == values_of.tolist()


class BuildingExecutor:
    """Builds and measures what is asked for here, in this process."""

    def __init__(self, trained: Trained, directory: RunDirectory) -> None:
        from app.execution.ensemble_builder import EnsembleBuilder
        from app.training.measuring import ModelMeasurer

        measurer = ModelMeasurer(trained.trainer, directory, measures=())
        self._final = trained.final
        self._builder = EnsembleBuilder(
            trained.trainer, [trained.trainer.part], directory=directory, measurer=measurer
        )

    def call(self, request: Any, *, on_epoch: Any = None) -> Any:
        del on_epoch
        return self._builder.build(request, self._final)[1]


@pytest.mark.parametrize(
    ("limit", "networks", "says"),
    [
        ("latency_ms<=60000", 2, "2 trials answer together: validation log_loss"),
        ("latency_ms<=0.0001", 1, "over the limit latency <= 0.0001 ms: the winner, trial 0, answers alone."),
    ],
)
def test_the_latency_of_what_is_exported_is_measured_and_kept(
    binary: Trained, tmp_path: Path, limit: str, networks: int, says: str
) -> None:
    trained = dataclasses.replace(
        binary, directory=RunDirectory(Path(shutil.copytree(binary.directory.path, tmp_path / "run")))
    )
    with contextlib.closing(judged(trained, limit=limit)) as record:
        shown = io.StringIO()
        compose(
            trained.directory,
            trained.directory.read_config(),
            executor=BuildingExecutor(trained, trained.directory),
            record=record,
            budget=TimeBudget(end=math.inf, finishing=0.0),
            view=ConsoleView(Console(file=shown, width=400)),
        )
        decided = record.progress.stages["ensemble"]
    assert says in shown.getvalue()
    assert decided["networks"] == networks
    assert len(read_ensemble(trained.directory).networks) == (networks if networks > 1 else 0)


def judged(trained: Trained, *, limit: str) -> SearchRecord:
    """The record of a search of both trials, which err independently of each other on the validation rows."""
    rows, rng = trained.trainer.data.validation, np.random.default_rng(0)
    manifest = read_json(trained.directory.manifest_file)
    manifest["data"].pop("folds")  # these trials were judged by one part of the rows
    write_json(trained.directory.manifest_file, manifest)
    record = SearchRecord(trained.directory, started=time.time())
    search = Search(
        algorithm="random", reason="", objective="log_loss", max_epochs=9, seed=3, max_trials=None,
        limits=(read_limit(limit),),
    )  # fmt: skip
    record.begin(search, KNOWN)
    for trial, values in trained.values.items():
        positive = 1.0 / (1.0 + np.exp(-3.0 * (rows.y - 0.5) - rng.normal(0.0, 2.0 + 0.01 * trial, len(rows.y))))
        probabilities = np.stack([1.0 - positive, positive], axis=1)
        predictions = Predictions(task=Task.BINARY, y=rows.y, probabilities=probabilities)
        keep_predictions(trained.directory.trial_state(trial), predictions, class_weights=())
        loss = 0.5 + 0.01 * trial
        record.started(Suggestion(trial, values, 0, 9))
        record.epoch_ended(EpochEnded(trial=trial, epoch=1, loss=loss, scalars={}, wall_time=1e9))
        record.trial_ended(TrialEnded(trial=trial, outcome=Completed(loss), num_parameters=100, seconds=1.0))
    record.stage_done("search", reason="all trials are done", winner=0)
    return record
