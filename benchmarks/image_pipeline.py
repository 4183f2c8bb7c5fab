"""Decoded images per second: tamiz's training batches beside a bare tf.data loop, in turns on the same bytes.

python benchmarks/image_pipeline.py [--rounds 5] [--sides 64 96 500]

Photographs are crops of the two that come with scikit-learn, 375 x 500 JPEG. The bare loop is what its user would
write: decode, resize, batch, prefetch, all in parallel. Tamiz draws rows by its own shuffled order, decodes with the
checks and the reduction of its exported graph, and brings batches to the form of a network. The time is that of all
cores together, which does not depend on what else they do.

Then a network of the space `cnn`, as a search tries first, trains on such photographs at 64 pixels, changed as a trial
changes them: what share of the time does it wait for its next batch? Images are decoded once, decoded for every batch
from bytes in memory, or read from their files and decoded for every batch. To reach: under 10 %.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measurement import machine_line
from sklearn.datasets import load_sample_images

from app.training.declaration import declare, hyperparameters
from pipelines.image_decoder import ImageDecoder
from pipelines.image_encoding import ImageEncoding, Resize
from pipelines.input_pipeline import training_batches
from pipelines.schema import Task
from search_spaces.augmentation import augment
from search_spaces.image_context import ImageContext
from search_spaces.portfolio import portfolio_of
from search_spaces.user_space import load_space

NUM_IMAGES, BATCH, SIDE = 128, 32, 64
HEIGHT, WIDTH = 375, 500
AHEAD = 2


def photographs() -> list[bytes]:
    """Returns crops as JPEG files."""
    rng, wholes = np.random.default_rng(0), load_sample_images().images
    found = []
    for number in range(NUM_IMAGES):
        whole = wholes[number % 2]
        top, left = rng.integers(0, whole.shape[0] - HEIGHT + 1), rng.integers(0, whole.shape[1] - WIDTH + 1)
        crop = whole[top : top + HEIGHT, left : left + WIDTH]
        found.append(tf.io.encode_jpeg(np.ascontiguousarray(crop), quality=90).numpy())
    return found


def bare(files: list[bytes], *, side: int, antialias: bool) -> Iterator[Any]:
    """Yields batches as a plain pipeline makes them."""

    def decode(data: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(data, channels=3)
        return tf.cast(tf.image.resize(pixels, (side, side), antialias=antialias), tf.uint8)

    dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(NUM_IMAGES).repeat()
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(AHEAD)
    return iter(dataset)


def ours(files: list[bytes], *, side: int) -> Iterator[Any]:
    """Yields batches as a trial gets them, decoded in the pipeline."""
    encoding = ImageEncoding(name="image", height=side, width=side, channels=3, resize=Resize.STRETCH, reason="")
    decode = ImageDecoder(encoding)
    columns = ({"image": tf.constant(files)}, tf.zeros((NUM_IMAGES, 1), tf.int32))

    def change(batch: Any, key: tf.Tensor) -> Any:
        del key
        return {"image": decode(batch[0]["image"])}, batch[1]

    return iter(training_batches(columns, num_rows=NUM_IMAGES, batch_size=BATCH, seed=0, change=change))


def rate(batches: Iterator[Any], *, steps: int) -> float:
    """Returns images per second of computing, after the batches that were made before anybody asked."""
    for _ in range(AHEAD + 1):
        next(batches)
    start = time.process_time()
    for _ in range(steps):
        next(batches)
    return steps * BATCH / (time.process_time() - start)


def waits(files: list[bytes], folder: Path, *, steps: int) -> dict[str, float]:
    """Returns the share of the time of a training that it waits for batches, by where its images are."""
    encoding = ImageEncoding(name="image", height=SIDE, width=SIDE, channels=3, resize=Resize.STRETCH, reason="")
    decode = ImageDecoder(encoding)
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(data)
    context = ImageContext(Task.MULTICLASS, 2, SIDE, SIDE, 3, NUM_IMAGES, 10)
    space = load_space("cnn", context)
    recipe = portfolio_of("cnn", context, seconds=600.0)[0]
    declared = declare(space)
    given = {name: recipe.get(name, declared[name].fallback) for name in declared.names}
    values = {name: value for name, value in given.items() if declared.is_active(name, given)}
    model = space.build(hyperparameters(values))
    augmented = augment(values, context)
    target = tf.constant(np.arange(NUM_IMAGES, dtype=np.int32)[:, np.newaxis] % 2)
    # Each in turn on the same network, whose step is traced once.
    step = tf.function(model.train_step, autograph=False)
    kinds: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "decoded once": (tf.constant(decode.decode_all(files, are_places=False)), lambda images: images),
        "bytes in memory": (tf.constant(files), decode),
        "files": (tf.constant([str(path) for path in paths]), decode.decode_files),
    }
    found = {}
    for kind, (images, decoded) in kinds.items():
        change = partial(_changed, decoded=decoded, augmented=augmented)
        batches = iter(
            training_batches(
                ({"image": images}, target), num_rows=NUM_IMAGES, batch_size=BATCH, seed=0, change=change
            )
        )
        for _ in range(AHEAD + 1):
            step(next(batches))
        waited, start = 0.0, time.monotonic()
        for _ in range(steps):
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            float(step(batch)["loss"])
        found[kind] = waited / (time.monotonic() - start)
    return found


def _changed(batch: Any, key: tf.Tensor, *, decoded: Callable[[Any], Any], augmented: Any) -> Any:
    features, labels = batch
    images = decoded(features["image"])
    if augmented is not None:
        images, labels = augmented(images, labels, key)
    return {"image": images}, labels


def main() -> None:
    """Measures in turns and prints medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sides", type=int, nargs="*", default=[SIDE, 96, WIDTH])
    parser.add_argument("--training-steps", type=int, default=40)
    given = parser.parse_args()
    files = photographs()
    # At the full size nothing can be skipped: the loops do the same work.
    for side in given.sides:
        pipelines = {
            "bare": partial(bare, files, side=side, antialias=True),
            "bare, not antialiased": partial(bare, files, side=side, antialias=False),
            "tamiz": partial(ours, files, side=side),
        }
        kept: dict[str, list[float]] = {name: [] for name in pipelines}
        for _ in range(given.rounds):
            for name, made in pipelines.items():
                # A pipeline that is not asked works ahead, so only one is alive at a time.
                kept[name].append(rate(made(), steps=given.steps))
        for name, values in kept.items():
            ratios = [value / other for value, other in zip(values, kept["bare"], strict=True)]
            print(
                f"{side:>4} pixels  {name:<24} {statistics.median(values):8.0f} images/s a core   "
                f"{statistics.median(ratios):5.2f} of bare",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as folder:
        for kind, share in waits(files, Path(folder), steps=given.training_steps).items():
            print(f"training on images {kind:<16} waits {share:6.1%} of the time", flush=True)
    print(machine_line())


if __name__ == "__main__":
    main()
