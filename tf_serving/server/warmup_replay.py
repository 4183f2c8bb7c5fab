"""Replay the warm-up requests of a version before it answers others (imports TensorFlow)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from tf_serving.server.metrics import Metrics
from tf_serving.server.status import Code, ServingError

WARMUP_PATH = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000

_REQUESTS = {
    "predict_log": "predict",
    "classify_log": "classify",
    "regress_log": "regress",
    "multi_inference_log": "multi_inference",
}

Answer = Callable[[str, Any], object]
"""Takes the method's name and the request message."""


def replay(directory: Path, answer: Answer, *, iterations: int, metrics: Metrics) -> int:
    """Replay all records; return how many there were.

    Args:
        directory: The version directory.
        answer: Runs a request on the version.
        iterations: How often each is run.
        metrics: To tell counts and times.

    Raises:
        ServingError: A record or its answer is bad, which fails the load; as in TensorFlow Serving.
    """
    path = directory / WARMUP_PATH
    if not path.exists():
        return 0
    label = str(directory)
    count = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            count += 1
            if count > MAX_RECORDS:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}",
                )
            method, request = _request(record, path)
            metrics.warmup_records.add(label)
            for _ in range(max(1, iterations)):
                started = perf_counter()
                answer(method, request)
                metrics.warmup_latency.observe((perf_counter() - started) * 1e6, label, "OK")
    except tf.errors.DataLossError as error:
        raise ServingError(
            Code.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format.",
        ) from error
    return count


def _request(record: bytes, path: Path) -> tuple[str, Any]:
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"Failed to parse warmup record: {error} from {path}") from error
    kind = log.WhichOneof("log_type")
    if kind not in _REQUESTS:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    return _REQUESTS[kind], getattr(log, kind).request
