"""One peer on one set of images: learns from the training part within its seconds and answers for the test part.

    python image_systems.py SYSTEM REQUEST.json

The request names ``train`` and ``test`` (.npz with ``images`` (num_images, height, width, channels) uint8 and, in
``train``, ``labels`` of text), ``seconds``, ``seed`` and ``answers``, the .npz to write: ``labels`` and
``num_parameters``. Runs in the environment of its system, so nothing of tamiz is imported here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from search_clock import SearchClock

Answers = tuple[np.ndarray, list[str], int]


def learned(request: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Returns training images, class ids, classes and test images, in the seed's order."""
    train, test = np.load(request["train"]), np.load(request["test"])
    classes, ids = np.unique(train["labels"], return_inverse=True)
    order = np.random.default_rng(request["seed"]).permutation(len(ids))
    return train["images"][order], ids[order], [str(name) for name in classes], test["images"]


def kerastuner(request: Mapping[str, Any]) -> Answers:
    """KerasTuner's Hyperband over a hand-written convolutional network, as its guides write it."""
    import keras
    import keras_tuner
    from keras import layers

    images, ids, classes, test = learned(request)

    def build(hp: Any) -> Any:
        model = keras.Sequential([keras.Input(images.shape[1:]), layers.Rescaling(1 / 255)])
        for block in range(hp.Int("blocks", 1, 3)):
            filters = hp.Int(f"filters_{block}", 16, 128, step=16)
            for _ in range(hp.Int("convolutions", 1, 2)):
                model.add(layers.Conv2D(filters, hp.Choice("kernel", [3, 5]), padding="same", use_bias=False))
                model.add(layers.BatchNormalization())
                model.add(layers.ReLU())
            model.add(layers.MaxPooling2D(padding="same"))
            model.add(layers.Dropout(hp.Float("dropout", 0.0, 0.4, step=0.1)))
        model.add(layers.GlobalAveragePooling2D() if hp.Boolean("average") else layers.Flatten())
        if hp.Boolean("hidden"):
            model.add(layers.Dense(hp.Int("units", 32, 256, step=32), activation="relu"))
        model.add(layers.Dense(len(classes), activation="softmax"))
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            build,
            objective="val_accuracy",
            max_epochs=50,
            hyperband_iterations=1000,
            directory=folder,
            seed=request["seed"],
        )
        clock = SearchClock(request["seconds"])
        clock.limit(tuner.oracle)
        tuner.search(
            images,
            ids,
            validation_split=0.2,
            batch_size=64,
            callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=10), clock.callback()],
            verbose=0,
        )
        model = tuner.get_best_models(1)[0]
        return model.predict(test, verbose=0), classes, model.count_params()


def autokeras(request: Mapping[str, Any]) -> Answers:
    """AutoKeras' image classifier; no trial starts after its time, and its final training has as much again."""
    import autokeras as ak

    images, ids, classes, test = learned(request)

    with tempfile.TemporaryDirectory() as folder:
        model = ak.ImageClassifier(max_trials=100, directory=folder, seed=request["seed"], overwrite=True)
        clock = SearchClock(request["seconds"])
        clock.limit(model.tuner.oracle)
        model.fit(images, ids, callbacks=[clock.callback()], verbose=0)
        best = model.export_model()
        found = np.asarray(model.predict(test, verbose=0)).reshape(-1).astype(int)
        return np.eye(len(classes))[found], classes, best.count_params()


def resnet(request: Mapping[str, Any]) -> Answers:
    """The ResNet-20 of He et al. (2016) for small images, with shifts, Adam and a cosine over the time there is."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(request["seed"])
    images, ids, classes, test = learned(request)
    held_out = len(ids) // 5

    def block(x: Any, width: int, stride: int) -> Any:
        y = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(y))
        if stride > 1 or x.shape[-1] != width:
            x = layers.BatchNormalization()(layers.Conv2D(width, 1, stride, use_bias=False)(x))
        return layers.ReLU()(layers.Add()([x, y]))

    inputs = keras.Input(images.shape[1:])
    x = layers.RandomTranslation(0.125, 0.125, fill_mode="nearest")(layers.Rescaling(1 / 255)(inputs))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    for width in (16, 32, 64):
        for number in range(3):
            x = block(x, width, 2 if number == 0 and width > 16 else 1)
    model = keras.Model(inputs, layers.Dense(len(classes), activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.monotonic()

    class CosineInTime(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            del epoch, logs
            share = min(1.0, (time.monotonic() - start) / request["seconds"])
            self.model.optimizer.learning_rate = 1e-3 * (1.0 + float(tf.cos(np.pi * share))) + 1e-6
            self.model.stop_training = share >= 1.0

    with tempfile.TemporaryDirectory() as folder:
        best = keras.callbacks.ModelCheckpoint(
            f"{folder}/best.weights.h5", "val_accuracy", save_best_only=True, save_weights_only=True
        )
        model.fit(
            images[held_out:],
            ids[held_out:],
            validation_data=(images[:held_out], ids[:held_out]),
            epochs=200,
            batch_size=64,
            callbacks=[CosineInTime(), best],
            verbose=0,
        )
        model.load_weights(f"{folder}/best.weights.h5")
    return model.predict(test, verbose=0), classes, model.count_params()


SYSTEMS: Mapping[str, Callable[[Mapping[str, Any]], Answers]] = {
    "KerasTuner": kerastuner,
    "AutoKeras": autokeras,
    "ResNet-20": resnet,
}


def main(system: str, request_file: str) -> None:
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    values, classes, num_parameters = SYSTEMS[system](request)
    labels = np.asarray(classes, dtype=str)[np.argmax(values, axis=1)]
    np.savez(request["answers"], labels=labels, num_parameters=num_parameters)


if __name__ == "__main__":
    main(*sys.argv[1:])
