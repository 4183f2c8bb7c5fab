"""Networks that answer together: the weighted average of what each of them answers (TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.evaluation.ensemble import combine
from app.evaluation.temperature import LEAST_PROBABILITY
from pipelines.schema import Task
from search_spaces.answers import AnswerForm
from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext
from search_spaces.user_space import arrange, input_form

Encoded = dict[str, tf.Tensor]
Encodings = Mapping[int, Mapping[str, Any]]
"""Fold (0 for all rows) -> the same rows, encoded as its networks read them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedNetwork:
    """A trained network and its share of the answer.

    Attributes:
        model: The network.
        answers: How its output becomes an answer.
        file: Where it is saved, relative to the folder of the final model.
        trial: The trial whose hyperparameters it has.
        weight: Its share of the average; the shares of all networks sum to 1.
        fold: The fold whose encoding it reads, from 1; 0 for the encoding of all rows.
    """

    model: keras.Model
    answers: AnswerForm
    file: str
    trial: int
    weight: float = 1.0
    fold: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AveragedNetworks:
    """One answer from several networks on the same rows.

    Probabilities are averaged, never logits; the label follows from the average; then the temperature is applied.

    Attributes:
        networks: At least one.
        temperature: Of the averaged probabilities, above 0; 1 leaves them as they are.
        context: How a network takes the encoded table.
    """

    networks: tuple[WeightedNetwork, ...]
    temperature: float
    context: TableContext | ImageContext

    @property
    def answers(self) -> AnswerForm:
        """How averages get their names; all networks have the same task and classes."""
        return self.networks[0].answers

    @property
    def num_parameters(self) -> int:
        """Weights of all networks, trainable or not."""
        return sum(int(network.model.count_params()) for network in self.networks)

    @property
    def folds(self) -> tuple[int, ...]:
        """The encodings that the networks read."""
        return tuple(sorted({network.fold for network in self.networks}))

    def answer(self, encodings: Encodings) -> Encoded:
        """Returns the named outputs of the exported model (R4) for encoded features, each ``(batch, ...)``."""
        parts = [self._predictions(network, encodings[network.fold]) for network in self.networks]
        if len(parts) == 1 and self.temperature == 1.0:
            return self.answers.named(parts[0])
        return self.answers.named(self._averaged(parts))

    def expected(self, encodings: Encodings) -> dict[str, NDArray[Any]]:
        """Returns what `answer` has to come to, averaged in NumPy from each network's own answers."""
        predicted = self.predicted(encodings)
        named = self.answers.named({name: tf.constant(array) for name, array in predicted.items()})
        return {name: tensor.numpy() for name, tensor in named.items()}

    def distances(self, encodings: Encodings) -> dict[str, NDArray[Any]]:
        """Returns how far each row's text is from another one, in probability; nothing where probabilities say it.

        A label of weighted classes is not that of the largest probability, and each of several labels has a border of
        its own: rounding, which differs from batch to batch, may choose either side of it.
        """
        form = self.answers
        if form.task is Task.MULTILABEL:
            away = np.abs(self.predicted(encodings)["probabilities"] - 0.5)
            return {name: away[:, place] for place, name in enumerate(form.outputs)}
        if not form.class_weights:
            return {}
        # The label is chosen before the temperature is applied.
        scores = replace(self, temperature=1.0).predicted(encodings)["probabilities"] * np.asarray(form.class_weights)
        best = np.sort(scores / scores.sum(axis=1, keepdims=True), axis=1)
        return {"label": best[:, -1] - best[:, -2]}

    def predicted(self, encodings: Encodings) -> dict[str, NDArray[Any]]:
        """Returns ``probabilities`` and ``label_ids``, or ``values``, averaged in NumPy.

        Args:
            encodings: Encoded features by kind, each ``(num_rows, ...)``, as every network reads them.
        """
        tensors = {
            fold: {name: tf.constant(array) for name, array in encodings[fold].items()} for fold in self.folds
        }
        parts = [
            {name: tensor.numpy() for name, tensor in self._predictions(network, tensors[network.fold]).items()}
            for network in self.networks
        ]
        if len(parts) == 1 and self.temperature == 1.0:
            return parts[0]
        combined = combine(
            parts,
            [network.weight for network in self.networks],
            temperature=self.temperature,
            class_weights=self.answers.class_weights,
        )
        return {name: array.astype(np.int32 if name == "label_ids" else np.float32) for name, array in combined.items()}

    def _predictions(self, network: WeightedNetwork, encoded: Mapping[str, tf.Tensor]) -> Encoded:
        inputs = arrange(dict(encoded), input_form(network.model), self.context)
        return network.answers.predictions(network.model(inputs, training=False))

    def _averaged(self, parts: list[Encoded]) -> Encoded:
        weights = [network.weight for network in self.networks]
        averaged = {
            name: tf.add_n([weight * part[name] for weight, part in zip(weights, parts, strict=True)])
            for name in parts[0]
            if name != "label_ids"
        }
        if "probabilities" in averaged:
            mean = averaged["probabilities"]
            asked = self.answers.class_weights
            scores = mean * tf.constant([asked], tf.float32) if asked else mean
            averaged["label_ids"] = tf.argmax(scores, axis=-1, output_type=tf.int32)
            if self.temperature != 1.0:
                logs = tf.math.log(tf.maximum(mean, LEAST_PROBABILITY))
                averaged["probabilities"] = tf.nn.softmax(logs / self.temperature, axis=-1)
        return averaged
