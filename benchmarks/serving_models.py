"""The program behind `serving.py`: makes models and request bodies, and measures the call in process.

serving_models.py make FOLDER               models and bodies
serving_models.py limit VERSION SECONDS     calls per CPU-second as JSON: loaded.signatures[...], and the server's
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

ROWS = (1, 64)
SHAPES = {"tabular": (20,), "cnn": (32, 32, 3)}


def make(folder: Path) -> None:
    """Write both models and their request bodies."""
    layers = tf.keras.layers
    networks = {
        "tabular": [layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(3, "softmax")],
        "cnn": [
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, "softmax"),
        ],
    }
    for name, network in networks.items():
        shape = SHAPES[name]
        model = tf.keras.Sequential([layers.Input(shape), *network])
        archive = tf.keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            "serving_default",
            _named(model),
            input_signature=[tf.TensorSpec((None, *shape), tf.float32, name="x")],
        )
        archive.write_out(str(folder / name / "1"), verbose=False)
        for rows in ROWS:
            values = np.random.default_rng(0).random((rows, *shape), dtype=np.float32).round(3)
            instances = [[float(str(value)) for value in row.reshape(-1)] for row in values]
            nested = np.array(instances).reshape(values.shape).tolist()
            (folder / f"{name}-{rows}.json").write_text(json.dumps({"instances": nested}))
            (folder / f"{name}-{rows}.grpc").write_bytes(grpc_frame(name, values))


def _named(model: Any) -> Any:
    # Not a default argument: TensorFlow would trace it as one more input.
    return lambda x: {"probabilities": model(x)}


def grpc_frame(name: str, values: Any) -> bytes:
    """Return a PredictRequest as a gRPC message on the wire."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values))
    content = request.SerializeToString()
    return struct.pack(">BI", 0, len(content)) + content


def limit(version: Path, seconds: float) -> None:
    """Print calls per second of CPU by rows: as a program makes them, and as the server does."""
    from tf_serving.server.loaded_model import LoadedModel

    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    model = LoadedModel.load(version)
    served = model.signature("")
    shape = SHAPES[version.parent.name]
    found: dict[str, dict[int, float]] = {"signature": {}, "server": {}}
    for rows in ROWS:
        values = np.random.default_rng(0).random((rows, *shape), dtype=np.float32)
        model.make_ready(served, {"x": values}, ("probabilities",))
        calls = {
            "signature": lambda: signature(x=tf.constant(values))["probabilities"].numpy(),  # noqa: B023 - called here
            "server": lambda: model.run(served, {"x": values}, ("probabilities",), timeout=30.0),  # noqa: B023
        }
        for name, call in calls.items():
            found[name][rows] = max(_per_cpu_second(call, seconds / 2) for _ in range(3))
    print(json.dumps(found))


def _per_cpu_second(call: Callable[[], Any], seconds: float) -> float:
    for _ in range(50):
        call()
    count, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        call()
        count += 1
    return count / (time.process_time() - started)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        limit(Path(sys.argv[2]), float(sys.argv[3]))
