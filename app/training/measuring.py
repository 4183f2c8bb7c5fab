"""What is measured of a trial beside its objective: the model as it would be exported, further metrics (TensorFlow).

The model is measured before it is trained: neither its speed nor its size depends on its weights. So a network that
breaks a limit costs a build, not a training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import final

import keras
import numpy as np

from app.data_files import SPLIT_COLUMN, read_arrow
from app.evaluation.metrics import METRICS
from app.run_directory import RunDirectory, write_json
from app.search.limits import FLOPS, MEMORY, MODEL_MEASURES, PARAMETERS
from app.search.space import Value
from app.training.averaged_networks import AveragedNetworks
from app.training.declaration import hyperparameters
from app.training.epochs import EpochResult
from app.training.final_model import Encoders, encoded_by
from app.training.network import DEFAULT_BATCH_SIZE, forget_graphs
from app.training.trainer import Trainer
from app.training.trial_data import tensors
from pipelines.raw_columns import raw_columns
from pipelines.splits import Split
from search_spaces.context import TrainingContext
from search_spaces.network_costs import NetworkCosts, network_costs
from search_spaces.user_space import answers_logits, arrange, checked_model, input_form
from tf_serving.measure import measure_export, measure_model

MEASURES_FILE = "measures.json"


@final
class ModelMeasurer:
    """Measures the networks of one experiment.

    Args:
        trainer: Builds the networks.
        directory: The experiment.
        measures: Names among `MODEL_MEASURES`; others are left to others.
    """

    def __init__(self, trainer: Trainer, directory: RunDirectory, *, measures: Iterable[str]) -> None:
        self._trainer = trainer
        self._names = tuple(name for name in measures if name in MODEL_MEASURES)
        development = read_arrow(directory.development_file)
        validation = np.flatnonzero(development.column(SPLIT_COLUMN).to_numpy() == Split.VALIDATION)
        self._row = raw_columns(development.take(validation[:1]), trainer.data.schema)

    def measure(self, values: Mapping[str, Value], *, state: Path) -> dict[str, float]:
        """Returns the measures of the network that `values` stand for; a resumed trial has them in its state.

        Args:
            values: The active hyperparameters.
            state: Folder of the trial's state.

        Raises:
            SpaceError: The space built no usable model.
        """
        if not self._names:
            return {}
        known = state / MEASURES_FILE
        if known.is_file():
            found = {name: float(value) for name, value in json.loads(known.read_bytes()).items()}
            if set(self._names) <= set(found):
                return {name: found[name] for name in self._names}
        measured = self._measured(values, self._names)
        state.mkdir(parents=True, exist_ok=True)
        write_json(known, measured)
        return measured

    def num_parameters(self, values: Mapping[str, Value]) -> int:
        """Returns the weights of the network that `values` stand for.

        Raises:
            SpaceError: The space built no usable model.
        """
        return int(self._measured(values, [PARAMETERS])[PARAMETERS])

    def exported(self, version: Path) -> dict[str, float]:
        """Returns latency and size of an exported version."""
        return measure_export(version, row=self._row)

    def exportable(
        self, networks: AveragedNetworks, *, encoders: Encoders, measures: Collection[str]
    ) -> dict[str, float]:
        """Returns latency, size and operations, as far as asked for, of what `networks` would be exported as."""
        found = measure_model(
            lambda columns: networks.answer(encoded_by(encoders, networks.folds, columns)),
            track=[*(network.model for network in networks.networks), *encoders.values()],
            schema=self._trainer.data.schema,
            row=self._row,
            measures=tuple(measures),
        )
        if FLOPS in measures:
            models = [network.model for network in networks.networks]
            found[FLOPS] = float(sum(self._costs(model, networks.context, batch_size=1).flops for model in models))
        return found

    def _costs(self, model: keras.Model, context: TrainingContext, *, batch_size: int) -> NetworkCosts:
        example = tensors({name: array[:1] for name, array in self._trainer.data.training.features.items()})
        return network_costs(model, arrange(example, input_form(model), context), batch_size=batch_size)

    def _measured(self, values: Mapping[str, Value], names: Collection[str]) -> dict[str, float]:
        """Builds the network as the final model is, outside any distribution strategy, and measures it."""
        trainer, data = self._trainer, self._trainer.data
        context = trainer.context(rows=data.training.num_rows)
        example = tensors({name: array[:2] for name, array in data.training.features.items()})
        try:
            model, _ = checked_model(trainer.space().build(hyperparameters(values)), example=example, context=context)
            answers = data.answer_form(logits=answers_logits(model, context.task))
            form = input_form(model)
            measured = measure_model(
                lambda columns: answers.answer(model(arrange(data.encoder(columns), form, context), training=False)),
                track=[model, data.encoder],
                schema=data.schema,
                row=self._row,
                measures=tuple(names),
            )
            if PARAMETERS in names:
                measured[PARAMETERS] = float(model.count_params())
            if FLOPS in names or MEMORY in names:
                batch_size = context.global_batch(int(values.get("batch_size", DEFAULT_BATCH_SIZE)))
                costs = self._costs(model, context, batch_size=batch_size)
                measured |= {FLOPS: float(costs.flops), MEMORY: float(costs.memory_bytes)}
            return measured
        finally:
            forget_graphs()


def metric_measures(names: Iterable[str], best: EpochResult | None) -> dict[str, float]:
    """Returns the metrics among `names` at a trial's best epoch, each as a number to minimise; undefined ones not."""
    values = {} if best is None else best.scalars
    found = {name: values[f"val/{name}"] for name in names if name in METRICS and f"val/{name}" in values}
    return {name: METRICS[name].to_loss(value) for name, value in found.items() if math.isfinite(value)}
