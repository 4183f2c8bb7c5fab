"""``logging_config`` of a model: sampled requests and answers as TFRecord files of PredictionLog (imports TensorFlow).

TensorFlow Serving reads the setting but has nothing compiled in that writes. The files have the form of its warm-up
data: a file of records, put at ``assets.extra/tf_serving_warmup_requests``, is replayed when a version loads. Like
every log it never holds up a request: what finds the queue or the disk full is dropped and counted.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import final

import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from tf_serving.server import messages
from tf_serving.server.config_files import ModelConfig, RequestSampling
from tf_serving.server.extensions import Arrays
from tf_serving.server.logs import LOGGER
from tf_serving.server.metrics import Metrics
from tf_serving.server.signatures import CLASSIFY_METHOD, REGRESS_METHOD, ServedSignature
from tf_serving.server.tensor_protos import fill_proto
from tf_serving.server.work_queue import WorkQueue

QUEUE_REQUESTS = 1024
CLOSE_SECONDS = 10.0
FLUSH_SECONDS = 1.0
FILE_BYTES = 256 << 20
COMPLAINT_SECONDS = 60.0
_REQUESTS = {
    "predict": ("predict_log", predict_pb2.PredictRequest),
    "classify": ("classify_log", classification_pb2.ClassificationRequest),
    "regress": ("regress_log", regression_pb2.RegressionRequest),
    "multi_inference": ("multi_inference_log", inference_pb2.MultiInferenceRequest),
}


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """A request that was answered.

    Attributes:
        method: "predict", "classify", "regress" or "multi_inference" (a record for each of its tasks).
        model: Name.
        version: Number.
        signature: That answered.
        inputs: By alias.
        outputs: By alias.
        sampling: How the model is logged.
    """

    method: str
    model: str
    version: int
    signature: ServedSignature
    inputs: Arrays
    outputs: Arrays
    sampling: RequestSampling


@final
class PredictionLogs:
    """Writes the files in a thread of its own.

    Args:
        metrics: To count records.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._queue: WorkQueue[LoggedCall] = WorkQueue(
            self._work,
            name="prediction-log",
            most=QUEUE_REQUESTS,
            tick=self._flush_in_time,
            tick_seconds=FLUSH_SECONDS,
            finish=self._close_files,
        )
        self._files: dict[str, _File] = {}
        self._next_flush = 0.0
        self._last_complaint = float("-inf")
        self.samplings: dict[str, RequestSampling] = {}
        """By name of the model; a model that is not in it is not logged."""

    def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Log these models from now on, as their configurations say."""
        self.samplings = {config.name: config.sampling for config in configs if config.sampling is not None}
        if self.samplings and not self._queue.is_running:
            self._queue.start()

    def take(self, call: LoggedCall) -> None:
        """Take a call into the sample."""
        if random.random() < call.sampling.rate and not self._queue.offer(call):
            self._metrics.log_count.add(call.model, "RESOURCE_EXHAUSTED")

    def close(self) -> None:
        """Write what is there and end."""
        self._queue.close(seconds=CLOSE_SECONDS)

    def _work(self, call: LoggedCall) -> None:
        try:
            self._file(call).write(_record(call))
        except Exception as error:
            file = self._files.pop(call.model, None)
            if file is not None:
                file.give_up()
            self._metrics.log_count.add(call.model, "UNAVAILABLE")
            if time.monotonic() - self._last_complaint >= COMPLAINT_SECONDS:
                self._last_complaint = time.monotonic()
                LOGGER.error("Requests of %s cannot be logged: %s", call.model, error)
            return
        self._metrics.log_count.add(call.model, "OK")

    def _file(self, call: LoggedCall) -> _File:
        file = self._files.get(call.model)
        if file is not None and (file.num_bytes >= FILE_BYTES or file.prefix != call.sampling.filename_prefix):
            self._files.pop(call.model).close()
            file = None
        if file is None:
            file = self._files[call.model] = _File(call.sampling.filename_prefix, call.model)
        return file

    def _flush_in_time(self) -> None:
        if time.monotonic() < self._next_flush:
            return
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        for model, file in list(self._files.items()):
            try:
                file.flush()
            except tf.errors.OpError as error:
                LOGGER.error("Requests of %s cannot be logged: %s", model, error.message)
                self._files.pop(model).give_up()

    def _close_files(self) -> None:
        for file in self._files.values():
            file.give_up()
        self._files.clear()


@final
class _File:
    """One file; a name that is not yet taken, for nobody else to read."""

    def __init__(self, prefix: str, model: str) -> None:
        self.prefix = prefix
        self.num_bytes = 0
        Path(prefix).parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = Path(f"{prefix}-{model}-{stamp}-{os.getpid()}-{time.monotonic_ns()}.tfrecord")
        path.touch(mode=0o600)
        self._writer = tf.io.TFRecordWriter(str(path))

    def write(self, record: bytes) -> None:
        self.num_bytes += len(record)
        self._writer.write(record)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def give_up(self) -> None:
        try:
            self._writer.close()
        except tf.errors.OpError as error:
            LOGGER.error("A log of requests was not written to its end: %s", error.message)


def _record(call: LoggedCall) -> bytes:
    """Return the PredictionLog of a call, its answer made by the code that answers requests."""
    field, kind = _REQUESTS[call.method]
    request = kind()
    if call.method == "multi_inference":
        is_regression = "outputs" in call.outputs
        task = request.tasks.add(method_name=REGRESS_METHOD if is_regression else CLASSIFY_METHOD)
        spec = task.model_spec
    else:
        spec = request.model_spec
    spec.name = call.model
    spec.version.value = call.version
    spec.signature_name = call.signature.name
    if call.method == "predict":
        for alias, array in call.inputs.items():
            fill_proto(request.inputs[alias], array)
        request.output_filter.extend(call.outputs if len(call.outputs) < len(call.signature.outputs) else ())
    else:
        request.input.example_list.examples.extend(
            example_pb2.Example.FromString(content) for content in call.inputs["inputs"].tolist()
        )
    model = SimpleNamespace(signature=lambda _: call.signature)
    target = messages.Target(call.model, call.version, model, lambda *_: call.outputs)
    log = prediction_log_pb2.PredictionLog()
    part = getattr(log, field)
    part.request.CopyFrom(request)
    part.response.CopyFrom(messages.answer(call.method, request, target))
    log.log_metadata.model_spec.CopyFrom(spec)
    log.log_metadata.sampling_config.sampling_rate = call.sampling.rate
    log.log_metadata.timestamp_secs = int(time.time())
    return bytes(log.SerializeToString())
