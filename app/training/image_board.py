"""What TensorBoard shows of a search on images: training pictures, mistakes, where the winner looks (TensorFlow).

All of it is of the winner as the search left it, on the validation images, which it has not learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from app.data_files import SPLIT_COLUMN, read_arrow
from app.run_directory import RunDirectory
from app.training.network import Network
from app.training.prediction_batches import batches_of, prediction_batch
from app.training.trainer import Trainer
from app.training.trial_data import tensors
from pipelines.image_files import PATH_COLUMN
from pipelines.splits import Split
from search_spaces.context import TableContext
from search_spaces.user_space import arrange, input_form

Pixels = NDArray[np.uint8]

NUM_PICTURES = 16
NUM_EMBEDDED = 1_000
"""Images in the projector; one sprite of all of them has to fit into a browser."""

SMALLEST_SIDE = 96
"""Small pictures are shown in whole multiples of their pixels, at least this large."""

SPRITE_SIDE = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Validation images and what the winner answers.

    Attributes:
        images: (num_images, height, width, channels) uint8.
        labels: Class of each, (num_images,).
        probabilities: (num_images, num_classes).
        seen: What the last layer is given, (num_images, num_features).
        paths: Where each image came from.
    """

    images: Pixels
    labels: NDArray[np.integer]
    probabilities: NDArray[np.floating]
    seen: NDArray[np.floating]
    paths: Sequence[str]


def write_image_board(trainer: Trainer, network: Network, directory: RunDirectory) -> None:
    """Writes pictures, confusion, mistakes, Grad-CAM, filters and embeddings beside the final model's scalars.

    Args:
        trainer: Where the data is.
        network: The winner, as the search left it.
        directory: The experiment.
    """
    writer = tf.summary.create_file_writer(str(directory.best), filename_suffix=".images")
    with writer.as_default(step=0):
        tf.summary.image("training/after augmentation", _shown(training_pictures(network)), max_outputs=NUM_PICTURES)
        filters = first_filters(network.model)
        if filters is not None:
            tf.summary.image("network/first filters", _shown(filters), max_outputs=NUM_PICTURES)
        classes = trainer.data.schema.target.classes
        if classes and not trainer.data.schema.target.columns:
            judged = _judged(trainer, network, directory)
            table = confusion(judged.labels, judged.probabilities)
            tf.summary.image("validation/confusion", _shown(_heat(table / np.maximum(table.sum(1, keepdims=True), 1))))
            tf.summary.text("validation/confusion table", confusion_text(table, classes))
            worst = worst_mistakes(judged.labels, judged.probabilities)[:NUM_PICTURES]
            if len(worst):
                tf.summary.image("validation/worst mistakes", _shown(judged.images[worst]), max_outputs=NUM_PICTURES)
            tf.summary.text("validation/table of mistakes", mistakes_text(judged, worst, classes))
            chosen = np.unique(np.linspace(0, len(judged.images) - 1, NUM_PICTURES).astype(np.intp))
            looked = grad_cam(network.model, judged.images[chosen], judged.labels[chosen])
            if looked is not None:
                tf.summary.image("validation/Grad-CAM", _shown(looked), max_outputs=NUM_PICTURES)
            write_projector(judged, classes, directory.best)
    writer.close()


def training_pictures(network: Network) -> Pixels:
    """Returns the first pictures of a training as the network gets them, ``(num, height, width, channels)``."""
    features = network.first_batch()[0]
    image = features["image"] if isinstance(features, dict) else features
    found: Pixels = np.clip(image[:NUM_PICTURES].numpy(), 0, 255).astype(np.uint8)
    return found


def confusion(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Returns how many images of each class (rows) were taken for each (columns)."""
    num_classes = probabilities.shape[1]
    pairs = labels.astype(np.int64) * num_classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_text(table: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Returns a confusion as a table in Markdown."""
    lines = [["truth \\ answer", *classes], ["---"] * (len(classes) + 1)]
    lines += [[f"**{name}**", *map(str, row)] for name, row in zip(classes, table.tolist(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def worst_mistakes(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
    """Returns the wrong answers, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def mistakes_text(judged: Judged, worst: NDArray[np.intp], classes: Sequence[str]) -> str:
    """Returns mistakes as a table in Markdown: image, truth and answer with their probabilities."""
    if not len(worst):
        return f"No mistake in {len(judged.labels):,} validation images."
    lines = ["| image | truth | answer |", "| --- | --- | --- |"]
    for row in worst:
        told = judged.probabilities[row]
        truth, answer = int(judged.labels[row]), int(told.argmax())
        lines.append(
            f"| {judged.paths[row]} | {classes[truth]} ({told[truth]:.1%}) | {classes[answer]} ({told[answer]:.1%}) |"
        )
    return "\n".join(lines)


def grad_cam(model: keras.Model, images: Pixels, labels: NDArray[np.integer]) -> Pixels | None:
    """Returns images with the places that speak for their class in red; None where the network has no feature map.

    Selvaraju et al., "Grad-CAM", ICCV 2017: the last feature map, weighted by the mean gradient of the class score.
    """
    maps = [layer for layer in model.layers if len(getattr(getattr(layer, "output", None), "shape", ())) == 4]
    if len(model.inputs) != 1 or not maps or maps[-1].output.shape[1] in (None, 1):
        return None
    seeing = keras.Model(model.inputs, [maps[-1].output, model.output])
    with tf.GradientTape() as tape:
        features, scores = seeing([tf.cast(images, model.inputs[0].dtype)], training=False)
        width = scores.shape[-1]
        rows = tf.range(len(images))
        ids = tf.constant(labels.astype(np.int32))
        # Two classes share one score, which speaks for the second.
        chosen = tf.gather_nd(scores, tf.stack([rows, ids], 1)) if width > 1 else (
            scores[:, 0] * tf.cast(2 * ids - 1, scores.dtype)
        )
    gradients = tape.gradient(chosen, features)
    if gradients is None:
        return None
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    seen = tf.nn.relu(tf.reduce_sum(tf.cast(weights * features, tf.float32), axis=-1, keepdims=True))
    seen /= tf.reduce_max(seen, axis=(1, 2), keepdims=True) + 1e-8
    heat = tf.image.resize(seen, images.shape[1:3]).numpy()
    grey = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    red = np.array([255.0, 40.0, 0.0])
    found: Pixels = np.clip(grey * (1 - 0.6 * heat) + 0.6 * heat * red, 0, 255).astype(np.uint8)
    return found


def first_filters(model: keras.Model) -> Pixels | None:
    """Returns the kernels of the first convolution as pictures, ``(num_filters, height, width, 1 or 3)``."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.asarray(layer.kernel, np.float32).transpose(3, 0, 1, 2)
            kernel = kernel if kernel.shape[-1] == 3 else kernel.mean(axis=-1, keepdims=True)
            low, high = kernel.min(axis=(1, 2, 3), keepdims=True), kernel.max(axis=(1, 2, 3), keepdims=True)
            scaled: Pixels = (255 * (kernel - low) / np.maximum(high - low, 1e-8)).astype(np.uint8)
            return scaled
    return None


def write_projector(judged: Judged, classes: Sequence[str], folder: Path) -> None:
    """Writes what the last layer is given of each image, for TensorBoard's projector, with a sprite of the images."""
    chosen = np.unique(np.linspace(0, len(judged.images) - 1, NUM_EMBEDDED).astype(np.intp))[:NUM_EMBEDDED]
    np.savetxt(folder / "embedding.tsv", judged.seen[chosen], delimiter="\t", fmt="%.5g")
    # A tab or the end of a line within a name would be one of the table.
    told = [(judged.paths[row], classes[int(judged.labels[row])]) for row in chosen]
    rows = ["\t".join(" ".join(name.split()) for name in names) for names in told]
    (folder / "embedding_labels.tsv").write_text("\n".join(["image\tclass", *rows]) + "\n", encoding="utf-8")
    small = tf.image.resize(judged.images[chosen], (SPRITE_SIDE, SPRITE_SIDE), antialias=True)
    small = tf.saturate_cast(tf.round(small), tf.uint8).numpy()
    side = int(np.ceil(np.sqrt(len(chosen))))
    sprite = np.zeros((side * side, *small.shape[1:]), np.uint8)
    sprite[: len(small)] = small
    sprite = sprite.reshape(side, side, SPRITE_SIDE, SPRITE_SIDE, -1).swapaxes(1, 2)
    sprite = sprite.reshape(side * SPRITE_SIDE, side * SPRITE_SIDE, -1)
    (folder / "embedding.png").write_bytes(tf.io.encode_png(sprite).numpy())
    (folder / "projector_config.pbtxt").write_text(
        'embeddings {\n  tensor_name: "before the last layer"\n  tensor_path: "embedding.tsv"\n'
        '  metadata_path: "embedding_labels.tsv"\n'
        f'  sprite {{ image_path: "embedding.png" single_image_dim: {SPRITE_SIDE} '
        f"single_image_dim: {SPRITE_SIDE} }}\n}}\n",
        encoding="utf-8",
    )


def _judged(trainer: Trainer, network: Network, directory: RunDirectory) -> Judged:
    """Answers up to `NUM_EMBEDDED` validation images."""
    context = trainer.context(rows=trainer.data.training.num_rows)
    if isinstance(context, TableContext):
        raise TypeError("expected images, received a table")
    rows = trainer.data.validation
    kept = np.unique(np.linspace(0, rows.num_rows - 1, NUM_EMBEDDED).astype(np.intp))[:NUM_EMBEDDED]
    rows = rows.take(kept)
    table = read_arrow(directory.development_file)
    validation = np.flatnonzero(table.column(SPLIT_COLUMN).to_numpy() == Split.VALIDATION)[kept]
    model, form = network.model, input_form(network.model)
    last = model.layers[-1]
    before = keras.Model(model.inputs, [last.input, model.output])
    seen, probabilities, images = [], [], []
    for batch in batches_of(tensors(rows.features), rows.num_rows, size=prediction_batch(context)):
        pixels = trainer.data.decoded(batch)
        inputs, output = before(arrange(pixels, form, context), training=False)
        seen.append(np.asarray(inputs, np.float32).reshape(len(inputs), -1))
        probabilities.append(network.answers.predictions(output)["probabilities"].numpy())
        images.append(pixels["image"].numpy())
    return Judged(
        images=np.concatenate(images),
        labels=rows.y.astype(np.int64),
        probabilities=np.concatenate(probabilities),
        seen=np.concatenate(seen),
        paths=table.column(PATH_COLUMN).take(pa.array(validation)).to_pylist(),
    )


def _heat(shares: NDArray[np.floating]) -> Pixels:
    """Returns a picture of a table of shares, ``(1, rows, columns, 1)``; 1 is black."""
    picture: Pixels = (255 * (1 - shares)).astype(np.uint8)[np.newaxis, ..., np.newaxis]
    return picture


def _shown(images: Pixels) -> Pixels:
    """Returns pictures in a whole multiple of their size, so that a few pixels can be seen."""
    factor = max(1, -(-SMALLEST_SIDE // max(images.shape[1:3])))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)
