"""A process that trains the same networks on the same rows with plain Keras or with KerasTuner.

Started by `peer_process`; answers on a channel of JSON lines that nothing else prints to. The rows are those that
tamiz encoded for the run, in memory before the clock starts, and the space is an object of the class that tamiz
builds its networks with.

What a trial of each peer does, in wall time:
    plain          build, `model.fit` with the validation loss after every epoch; nothing is saved.
    keras-tuner    a trial of `RandomSearch` over the one configuration: the oracle's decision, build, `fit` with the
                   validation loss, KerasTuner's own saving of the weights of the best epoch and of its trial files.
    search         trials of `BayesianOptimization` with its default settings over the whole space; the batch size is
                   a hyperparameter of `HyperModel.fit`; early stopping by Keras' own callback.
Validation takes batches as large as tamiz' (Keras' default, the training batch, would be slower).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import keras
import keras_tuner
import numpy as np

from app.config import Balance
from app.evaluation.baselines import EncodedRows
from app.run_directory import RunDirectory
from app.training.declaration import hyperparameters
from app.training.trial_data import TrialData, load_trial_data
from search_spaces.context import TableContext
from search_spaces.tabular import MLPSpace

UNLIMITED = 1_000_000
VALIDATION_BATCH = 4096
"""As many rows as tamiz predicts at once."""


class Channel:
    """Lines of JSON to the process that started this one; whatever libraries print goes elsewhere."""

    def __init__(self) -> None:
        self._file: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, **content: Any) -> None:
        """Sends one object."""
        print(json.dumps(content), file=self._file, flush=True)


def log_loss(context: TableContext) -> keras.metrics.Metric:
    """Returns tamiz' log_loss as a metric of Keras: the mean of -ln p(true class) over all rows."""
    if context.num_outputs == 1:
        return keras.metrics.BinaryCrossentropy(from_logits=True, name="log_loss")
    return keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="log_loss")


class BatchedSpace(keras_tuner.HyperModel):  # type: ignore[misc]
    """A space of tamiz as a user of KerasTuner would wrap it: with a metric, and the batch size given to `fit`.

    Args:
        space: The space.
        metric: Whether `log_loss` is computed, on training and validation rows as Keras does.
    """

    def __init__(self, space: MLPSpace, *, metric: bool) -> None:
        super().__init__(name=space.name)
        self._space, self._metric = space, metric

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the network of the space."""
        model = self._space.build(hp)
        if self._metric:
            metrics = [log_loss(self._space.context)]
            model.compile(optimizer=model.optimizer, loss=model.loss, metrics=metrics, jit_compile=False)
        return model

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains `model` with the batch size that `hp` has."""
        return model.fit(*args, batch_size=hp.get("batch_size"), **kwargs)


class Peer:
    """The rows of a run and what trains on them.

    Args:
        directory: The run.
        epochs: Most epochs of a trial.
        channel: Where results go.
    """

    def __init__(self, directory: RunDirectory, *, epochs: int, channel: Channel) -> None:
        data = load_trial_data(directory, balance=Balance.NONE)
        self.context = data.context(max_epochs=epochs, num_training_rows=data.training.num_rows, num_replicas=1)
        self.space = MLPSpace(self.context)
        self._training, self._validation = _arrays(data, data.training), _arrays(data, data.validation)
        self._epochs, self._channel = epochs, channel
        self._config = directory.read_config()

    def train_plain(self, values: Mapping[str, Any]) -> float:
        """Returns the wall time of one plain training, in seconds."""
        # What an earlier repetition left behind is cleared outside the clock.
        keras.backend.clear_session()
        gc.collect()
        start = time.perf_counter()
        hp = hyperparameters(values)
        history = BatchedSpace(self.space, metric=False).fit(hp, self.space.build(hp), **self._fit_arguments())
        elapsed = time.perf_counter() - start
        _check_epochs(len(history.epoch), self._epochs)
        return elapsed

    def fixed_tuner(self, values: Mapping[str, Any], path: Path) -> keras_tuner.Tuner:
        """Returns a tuner whose space is one configuration, as often as one likes."""
        fixed = keras_tuner.HyperParameters()
        for name, value in values.items():
            fixed.Fixed(name, value)
        fixed.Float("repetition", 0.0, 1.0)
        return keras_tuner.RandomSearch(
            BatchedSpace(self.space, metric=False),
            objective=keras_tuner.Objective("val_loss", "min"),
            max_trials=0,
            hyperparameters=fixed,
            tune_new_entries=False,
            directory=path,
            project_name="fixed",
        )

    def run_one_more(self, tuner: keras_tuner.Tuner) -> float:
        """Returns the wall time of one more trial of `tuner`, in seconds."""
        tuner.oracle.max_trials += 1
        start = time.perf_counter()
        tuner.search(**self._fit_arguments())
        elapsed = time.perf_counter() - start
        if len(tuner.oracle.end_order) != tuner.oracle.max_trials:
            raise RuntimeError(f"KerasTuner ended {len(tuner.oracle.end_order)} of {tuner.oracle.max_trials} trials")
        return elapsed

    def search(self, seconds: float, path: Path) -> None:
        """Searches until `seconds` have passed, then ends the process; tells how every trial ended."""
        channel = self._channel

        class TellingTuner(keras_tuner.BayesianOptimization):  # type: ignore[misc]
            def on_trial_end(self, trial: Any) -> None:
                super().on_trial_end(trial)
                ended = self.oracle.get_trial(trial.trial_id)
                completed = ended.status == "COMPLETED" and bool(np.isfinite(ended.score))
                # Failures are told too: a peer that fails must not pass for a slow one.
                loss = float(ended.score) if completed else None
                channel.say(event="trial", status=ended.status, loss=loss, reason=str(ended.message)[-600:])

        tuner = TellingTuner(
            BatchedSpace(self.space, metric=True),
            objective=keras_tuner.Objective("val_log_loss", "min"),
            max_trials=UNLIMITED,
            seed=self._config.search.seed,
            max_consecutive_failed_trials=UNLIMITED,
            directory=path,
            project_name="search",
        )
        patience = self._config.training.patience
        stop = keras.callbacks.EarlyStopping(monitor="val_log_loss", mode="min", patience=patience)
        self._await_go()
        timer = threading.Timer(seconds, os._exit, (0,))
        timer.daemon = True
        timer.start()
        tuner.search(callbacks=[stop], **self._fit_arguments())

    def answer(self, kind: str, values: Mapping[str, Any], path: Path) -> None:
        """Runs one trial each time it is told to."""
        tuner = self.fixed_tuner(values, path) if kind == "keras-tuner" else None
        while True:
            self._await_go()
            seconds = self.train_plain(values) if tuner is None else self.run_one_more(tuner)
            self._channel.say(event="trial", seconds=seconds)

    def _await_go(self) -> None:
        self._channel.say(event="ready")
        if not sys.stdin.readline():
            sys.exit(0)

    def _fit_arguments(self) -> dict[str, Any]:
        x, y = self._training
        return {
            "x": x,
            "y": y,
            "epochs": self._epochs,
            "validation_data": self._validation,
            "validation_batch_size": VALIDATION_BATCH,
            "verbose": 0,
        }


def _arrays(data: TrialData, rows: EncodedRows) -> tuple[dict[str, Any], Any]:
    """Returns rows as Keras takes them: features by name, each in memory, and the target (num_rows, 1)."""
    present = {name: np.ascontiguousarray(array) for name, array in rows.features.items() if array.shape[1]}
    return present, data.training_target(rows)


def _check_epochs(trained: int, expected: int) -> None:
    if trained != expected:
        raise RuntimeError(f"{trained} epochs were trained: expected {expected}")


def main() -> None:
    channel = Channel()
    request = cast(dict[str, Any], json.loads(sys.argv[1]))
    directory = RunDirectory(request["directory"])
    peer = Peer(directory, epochs=request["epochs"], channel=channel)
    path = Path(request["scratch"])
    if request["kind"] == "search":
        peer.search(request["seconds"], path)
    else:
        peer.answer(request["kind"], request["values"], path)


if __name__ == "__main__":
    main()
