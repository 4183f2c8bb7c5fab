from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task
from tf_serving.verify import VerificationProcess

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

Columns = dict[str, Any]
CLASSES = ("Adelie", "Chinstrap", "Gentoo")
NUM_ROWS = 40


@dataclass(frozen=True)
class Model:
    answer: Callable[[Columns], Columns]
    track: tuple[object, ...]
    schema: DatasetSchema
    raw: Columns

    def expected(self, raw: Mapping[str, Any]) -> Columns:
        import tensorflow as tf

        outputs = self.answer({name: tf.constant(values) for name, values in raw.items()})
        return {name: value.numpy() for name, value in outputs.items()}


def make_schema(columns: Mapping[str, str], *, task: Task) -> DatasetSchema:
    """Columns by name: "float", "integer" or "text"."""
    features = tuple(
        FeatureSpec(
            name=name,
            kind=FeatureKind.CATEGORICAL if kind == "text" else FeatureKind.NUMERIC,
            raw_type=RawType.STRING if kind == "text" else RawType.FLOAT32,
            reason="made for a test",
            integer=kind == "integer",
        )
        for name, kind in columns.items()
    )
    dropped = FeatureSpec(
        name="dropped", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="constant", used=False
    )
    classes = CLASSES if task.is_classification else ()
    return DatasetSchema(features=(*features, dropped), target=TargetSpec(name="target", task=task, classes=classes))


def make_rows(columns: Mapping[str, str], *, num_rows: int = NUM_ROWS) -> Columns:
    """Raw columns in which about one value in ten is missing."""
    rng = np.random.default_rng(7)
    raw: Columns = {}
    for name, kind in columns.items():
        missing = rng.random(num_rows) < 0.1
        if kind == "text":
            values = rng.choice(np.array([b"Biscoe", b"Dream", b"Torgersen"], dtype=object), num_rows)
            raw[name] = np.where(missing, b"", values).astype(object)
        else:
            values = rng.integers(0, 90, num_rows) if kind == "integer" else rng.normal(size=num_rows)
            raw[name] = np.where(missing, np.nan, values).astype(np.float32)
    return raw


def make_model(columns: Mapping[str, str], *, task: Task = Task.MULTICLASS) -> Model:
    """A small Keras model behind TensorFlow operations that treat text and missing values."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(3)
    network = keras.Sequential(
        [
            keras.Input((len(columns),)),
            keras.layers.Dense(8, activation="gelu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3 if task.is_classification else 1),
        ]
    )
    keys = tf.constant([b"Biscoe", b"Dream", b"Torgersen"])
    initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([0.5, 1.0, 1.5]))
    tables = tf.Module()
    tables.island = tf.lookup.StaticHashTable(initializer, -1.0)

    def answer(raw: Columns) -> Columns:
        encoded = []
        for name, kind in columns.items():
            if kind == "text":
                encoded.append(tables.island.lookup(raw[name]))
            else:
                value = tf.where(tf.math.is_nan(raw[name]), 0.0, raw[name])
                encoded.append(tf.clip_by_value(value / 10.0, -3.0, 3.0))
        logits = network(tf.stack(encoded, axis=1), training=False)
        if not task.is_classification:
            return {"prediction": 1_000.0 * logits[:, 0]}
        probabilities = tf.nn.softmax(logits)
        label = tf.gather(tf.constant(CLASSES), tf.argmax(probabilities, axis=-1))
        return {"probabilities": probabilities, "label": label}

    return Model(answer=answer, track=(tables, network), schema=make_schema(columns, task=task), raw=make_rows(columns))


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Model]:
    """``make_model``: the factory for tests that need other columns than ``penguins`` has."""
    return make_model


@pytest.fixture(scope="session")
def verifier() -> Iterator[VerificationProcess]:
    """One process with TensorFlow alone for all tests: starting it takes seconds."""
    with VerificationProcess.start() as process:
        yield process


@pytest.fixture(scope="session")
def penguins(verifier: VerificationProcess) -> Model:
    """A classifier; ``verifier`` is asked for first so that both imports of TensorFlow overlap."""
    del verifier
    return make_model({"island": "text", "bill length": "float", "body_mass": "integer"})


@pytest.fixture(scope="session")
def exported(penguins: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published export of ``penguins``; not to be changed."""
    from tf_serving.export import export_saved_model

    return export_saved_model(
        penguins.answer,
        track=penguins.track,
        schema=penguins.schema,
        directory=tmp_path_factory.mktemp("export") / "penguins",
        sample=penguins.raw,
        extra_files={"profile.json": b"{}", "model_card.md": b"# penguins\n"},
    )
