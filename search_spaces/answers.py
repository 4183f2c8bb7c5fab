"""From a network's raw output to the answer a person reads: probabilities and labels, or values in the user's units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import tensorflow as tf

from pipelines.schema import Task
from search_spaces.quantiles import middle_of, rising


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """How the raw output of a network becomes an answer.

    Training with class weights ``w`` fits the posterior of a population in which class ``c`` is ``w_c`` times as
    frequent. The label is the winner of that reweighted posterior, which is what the weights ask for; the
    probabilities have the weights divided out again (Elkan, 2001, theorem 2), so that they stay calibrated.

    Attributes:
        task: What is predicted.
        classes: Class labels in the order of the class ids; empty for regression.
        logits: Whether the network's output is logits rather than probabilities.
        class_weights: Weight of every class in the loss; empty when all weigh the same.
        target_mean: Mean of the training target, in the user's units; regression only, one a target where there are
            several.
        target_scale: Standard deviation of the training target, in the user's units; likewise.
        outputs: Names of the targets where there are several; they name the answers.
        label_values: What each label is called when it does not hold and when it does; several labels only.
        quantiles: Levels of a quantile regression, rising; empty for any other.
        interval_margin: What the interval between the outermost quantiles is widened by on either side, in the user's
            units; below 0 it is narrowed.
    """

    task: Task
    classes: tuple[str, ...] = ()
    logits: bool = True
    class_weights: tuple[float, ...] = ()
    target_mean: float | tuple[float, ...] = 0.0
    target_scale: float | tuple[float, ...] = 1.0
    outputs: tuple[str, ...] = ()
    label_values: tuple[tuple[str, str], ...] = ()
    quantiles: tuple[float, ...] = ()
    interval_margin: float = 0.0

    def scores(self, output: tf.Tensor) -> tf.Tensor:
        """Returns one score a class ``(batch, num_classes)``: log-probabilities up to a constant of the row.

        Args:
            output: Raw output of the network, ``(batch, num_classes)``, or ``(batch, 1)`` for two classes.
        """
        output = tf.cast(output, tf.float32)
        if not self.logits:
            output = tf.clip_by_value(output, 1e-7, 1.0)
            if output.shape[-1] == 1:
                output = tf.concat([1.0 - tf.minimum(output, 1.0 - 1e-7), output], axis=-1)
            return tf.math.log(output)
        if output.shape[-1] == 1:
            return tf.concat([tf.zeros_like(output), output], axis=-1)
        return output

    def predictions(self, output: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what metrics are computed from.

        Args:
            output: Raw output of the network, ``(batch, width)``.

        Returns:
            Classification: ``probabilities`` (batch, num_classes) float32 and ``label_ids`` (batch,) int32.
            Several labels: ``probabilities`` (batch, num_labels), each by itself, and ``label_ids`` likewise, 0 or 1.
            Regression: ``values`` (batch,) float32 in the user's units, (batch, num_targets) of several targets; of
            quantiles ``values`` is the middle one, and ``quantiles`` (batch, num_quantiles) rises.
        """
        if not self.task.is_classification:
            return self._values(tf.cast(output, tf.float32))
        if self.task is Task.MULTILABEL:
            logits = tf.cast(output, tf.float32)
            probabilities = tf.sigmoid(logits) if self.logits else logits
            return {"probabilities": probabilities, "label_ids": tf.cast(probabilities > 0.5, tf.int32)}
        scores = self.scores(output)
        label_ids = tf.argmax(scores, axis=-1, output_type=tf.int32)
        if self.class_weights:
            scores = scores - tf.math.log(tf.constant([self.class_weights], tf.float32))
        return {"probabilities": tf.nn.softmax(scores, axis=-1), "label_ids": label_ids}

    def _values(self, output: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the values of a regression in the user's units."""
        if not self.quantiles:
            standardised = output if self.outputs else tf.reshape(output, (-1,))
            return {"values": standardised * tf.constant(self.target_scale) + tf.constant(self.target_mean)}
        standardised = rising(output, self.quantiles) if self.logits else tf.sort(output, axis=-1)
        found = standardised * tf.constant(self.target_scale) + tf.constant(self.target_mean)
        middle = found[:, middle_of(self.quantiles)]
        if self.interval_margin:
            # The margin may be negative: no end passes its neighbour.
            low = tf.minimum(found[:, :1] - self.interval_margin, found[:, 1:2])
            high = tf.maximum(found[:, -1:] + self.interval_margin, found[:, -2:-1])
            found = tf.concat([low, found[:, 1:-1], high], axis=1)
        return {"values": middle, "quantiles": found}

    def _interval(self, quantiles: tf.Tensor | None) -> dict[str, tf.Tensor]:
        if quantiles is None:
            return {}
        ends = {"lower": quantiles[:, 0], "upper": quantiles[:, -1]}
        return ends if len(self.quantiles) == 3 else {**ends, "quantiles": quantiles}

    def answer(self, output: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the named outputs of the exported model (R4).

        Args:
            output: Raw output of the network, ``(batch, width)``.

        Returns:
            Classification: ``probabilities`` (batch, num_classes) float32 and ``label`` (batch,) string.
            Several labels: ``probabilities`` (batch, num_labels), and every label by its name, (batch,) string.
            Regression: ``prediction`` (batch,) float32 in the user's units; every target by its name where there are
            several; of quantiles also ``lower`` and ``upper`` (batch,), and ``quantiles`` where there are more.
        """
        return self.named(self.predictions(output))

    def named(self, predicted: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the named outputs of the exported model for what `predictions` returned, or an average of it."""
        if self.task is Task.MULTILABEL:
            ids = predicted["label_ids"]
            named = zip(self.outputs, self.label_values, strict=True)
            found = {name: tf.gather(tf.constant(pair), ids[:, k]) for k, (name, pair) in enumerate(named)}
            return {"probabilities": predicted["probabilities"], **found}
        if not self.task.is_classification:
            if self.outputs:
                return {name: predicted["values"][:, k] for k, name in enumerate(self.outputs)}
            return {"prediction": predicted["values"], **self._interval(predicted.get("quantiles"))}
        label = tf.gather(tf.constant(self.classes, tf.string), predicted["label_ids"])
        return {"probabilities": predicted["probabilities"], "label": label}

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return {
            "task": self.task.value,
            "classes": list(self.classes),
            "logits": self.logits,
            "class_weights": list(self.class_weights),
            "target_mean": _listed(self.target_mean),
            "target_scale": _listed(self.target_scale),
            "outputs": list(self.outputs),
            "label_values": [list(pair) for pair in self.label_values],
            "quantiles": list(self.quantiles),
            "interval_margin": self.interval_margin,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuilds what `to_json` wrote."""
        values = dict(record)
        values["task"] = Task(values["task"])
        for name in ("classes", "class_weights", "outputs", "quantiles"):
            values[name] = tuple(values.get(name, ()))
        values["label_values"] = tuple((str(no), str(yes)) for no, yes in values.get("label_values", ()))
        for name in ("target_mean", "target_scale"):
            values[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
        return cls(**values)


def _listed(value: float | tuple[float, ...]) -> float | list[float]:
    return list(value) if isinstance(value, tuple) else value
