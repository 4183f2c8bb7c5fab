"""The winner, and what is exported: trained from scratch, saved, judged once on the sealed test rows (TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.data_files import read_arrow
from app.ensemble_file import SavedEnsemble, read_ensemble
from app.errors import WorkerError
from app.evaluation.baselines import EncodedRows
from app.evaluation.conformal import interval_margin
from app.evaluation.metrics import mape_epsilon
from app.evaluation.pixel_features import with_pixel_features
from app.evaluation.predictions import Predictions
from app.run_directory import RunDirectory, read_json, write_json
from app.search.space import Value
from app.training.averaged_networks import AveragedNetworks, Encodings, WeightedNetwork
from app.training.epochs import Ask, Report
from app.training.fold_data import fold_state_file
from app.training.fold_encoder import FoldEncoder
from app.training.prediction_batches import as_predictions, feature_specs, prediction_batch
from app.training.trainer import Trainer
from app.training.trial_data import encode_rows, tensors
from app.training.trial_network import network_of_trial
from pipelines.encoder import Encoder
from pipelines.preprocessing import PreprocessingState
from pipelines.raw_columns import raw_columns
from search_spaces.answers import AnswerForm
from tf_serving.export import PixelAnswer, stage_saved_model
from tf_serving.hostile_rows import hostile_rows
from tf_serving.verify import write_cases

Encoders = Mapping[int, Encoder | FoldEncoder]

MAX_VERIFIED_ROWS = 2000
"""Held-out rows that the export is compared on; the hostile ones come on top. Fewer of large images."""

SAMPLE_ROWS = 32
"""Rows of the warm-up requests."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FinalModel:
    """What the experiment came to.

    Attributes:
        trainer: Where the data and devices are.
        directory: The experiment.
        single: The winner, trained on all rows and reloaded from its file outside any distribution strategy: inside
            one, every replica has batch statistics of its own, and the predictions of the live network differ from
            the saved one's.
        exported: What is tested and exported: the winner alone, or several networks.
        saved: What the file says that this was loaded from.
        encoders: Fold, 0 for all rows -> what its networks read raw rows by.
    """

    trainer: Trainer
    directory: RunDirectory
    single: AveragedNetworks
    exported: AveragedNetworks
    saved: SavedEnsemble
    encoders: Encoders

    def open_test(self) -> tuple[Predictions, Mapping[str, NDArray[Any]], Predictions | None]:
        """Opens the sealed test rows.

        Returns:
            The predictions on them, their encoded features, and the winner's own predictions if it is not all there is.
        """
        data = self.trainer.data
        table = read_arrow(self.directory.test_file)
        rows = encode_rows(table, data.schema, data.encoder)
        encodings: dict[int, Mapping[str, Any]] = {}
        if any(self.exported.folds):
            encodings |= self._encoded(raw_columns(table, data.schema))
        encodings[0] = rows.features
        # The coordinator makes baselines of them, which need few numbers of an image.
        features = with_pixel_features(rows).features
        predicted = _predictions_on(self.exported, rows, encodings=encodings, trainer=self.trainer)
        if self.exported is self.single:
            return predicted, features, None
        return predicted, features, _predictions_on(self.single, rows, encodings=encodings, trainer=self.trainer)

    def export(self, extra_files: Mapping[str, bytes]) -> tuple[Path, Path]:
        """Stages the SavedModel, and writes raw rows with the answers that the Keras models give on them.

        Args:
            extra_files: Name -> content of files for assets.extra.

        Returns:
            The staged version directory and the file of rows and answers.
        """
        data = self.trainer.data
        most = min(MAX_VERIFIED_ROWS, prediction_batch(self.exported.context))
        raw = raw_columns(read_arrow(self.directory.test_file).slice(0, most), data.schema)
        learned = raw_columns(read_arrow(self.directory.development_file).slice(0, SAMPLE_ROWS), data.schema)
        staged = stage_saved_model(
            self._answer,
            track=[*(network.model for network in self.exported.networks), *self.encoders.values()],
            schema=data.schema,
            directory=self.directory.exports / self.directory.read_config().name,
            # What is published with the model comes from rows that it learned from, never from the sealed ones.
            sample=learned,
            extra_files=extra_files,
            pixels=self._pixels(),
        )
        cases = self.directory.best / "verification.npz"
        self._write_cases(cases, raw)
        self._write_graph()
        return staged, cases

    def _answer(self, columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns what is exported: the answers to raw columns, in the graph."""
        encodings = encoded_by(self.encoders, self.exported.folds, columns)
        return self._answer_encoded(encodings) if self.trainer.data.encoder.images else self.exported.answer(encodings)

    def _pixels(self) -> PixelAnswer | None:
        """Returns what takes images decoded."""
        for name, decoder in self.trainer.data.encoder.images.items():
            shape = (decoder.encoding.height, decoder.encoding.width, decoder.encoding.channels)
            return PixelAnswer(answer=partial(self._answer_pixels, name=name), column=name, shape=shape)
        return None

    def _answer_pixels(self, columns: Mapping[str, tf.Tensor], *, name: str) -> dict[str, tf.Tensor]:
        others = {column: tensor for column, tensor in columns.items() if column != name}
        encodings = encoded_by(self.encoders, self.exported.folds, others) if others else {0: {}}
        return self._answer_encoded({fold: {**encoded, "image": columns[name]} for fold, encoded in encodings.items()})

    def _answer_encoded(self, encodings: Mapping[int, Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        # A convolution of no images answers in a wrong shape on a CPU with oneDNN, so there is always one.
        num_rows = tf.shape(encodings[0]["image"])[0]
        padded = {fold: {name: _with_a_row(array) for name, array in encodings[fold].items()} for fold in encodings}
        return {name: array[:num_rows] for name, array in self.exported.answer(padded).items()}

    def _write_cases(self, path: Path, held_out: Mapping[str, NDArray[Any]]) -> None:
        """Encodes outside the exported graph, asks each Keras model and averages in NumPy: the other way (R5)."""
        hostile = hostile_rows(held_out, images=tuple(self.trainer.data.encoder.images))
        raw = {name: np.concatenate([held_out[name], hostile[name]]) for name in held_out}
        encoded = self._encoded(raw)
        write_cases(path, raw, self.exported.expected(encoded), distances=self.exported.distances(encoded))

    def _encoded(self, raw: Mapping[str, NDArray[Any]]) -> dict[int, dict[str, NDArray[Any]]]:
        return {fold: self.encoders[fold].encode_in_batches(raw) for fold in self.exported.folds}

    def _write_graph(self) -> None:
        """Keeps the winner's graph for TensorBoard, without the weights and without the preprocessing around it."""
        specs = feature_specs(self.trainer.data.training.features)
        data = self.trainer.data
        traced = tf.function(lambda encoded: self.single.answer({0: data.decoded(encoded)}), autograph=False)
        graph = traced.get_concrete_function(specs).graph.as_graph_def()
        (self.directory.best / "graph.pb").write_bytes(graph.SerializeToString())


def _with_a_row(array: tf.Tensor) -> tf.Tensor:
    """Returns a batch of rows; one of zeros where there is none."""
    missing = tf.cast(tf.equal(tf.shape(array)[0], 0), tf.int32)
    padded = tf.pad(array, [[0, missing], *([0, 0] for _ in array.shape[1:])])
    return tf.ensure_shape(padded, (None, *array.shape[1:]))


def encoded_by(
    encoders: Encoders, folds: Sequence[int], columns: Mapping[str, tf.Tensor]
) -> dict[int, dict[str, tf.Tensor]]:
    """Returns raw columns as the networks of each of `folds` read them, in the graph."""
    return {fold: encoders[fold](columns) for fold in folds}


def _predictions_on(
    networks: AveragedNetworks, rows: EncodedRows, *, encodings: Encodings, trainer: Trainer
) -> Predictions:
    parts = []
    size = prediction_batch(networks.context)
    for start in range(0, rows.num_rows, size):
        trainer.data.encoder.alive()
        batch = slice(start, start + size)
        taken = {
            fold: trainer.data.decoded(tensors({name: array[batch] for name, array in encodings[fold].items()}))
            for fold in networks.folds
        }
        parts.append(networks.predicted(taken))
    learned = trainer.data.development.y
    epsilon = 0.0 if networks.answers.task.is_classification else mape_epsilon(learned.astype(np.float64))
    return as_predictions(parts, rows, networks.answers, epsilon)


def train_final_model(
    trainer: Trainer,
    directory: RunDirectory,
    *,
    values: Mapping[str, Value],
    epochs: int,
    seed: int,
    report: Report,
    ask: Ask,
) -> tuple[FinalModel, int]:
    """Trains the winner from scratch, saves it and reloads it.

    Args:
        trainer: Where the data and devices are.
        directory: The experiment.
        values: The winner's hyperparameters.
        epochs: Epochs to train.
        seed: Seed of weights, dropout and data order.
        report: Receives every epoch.
        ask: Says whether to go on.

    Returns:
        The reloaded model and the epochs trained.
    """
    model, answers, trained = trainer.train_final(values, epochs=epochs, seed=seed, report=report, ask=ask)
    return _saved(trainer, directory, model, answers=answers), trained


def final_model_of_trial(
    trainer: Trainer, directory: RunDirectory, *, values: Mapping[str, Value], state: Path
) -> FinalModel:
    """Saves the network that a trial came to as the final model, and reloads it.

    Args:
        trainer: Where the data and devices are.
        directory: The experiment.
        values: The trial's hyperparameters.
        state: Folder of its state.

    Raises:
        CheckpointError: Its weights are damaged.
        FileNotFoundError: They were not kept.
    """
    network = network_of_trial(trainer, trainer.part, values=values, state=state)
    return _saved(trainer, directory, network.model, answers=network.answers)


def _saved(trainer: Trainer, directory: RunDirectory, model: keras.Model, *, answers: AnswerForm) -> FinalModel:
    save_network(model, directory.model_file)
    write_json(directory.best / "answers.json", answers.to_json())
    del model
    final = load_final_model(trainer, directory)
    if answers.quantiles:
        (network,) = final.single.networks
        held_out = trainer.predict(network.model, answers, trainer.data.validation)
        network = replace(network, answers=replace(answers, interval_margin=interval_margin(held_out)))
        write_json(directory.best / "answers.json", network.answers.to_json())
        single = replace(final.single, networks=(network,))
        final = replace(final, single=single, exported=single)
    return final


def load_final_model(trainer: Trainer, directory: RunDirectory) -> FinalModel:
    """Loads the saved networks, in Keras' safe mode.

    Raises:
        WorkerError: One was not saved, or cannot be loaded.
    """
    told = read_ensemble(directory)
    single = averaged(
        trainer,
        [
            WeightedNetwork(
                model=load_network(directory.model_file),
                answers=AnswerForm.from_json(read_json(directory.best / "answers.json")),
                file=directory.model_file.name,
                trial=told.winner,
            )
        ],
        temperature=told.single_temperature,
    )
    if not told.networks:
        return FinalModel(
            trainer=trainer,
            directory=directory,
            single=single,
            exported=single,
            saved=told,
            encoders={0: trainer.data.encoder},
        )
    networks = [
        replace(
            single.networks[0],
            weight=told_network.weight,
            # The intervals of an ensemble are not widened by what those of the winner alone are.
            answers=AnswerForm.from_json(told_network.answers),
        )
        if told_network.file == directory.model_file.name
        else WeightedNetwork(
            model=load_network(directory.best / told_network.file),
            answers=AnswerForm.from_json(told_network.answers),
            file=told_network.file,
            trial=told_network.trial,
            weight=told_network.weight,
            fold=told_network.fold,
        )
        for told_network in told.networks
    ]
    exported = averaged(trainer, networks, temperature=told.temperature)
    return FinalModel(
        trainer=trainer,
        directory=directory,
        single=single,
        exported=exported,
        saved=told,
        encoders=encoders_of(trainer, directory, folds=exported.folds),
    )


def encoders_of(trainer: Trainer, directory: RunDirectory, *, folds: Sequence[int]) -> Encoders:
    """Returns the encoders that the networks of `folds` read raw rows by, and that of all rows."""
    data = trainer.data
    found: dict[int, Encoder | FoldEncoder] = {0: data.encoder}
    for fold in folds:
        if fold:
            state = PreprocessingState.from_json(read_json(fold_state_file(directory, fold)))
            found[fold] = FoldEncoder(state, data.state, alive=data.encoder.alive)
    return found


def averaged(trainer: Trainer, networks: Sequence[WeightedNetwork], *, temperature: float) -> AveragedNetworks:
    """Returns networks as one answer."""
    context = trainer.context(rows=trainer.data.training.num_rows)
    return AveragedNetworks(networks=tuple(networks), temperature=temperature, context=context)


def save_network(model: keras.Model, path: Path) -> None:
    """Saves a network; the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("partial.keras")
    model.save(temporary)
    temporary.replace(path)


def load_network(path: Path) -> keras.Model:
    """Loads a saved network, in Keras' safe mode.

    Raises:
        WorkerError: It was not saved, or cannot be loaded.
    """
    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise WorkerError(
            f"cannot load {path}: {error}; a model of your own has to be one that Keras can save and "
            f"load (custom layers registered with keras.saving.register_keras_serializable, no Lambda)"
        ) from error
