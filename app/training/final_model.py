"""The winner: trained from scratch, saved, judged once on the sealed test rows, staged for export (TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.data_stage import read_arrow
from app.errors import WorkerError
from app.evaluation.conformal import interval_margin
from app.evaluation.metrics import mape_epsilon
from app.evaluation.predictions import Predictions
from app.run_directory import RunDirectory, read_json, write_json
from app.search.space import Value
from app.training.network import feature_specs
from app.training.trainer import Ask, Report, Trainer
from app.training.trial_data import encode_rows
from pipelines.raw_columns import raw_columns
from search_spaces.answers import AnswerForm
from search_spaces.user_space import arrange, input_form
from tf_serving.export import stage_saved_model
from tf_serving.hostile_rows import hostile_rows
from tf_serving.verify import write_cases

MAX_VERIFIED_ROWS = 2000
"""Held-out rows that the export is compared on; the hostile ones come on top."""


@final
@dataclass(frozen=True, slots=True)
class FinalModel:
    """The final network as it was saved.

    Attributes:
        trainer: Where the data and devices are.
        directory: The experiment.
        model: The network, reloaded from its file outside any distribution strategy: inside one, every replica has
            batch statistics of its own, and the predictions of the live network differ from the saved one's.
        answers: How its output becomes an answer.
    """

    trainer: Trainer
    directory: RunDirectory
    model: keras.Model
    answers: AnswerForm

    def open_test(self) -> tuple[Predictions, Mapping[str, NDArray[Any]]]:
        """Opens the sealed test rows; returns the predictions on them and their encoded features."""
        data = self.trainer.data
        rows = encode_rows(read_arrow(self.directory.test_file), data.schema, data.encoder)
        is_regression = not data.schema.target.task.is_classification
        epsilon = mape_epsilon(data.development.y.astype(np.float64)) if is_regression else 0.0
        predictions = self.trainer.predict(self.model, self.answers, rows, mape_epsilon=epsilon)
        return predictions, rows.features

    def export(self, extra_files: Mapping[str, bytes]) -> tuple[Path, Path]:
        """Stages the SavedModel, and writes raw rows with the answers that the Keras model gives on them.

        Args:
            extra_files: Name -> content of files for assets.extra.

        Returns:
            The staged version directory and the file of rows and answers.
        """
        data = self.trainer.data
        raw = raw_columns(read_arrow(self.directory.test_file), data.schema)
        learned = raw_columns(read_arrow(self.directory.development_file), data.schema)
        staged = stage_saved_model(
            lambda columns: self._answer(data.encoder(columns)),
            track=[self.model, data.encoder],
            schema=data.schema,
            directory=self.directory.exports / self.directory.read_config().name,
            # What is published with the model comes from rows that it learned from, never from the sealed ones.
            sample={name: column[:32] for name, column in learned.items()},
            extra_files=extra_files,
        )
        cases = self.directory.best / "verification.npz"
        self._write_cases(cases, {name: column[:MAX_VERIFIED_ROWS] for name, column in raw.items()})
        self._write_graph()
        return staged, cases

    def _answer(self, encoded: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        context = self.trainer.context(rows=self.trainer.data.training.num_rows)
        output = self.model(arrange(encoded, input_form(self.model), context), training=False)
        return self.answers.answer(output)

    def _write_cases(self, path: Path, held_out: Mapping[str, NDArray[Any]]) -> None:
        """Encodes outside the exported graph and asks the Keras model: the other way to the same answers (R5)."""
        hostile = hostile_rows(held_out)
        raw = {name: np.concatenate([held_out[name], hostile[name]]) for name in held_out}
        encoded = self.trainer.data.encoder.encode_in_batches(raw)
        expected = self._answer({name: tf.constant(array) for name, array in encoded.items()})
        write_cases(path, raw, {name: tensor.numpy() for name, tensor in expected.items()})

    def _write_graph(self) -> None:
        """Keeps the winner's graph for TensorBoard, without the weights and without the preprocessing around it."""
        specs = feature_specs(self.trainer.data.training.features)
        traced = tf.function(self._answer, autograph=False).get_concrete_function(specs)
        (self.directory.best / "graph.pb").write_bytes(traced.graph.as_graph_def().SerializeToString())


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
    directory.best.mkdir(exist_ok=True)
    temporary = directory.best / "partial.keras"
    model.save(temporary)
    temporary.replace(directory.model_file)
    write_json(directory.best / "answers.json", answers.to_json())
    del model
    final = load_final_model(trainer, directory)
    if answers.quantiles:
        held_out = trainer.predict(final.model, answers, trainer.data.validation)
        final = replace(final, answers=replace(answers, interval_margin=interval_margin(held_out)))
        write_json(directory.best / "answers.json", final.answers.to_json())
    return final, trained


def load_final_model(trainer: Trainer, directory: RunDirectory) -> FinalModel:
    """Loads the saved network, in Keras' safe mode.

    Raises:
        WorkerError: It was not saved, or cannot be loaded.
    """
    answers = AnswerForm.from_json(read_json(directory.best / "answers.json"))
    try:
        model = keras.models.load_model(directory.model_file, safe_mode=True, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise WorkerError(
            f"cannot load {directory.model_file}: {error}; a model of your own has to be one that Keras can save and "
            f"load (custom layers registered with keras.saving.register_keras_serializable, no Lambda)"
        ) from error
    return FinalModel(trainer, directory, model, answers)
