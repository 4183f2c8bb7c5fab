"""Two trials trained, averaged, saved, loaded and exported: the numbers are the same everywhere."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.ensemble_file import read_ensemble
from app.evaluation.temperature import tempered
from app.execution.messages import EnsembleMember, EnsembleSaved, SaveEnsemble
from app.run_directory import RunDirectory
from app.search.space import Float, Space
from app.training.kept_predictions import kept_predictions
from pipelines.raw_columns import raw_columns

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
def train(experiments: Any, make_trainer: Any, network_values: Any) -> Callable[[str], Trained]:
    from app.execution.ensemble_builder import EnsembleBuilder
    from app.training.final_model import train_final_model
    from app.training.measuring import ModelMeasurer
    from app.training.trainer import Verdict

    def trained(task: str) -> Trained:
        trainer, directory = make_trainer(task), experiments(task).directory
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
def binary(train: Callable[[str], Trained]) -> Trained:
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


def test_a_loaded_model_is_the_saved_one(binary: Trained, saved: tuple[Any, EnsembleSaved]) -> None:
    from app.training.final_model import load_final_model

    rows = binary.trainer.data.validation.features
    loaded = load_final_model(binary.trainer, binary.directory)
    assert loaded.saved == saved[0].saved == read_ensemble(binary.directory)
    for one, other in ((loaded.exported, saved[0].exported), (loaded.single, saved[0].single)):
        answered = [networks.predicted({0: rows})["probabilities"] for networks in (one, other)]
        np.testing.assert_allclose(*answered)
    tested, _, single = loaded.open_test()
    assert single is not None
    assert tested.num_rows == single.num_rows
    assert not np.array_equal(tested.probabilities, single.probabilities)


def test_what_there_is_no_time_for_and_what_is_damaged_is_left_out(
    train: Callable[[str], Trained], tmp_path: Path
) -> None:
    trained = train("regression")
    builder = trained.builder()
    _, told = builder.build(trained.request(WEIGHTS, deadline=0.0), trained.final)
    assert told.trials == (0,)
    damaged = trained.directory.trial_state(1) / "best"
    damaged.rename(tmp_path / "best")
    damaged.write_bytes(b"no state")
    _, told = builder.build(trained.request(WEIGHTS), trained.final)
    assert told.trials == (0,)
    (tmp_path / "best").replace(damaged)
    final, told = builder.build(trained.request(WEIGHTS, temperature=1.0), trained.final)
    assert told.trials == (0, 1)
    rows = trained.trainer.data.validation.features
    parts = [of_file(trained, file)["values"] for file in ("model.keras", "members/0001.keras")]
    values = final.exported.predicted({0: rows})["values"]
    np.testing.assert_allclose(values, 0.75 * parts[0] + 0.25 * parts[1], rtol=1e-6)
    alone, told = builder.build(trained.request({}), trained.final)
    assert (told.trials, told.num_networks) == ((), 1)
    assert alone.exported is alone.single
    assert not trained.directory.members.exists()


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
