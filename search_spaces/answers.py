"""From a network's raw output to the answer a person reads: probabilities and labels, or values in the user's units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import tensorflow as tf

from pipelines.schema import Task


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
        target_mean: Mean of the training target, in the user's units; regression only.
        target_scale: Standard deviation of the training target, in the user's units; regression only.
    """

    task: Task
    classes: tuple[str, ...] = ()
    logits: bool = True
    class_weights: tuple[float, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0

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
            Regression: ``values`` (batch,) float32 in the user's units.
        """
        if not self.task.is_classification:
            standardised = tf.reshape(tf.cast(output, tf.float32), (-1,))
            return {"values": standardised * self.target_scale + self.target_mean}
        scores = self.scores(output)
        label_ids = tf.argmax(scores, axis=-1, output_type=tf.int32)
        if self.class_weights:
            scores = scores - tf.math.log(tf.constant([self.class_weights], tf.float32))
        return {"probabilities": tf.nn.softmax(scores, axis=-1), "label_ids": label_ids}

    def answer(self, output: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the named outputs of the exported model (R4).

        Args:
            output: Raw output of the network, ``(batch, width)``.

        Returns:
            Classification: ``probabilities`` (batch, num_classes) float32 and ``label`` (batch,) string.
            Regression: ``prediction`` (batch,) float32 in the user's units.
        """
        predicted = self.predictions(output)
        if not self.task.is_classification:
            return {"prediction": predicted["values"]}
        label = tf.gather(tf.constant(self.classes, tf.string), predicted["label_ids"])
        return {"probabilities": predicted["probabilities"], "label": label}

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return {
            "task": self.task.value,
            "classes": list(self.classes),
            "logits": self.logits,
            "class_weights": list(self.class_weights),
            "target_mean": self.target_mean,
            "target_scale": self.target_scale,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuilds what `to_json` wrote."""
        values = dict(record)
        values["task"] = Task(values["task"])
        for name in ("classes", "class_weights"):
            values[name] = tuple(values[name])
        return cls(**values)
