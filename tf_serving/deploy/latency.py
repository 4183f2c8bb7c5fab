"""How long an exported model takes a batch, measured in a process of its own (imports TensorFlow when it runs).

    python -m tf_serving.deploy.latency VERSION_DIR

prints one JSON object. The graph is called as TensorFlow Serving calls it, through a session, with the rows of the
warm-up requests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from tf_serving.errors import ExportError

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROUNDS = 5
SECONDS_A_ROUND = 0.05
MIN_CALLS = 20
PATIENCE_SECONDS = 600.0
WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"


@dataclass(frozen=True, slots=True)
class BatchLatency:
    """How long a batch takes.

    Attributes:
        rows: Rows of the batch.
        p50_ms: Median, in milliseconds.
        p95_ms: 95th percentile, in milliseconds.
    """

    rows: int
    p50_ms: float
    p95_ms: float


def measure_latency(version: Path) -> tuple[BatchLatency, ...]:
    """Return the latency at growing batch sizes, from a fresh process.

    Args:
        version: The version directory.

    Raises:
        ExportError: The model cannot be loaded or called.
    """
    command = [sys.executable, "-m", "tf_serving.deploy.latency", str(version.absolute())]
    root = Path(__file__).resolve().parents[2]
    try:
        result = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"Measuring {version} took more than {PATIENCE_SECONDS:g} seconds; is the machine busy?"
        ) from error
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExportError(f"Cannot measure the model in {version}: {reason.partition(': ')[2] or reason}.")
    return tuple(BatchLatency(**entry) for entry in json.loads(result.stdout.splitlines()[-1]))


def _measured(version: Path) -> list[dict[str, float]]:
    if not (version / WARMUP_PATH).is_file():  # before TensorFlow is imported, which takes seconds
        raise FileNotFoundError(f"it has no {WARMUP_PATH}")
    import numpy as np

    from tf_serving.server.loaded_model import LoadedModel

    model = LoadedModel.load(version)
    signature = model.signature("")
    if signature is None:
        raise ValueError("it has no signature serving_default")
    rows = _warmup_rows(version)
    batches = {
        size: {name: np.resize(values, (size, *values.shape[1:])) for name, values in rows.items()}
        for size in BATCH_SIZES
    }
    outputs = signature.output_names
    for batch in batches.values():  # the first calls of a size plan its memory
        for _ in range(MIN_CALLS):
            model.run(signature, batch, outputs, timeout=0)
    best = {size: (float("inf"), float("inf")) for size in BATCH_SIZES}
    for _ in range(ROUNDS):
        for size, batch in batches.items():
            seconds: list[float] = []
            end = perf_counter() + SECONDS_A_ROUND
            while perf_counter() < end or len(seconds) < MIN_CALLS:
                began = perf_counter()
                model.run(signature, batch, outputs, timeout=0)
                seconds.append(perf_counter() - began)
            p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
            # The best of several rounds: what else runs on the machine is not the model's latency.
            best[size] = min(best[size], (float(p95), float(p50)))
    return [{"rows": size, "p50_ms": round(p50, 4), "p95_ms": round(p95, 4)} for size, (p95, p50) in best.items()]


def _warmup_rows(version: Path) -> dict[str, Any]:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    rows: dict[str, Any] = {}
    for record in tf.compat.v1.io.tf_record_iterator(str(version / WARMUP_PATH)):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.HasField("predict_log"):
            rows = {name: tf.make_ndarray(value) for name, value in log.predict_log.request.inputs.items()}
    if not rows:
        raise ValueError("its warm-up requests hold no predict request")
    return rows


if __name__ == "__main__":
    print(json.dumps(_measured(Path(sys.argv[1]))))
