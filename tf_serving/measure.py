"""How fast and how large an exported model is (imports TensorFlow).

A model that is not exported yet is measured by the very functions that would be: same graph, same preprocessing.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.schema import DatasetSchema
from tf_serving.export import Answer, trace_signatures
from tf_serving.signatures import SERVING_DEFAULT, call_signature

LATENCY, SIZE = "latency_ms", "size_bytes"

WARM_UP_CALLS = 10  # the first call of a graph places and optimises it
LEAST_CALLS = 30
MOST_CALLS = 500
SECONDS = 0.5


def measure_model(
    answer: Answer,
    *,
    track: Sequence[object],
    schema: DatasetSchema,
    row: Mapping[str, NDArray[Any]],
    measures: Sequence[str],
) -> dict[str, float]:
    """Return what is asked of ``latency_ms`` and ``size_bytes`` for a model as ``stage_saved_model`` takes it.

    The latency is that of the traced ``serving_default``, raw columns in and answers out. For the size the model is
    written to a temporary directory and removed.

    Args:
        answer: Maps raw columns by name to answers.
        track: Objects that own the variables and tables.
        schema: Columns and target.
        row: Raw columns of one real row, each ``(1,)``.
        measures: ``latency_ms``, ``size_bytes`` or both; other names are left to others.

    Raises:
        ValueError: As ``stage_saved_model``.
        OSError: No room for the temporary copy.
    """
    wanted = [name for name in (LATENCY, SIZE) if name in measures]
    if not wanted:
        return {}
    root, signatures = trace_signatures(answer, track=track, schema=schema)
    measured = {}
    if LATENCY in wanted:
        tensors = [_tensor(row[feature.name]) for feature in schema.used_features]
        serve = signatures[SERVING_DEFAULT]
        measured[LATENCY] = quiet_milliseconds(lambda: serve(*tensors))
    if SIZE in wanted:
        with tempfile.TemporaryDirectory(prefix="tamiz-size-") as directory:
            tf.saved_model.save(root, directory, signatures=signatures)
            measured[SIZE] = float(size_bytes(Path(directory)))
    return measured


def measure_export(directory: Path, *, row: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return ``latency_ms`` and ``size_bytes`` of an exported version.

    Args:
        directory: The version directory, which holds ``saved_model.pb``.
        row: Raw columns of one real row, in the order of the schema, each ``(1,)``.
    """
    loaded = tf.saved_model.load(str(directory))
    signature = loaded.signatures[SERVING_DEFAULT]
    tensors = {name: _tensor(column) for name, column in row.items()}
    latency = quiet_milliseconds(lambda: call_signature(signature, tensors))
    return {LATENCY: latency, SIZE: float(size_bytes(directory))}


def size_bytes(directory: Path) -> int:
    """Return the bytes of graph, variables and assets of a SavedModel; not of what is kept beside it."""
    parts = [directory / "saved_model.pb", *(directory / "variables").rglob("*"), *(directory / "assets").rglob("*")]
    return sum(path.stat().st_size for path in parts if path.is_file())


def quiet_milliseconds(call: Callable[[], Mapping[str, Any]]) -> float:
    """Return the wall time of a call on a quiet machine, its answers read, after warm-up.

    Other trials train meanwhile, which makes the median of the calls several times longer, and by chance. A tenth of
    the calls get through undisturbed even then, so it is the first decile; on a quiet machine that is near the median.
    """

    def once() -> float:
        start = time.perf_counter()
        for tensor in call().values():
            tensor.numpy()
        return 1e3 * (time.perf_counter() - start)

    for _ in range(WARM_UP_CALLS):
        once()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < LEAST_CALLS or (len(times) < MOST_CALLS and time.perf_counter() < end):
        times.append(once())
    return statistics.quantiles(times, n=10)[0]


def _tensor(column: NDArray[Any]) -> tf.Tensor:
    return tf.constant(column, tf.string if column.dtype == np.object_ else tf.float32)
