"""The rows that trials train and select on, encoded once for a whole experiment (TensorFlow).

The sealed test rows are in a file of their own that nothing here opens (R6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from app.data_files import FOLD_COLUMN, SPLIT_COLUMN, read_arrow
from app.encoded_rows import load_encoded, save_encoded
from app.evaluation.baselines import EncodedRows
from app.image_config import ImageCache, ImageConfig
from app.run_directory import RunDirectory, read_json
from app.training.class_balance import ClassBalance, class_balance
from app.training.image_data import ImageFacts, decoded, encode_with_images, encoded_images, image_facts
from app.training.stored_encoding import encode_stored, is_dealt, split_stored
from pipelines.balance import Balance
from pipelines.encoder import Encoder
from pipelines.preprocessing import PreprocessingState, TrainingMeans
from pipelines.raw_columns import encode_target, raw_columns
from pipelines.row_weights import row_weights
from pipelines.schema import DatasetSchema
from pipelines.splits import Split
from search_spaces.answers import AnswerForm
from search_spaces.context import TableContext
from search_spaces.image_context import ImageContext


@dataclass(frozen=True, slots=True)
class TrialData:
    """What every trial of an experiment works on.

    Attributes:
        schema: The columns.
        encoder: Raw columns -> encoded features, in the graph.
        training: Training rows.
        validation: Rows that select.
        balance: How classes are balanced.
        target_mean: Mean of the training target; 0 for classification.
        target_scale: Standard deviation of the training target; 1 for classification.
        weight_scale: What weights of rows are multiplied by in the loss, so that a training row counts 1 on average.
        images: What is known of the training images; None without images.
        stored: Training and validation rows, one after the other, of a table that stays on disk; None in memory.
        backbone: File that networks for images begin with; empty for none.
    """

    schema: DatasetSchema
    state: PreprocessingState
    encoder: Encoder
    training: EncodedRows
    validation: EncodedRows
    balance: ClassBalance
    target_mean: float | tuple[float, ...]
    target_scale: float | tuple[float, ...]
    weight_scale: float = 1.0
    images: ImageFacts | None = None
    stored: EncodedRows | None = None
    backbone: str = ""

    @property
    def development(self) -> EncodedRows:
        """Training and validation rows together."""
        if self.stored is not None:
            return self.stored
        both = (self.training, self.validation)
        return EncodedRows(
            numeric=np.concatenate([rows.numeric for rows in both]),
            categorical=np.concatenate([rows.categorical for rows in both]),
            y=np.concatenate([rows.y for rows in both]),
            weights=None if self.training.weights is None else np.concatenate([rows.weights for rows in both]),
            images=None if self.training.images is None else np.concatenate([rows.images for rows in both]),
        )

    def context(
        self, *, max_epochs: int, num_training_rows: int, num_replicas: int, judged_by_labels: bool = False
    ) -> TableContext | ImageContext:
        """Returns what a space has to know."""
        target = self.schema.target
        if self.images is not None:
            facts = {field.name: getattr(self.images, field.name) for field in fields(self.images)}
            return ImageContext(
                task=target.task,
                num_classes=len(target.classes),
                num_training_rows=num_training_rows,
                max_epochs=max_epochs,
                num_replicas=num_replicas,
                judged_by_labels=judged_by_labels,
                searches_balance=self.balance.kind is Balance.SEARCH,
                num_targets=len(target.names),
                quantiles=target.quantiles,
                class_counts=self._class_counts(),
                num_numeric=len(self.state.numeric_names),
                cardinalities=tuple(self.state.cardinalities),
                backbone=self.backbone,
                **facts,
            )
        return TableContext(
            task=target.task,
            num_classes=len(target.classes),
            num_numeric=len(self.state.numeric_names),
            cardinalities=tuple(self.state.cardinalities),
            num_training_rows=num_training_rows,
            max_epochs=max_epochs,
            num_replicas=num_replicas,
            num_targets=len(target.names),
            quantiles=target.quantiles,
            judged_by_labels=judged_by_labels,
            searches_balance=self.balance.kind is Balance.SEARCH,
        )

    def _class_counts(self) -> tuple[int, ...]:
        target = self.schema.target
        if target.columns or not target.classes:
            return ()
        return tuple(map(int, np.bincount(self.training.y.astype(np.intp), minlength=len(target.classes))))

    def decoded(self, features: dict[str, Any]) -> dict[str, Any]:
        """Returns encoded features with their images as pixels, where these are kept encoded; in the graph."""
        return decoded(features, self.encoder)

    def answer_form(self, *, logits: bool, balance: Balance | None = None) -> AnswerForm:
        """Returns how a network's raw output becomes an answer.

        Args:
            logits: Whether the output is logits.
            balance: How classes were balanced for the network; None for the one way of all networks.
        """
        target = self.schema.target
        return AnswerForm(
            task=target.task,
            classes=target.classes,
            logits=logits,
            class_weights=self.balance.asked(balance or self.balance.kind),
            target_mean=self.target_mean,
            target_scale=self.target_scale,
            outputs=target.columns,
            label_values=target.label_values,
            quantiles=target.quantiles,
        )

    def training_target(self, rows: EncodedRows) -> NDArray[Any]:
        """Returns the target as a loss takes it, ``(num_rows, num_targets)``: class ids, or standardised values."""
        if self.schema.target.task.is_classification:
            return rows.y.reshape(len(rows.y), -1).astype(np.int32)
        centred = rows.y.astype(np.float64) - np.asarray(self.target_mean)
        standardised: NDArray[Any] = centred / np.asarray(self.target_scale)
        return standardised.astype(np.float32).reshape(len(rows.y), -1)

    def row_weights(self, rows: EncodedRows, *, balance: Balance | None = None) -> NDArray[np.float32] | None:
        """Returns the weight of every row in the training loss ``(num_rows,)``, or None when all weigh the same.

        Args:
            rows: The rows.
            balance: How classes are balanced for the network; None for the one way of all networks.
        """
        given, weights = self.given_weights(rows), self.balance.row_weights(rows, balance or self.balance.kind)
        if weights is None:
            return given
        return weights if given is None else weights * given

    def given_weights(self, rows: EncodedRows) -> NDArray[np.float32] | None:
        """Returns what the user's weights say of every row ``(num_rows,)``, 1 on average, or None without them."""
        if rows.weights is None:
            return None
        scaled: NDArray[np.float32] = (rows.weights.astype(np.float64) * self.weight_scale).astype(np.float32)
        return scaled


def load_trial_data(
    directory: RunDirectory,
    *,
    balance: Balance,
    images: ImageConfig | None = None,
    alive: Callable[[], None] = lambda: None,
) -> TrialData:
    """Opens an experiment's rows, encoding them if no worker did so before (R5).

    Args:
        directory: The experiment.
        balance: How classes are balanced.
        images: How images are kept and may be changed; None for the usual.
        alive: Called again and again while rows are encoded, now or later.

    Raises:
        TamizError: An image cannot be decoded.
    """
    images = images or ImageConfig()
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    state = PreprocessingState.from_json(read_json(directory.preprocessing_file))
    encoder = Encoder(state, alive=alive)
    table = read_arrow(directory.development_file)
    splits = table.column(SPLIT_COLUMN).to_numpy()
    # Where folds judge the trials, the state was learned from all rows that are not sealed.
    learned = np.ones(len(splits), bool) if FOLD_COLUMN in table.column_names else splits == Split.TRAIN
    if is_dealt(table):
        rows = encode_stored(table, schema, encoder, folder=directory.encoded)
        training, validation = split_stored(rows, table)
    else:
        rows = encode_rows(
            table, schema, encoder, cache=directory.encoded, learned=learned, image_cache=images.cache
        )
        training, validation = (rows.take(np.flatnonzero(splits == part)) for part in (Split.TRAIN, Split.VALIDATION))
    mean, scale = target_moments(schema, training)
    return TrialData(
        schema=schema,
        state=state,
        encoder=encoder,
        training=training,
        validation=validation,
        balance=class_balance(schema, training, balance),
        target_mean=mean,
        target_scale=scale,
        weight_scale=1.0 if training.weights is None else 1.0 / float(training.weights.mean()),
        images=image_facts(encoder, training, mirror=images.mirror, classes=schema.target.classes),
        stored=rows if is_dealt(table) else None,
        backbone=directory.backbone_file,
    )


Moment = float | tuple[float, ...]

_PART_ROWS = 1 << 16


def target_moments(schema: DatasetSchema, rows: EncodedRows) -> tuple[Moment, Moment]:
    """Returns mean and standard deviation of a target, by which a regression standardises it; 0 and 1 for classes.

    Several targets have one each.
    """
    if schema.target.task.is_classification:
        return 0.0, 1.0
    target = rows.y.astype(np.float64)
    if schema.target.columns:
        means = np.average(target, axis=0, weights=rows.weights)
        deviations = np.sqrt(np.average((target - means) ** 2, axis=0, weights=rows.weights))
        return tuple(map(float, means)), tuple(float(one) or 1.0 for one in deviations)
    mean = float(np.average(target, weights=rows.weights))
    return mean, float(np.sqrt(np.average((target - mean) ** 2, weights=rows.weights))) or 1.0


def encode_rows(
    table: pa.Table,
    schema: DatasetSchema,
    encoder: Encoder,
    *,
    cache: Path | None = None,
    learned: NDArray[np.bool_] | None = None,
    image_cache: ImageCache = ImageCache.AUTO,
) -> EncodedRows:
    """Encodes a table that has its target.

    Args:
        table: The rows.
        schema: The columns.
        encoder: Raw columns -> encoded features.
        cache: Folder that keeps the arrays for the next worker; None encodes anew.
        learned: Mask of the rows that the encoder learned from, whose mean targets are those of other rows; None for
            none of them.
        image_cache: Whether images are decoded now or stay encoded.

    Raises:
        TamizError: An image cannot be decoded.
    """
    if cache is not None and cache.is_dir():
        rows = load_encoded(cache)
        if encoder.images and rows.images is None:
            rows = replace(rows, images=encoded_images(table, encoder))
        return rows
    if encoder.images:
        features = encode_with_images(table, schema, encoder, cache=image_cache)
    else:
        features = _encoded_in_parts(table, schema, encoder)
    if learned is not None and encoder.state.targets:
        TrainingMeans(table, schema, encoder.state, learned=learned).write(features["numeric"], table)
    rows = EncodedRows(
        numeric=features["numeric"],
        categorical=features["categorical"],
        y=encode_target(table, schema.target),
        weights=None if schema.weight is None else row_weights(table, schema.weight),
        images=features.get("image"),
    )
    if cache is not None:
        save_encoded(rows, cache)
    return rows


def _encoded_in_parts(table: pa.Table, schema: DatasetSchema, encoder: Encoder) -> dict[str, NDArray[Any]]:
    """Encodes a table a part at a time: text as Python's objects takes several times the room that Arrow needs."""
    starts = range(0, max(table.num_rows, 1), _PART_ROWS)
    parts = [encoder.encode_in_batches(raw_columns(table.slice(start, _PART_ROWS), schema)) for start in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def tensors(features: Mapping[str, NDArray[Any]]) -> dict[str, tf.Tensor]:
    """Returns encoded features as tensors."""
    return {name: tf.constant(array) for name, array in features.items()}
