"""Prometheus metrics: TensorFlow Serving's names on TensorFlow Serving's page, and conventional ones beside them.

TensorFlow Serving's names break the conventions (colons, microseconds, counters without ``_total``), which
prometheus-client would correct; those series are written here. Everything else is in a registry of prometheus-client,
to which extensions may add. Labels are names of configured models only: a name from the network never becomes one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

MONITORING_PATH = "/monitoring/prometheus/metrics"
UNKNOWN = "_unknown"
MICROSECOND_BUCKETS = tuple(10 * 1.8**power for power in range(33))
SECOND_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


@final
class CompatibleCounter:
    """A counter under TensorFlow Serving's name.

    Args:
        name: With colons.
        labels: Names of its labels.
    """

    kind = "counter"

    def __init__(self, name: str, *labels: str) -> None:
        self.name = name
        self._labels = labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], int] = {}

    def add(self, *values: str, by: int = 1) -> None:
        """Count."""
        with self._lock:
            self._values[values] = self._values.get(values, 0) + by

    def total(self) -> int:
        """Return the sum over all labels."""
        return sum(self._values.copy().values())

    def lines(self) -> list[str]:
        """Return the series."""
        return [
            f"{self.name}{_braces(self._labels, values)} {count}"
            for values, count in sorted(self._values.copy().items())
        ]


@final
class CompatibleHistogram:
    """A histogram under TensorFlow Serving's name.

    Args:
        name: With colons.
        labels: Names of its labels.
        buckets: Upper bounds, ascending.
    """

    kind = "histogram"

    def __init__(self, name: str, *labels: str, buckets: Sequence[float] = MICROSECOND_BUCKETS) -> None:
        self.name = name
        self._labels = labels
        self._buckets = list(buckets)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], list[float]] = {}

    def observe(self, value: float, *values: str) -> None:
        """Count a value in its bucket."""
        bucket = bisect_left(self._buckets, value)
        with self._lock:
            counts = self._values.get(values)
            if counts is None:
                counts = self._values[values] = [0.0] * (len(self._buckets) + 2)
            counts[bucket] += 1
            counts[-1] += value

    def total(self) -> int:
        """Return the number of values over all labels."""
        return int(sum(sum(counts[:-1]) for counts in self._values.copy().values()))

    def lines(self) -> list[str]:
        """Return the series: buckets, sum and count."""
        lines = []
        for values, counts in sorted(self._values.copy().items()):
            below = 0
            for bound, count in zip([*map(_bound, self._buckets), "+Inf"], counts, strict=False):
                below += int(count)
                labels = _braces((*self._labels, "le"), (*values, bound))
                lines.append(f"{self.name}_bucket{labels} {below}")
            labels = _braces(self._labels, values)
            lines += [f"{self.name}_sum{labels} {counts[-1]:.17g}", f"{self.name}_count{labels} {below}"]
        return lines


@final
class Metrics:
    """All metrics of one server process."""

    def __init__(self) -> None:
        serving, cc = ":tensorflow:serving:", ":tensorflow:cc:saved_model:"
        self.request_count = CompatibleCounter(f"{serving}request_count", "model_name", "status")
        self.request_latency = CompatibleHistogram(f"{serving}request_latency", "model_name", "API", "entrypoint")
        self.runtime_latency = CompatibleHistogram(f"{serving}runtime_latency", "model_name", "API", "runtime")
        self.example_counts = CompatibleHistogram(
            f"{serving}request_example_counts", "model", buckets=[2.0**power for power in range(20)]
        )
        self.example_count_total = CompatibleCounter(f"{serving}request_example_count_total", "model")
        self.log_count = CompatibleCounter(f"{serving}request_log_count", "model_name", "status_code")
        self.warmup_latency = CompatibleHistogram(f"{serving}model_warmup_latency", "model_path", "status")
        self.warmup_records = CompatibleCounter(f"{serving}model_warmup_records_read", "model_path")
        self.queuing_latency = CompatibleHistogram(f"{serving}batching_session:queuing_latency", "thread_pool_name")
        self.wrapped_runs = CompatibleCounter(f"{serving}batching_session:wrapped_run_count", "model_name")
        self.padding_size = CompatibleHistogram(
            f"{serving}batching_session:padding_size", "execution_batch_size", buckets=SIZE_BUCKETS
        )
        self.input_batch_size = CompatibleHistogram(
            f"{serving}batching_session:input_batch_size", "thread_pool_name", buckets=SIZE_BUCKETS
        )
        self.processed_batch_size = CompatibleHistogram(
            f"{serving}batching_session:processed_batch_size", "thread_pool_name", buckets=SIZE_BUCKETS
        )
        self.load_attempts = CompatibleCounter(f"{cc}load_attempt_count", "model_path", "status")
        self.load_latency = CompatibleCounter(f"{cc}load_latency", "model_path")
        self._compatible = [
            value for value in vars(self).values() if isinstance(value, CompatibleCounter | CompatibleHistogram)
        ]
        self.registry = CollectorRegistry()
        registry: Any = {"registry": self.registry}
        self.requests = Counter(
            "tamiz_requests", "Answers.", ["model", "version", "method", "protocol", "code"], **registry
        )
        self.seconds = Histogram(
            "tamiz_model_seconds", "Time in the model.", ["model", "version"], buckets=SECOND_BUCKETS, **registry
        )
        self.queue_depth = Gauge(
            "tamiz_queue_depth", "Requests that wait for a batch or thread.", ["queue"], **registry
        )
        self.connections = Gauge("tamiz_connections", "Open REST connections.", **registry)
        self.available = Gauge("tamiz_model_available", "1 while a version answers.", ["model", "version"], **registry)
        self.load_seconds = Gauge("tamiz_model_load_seconds", "Time to load.", ["model", "version"], **registry)
        Gauge("tamiz_processes", "Processes behind this port.", **registry).set(1)
        # Its values come from the monitoring of requests; the name is taken so that dashboards can be made.
        self.drift = Gauge(
            "tamiz_drift_score", "Distance from training data.", ["model", "feature", "test"], **registry
        )
        ProcessCollector(**registry)
        self._requests_of: dict[tuple[str, ...], Any] = {}
        self._seconds_of: dict[tuple[str, ...], Any] = {}

    def request(self, labels: tuple[str, str, str, str, str]) -> None:
        """Count an answer: model, version, method, protocol, code."""
        child = self._requests_of.get(labels)
        if child is None:
            child = self._requests_of[labels] = self.requests.labels(*labels)
        child.inc()

    def model_seconds(self, model: str, version: str, seconds: float) -> None:
        """Count the time of a call of the model, in seconds."""
        child = self._seconds_of.get((model, version))
        if child is None:
            child = self._seconds_of[model, version] = self.seconds.labels(model, version)
        child.observe(seconds)

    def _runs(self) -> int:
        return self.runtime_latency.total()

    def totals(self) -> Mapping[str, int]:
        """Return the sum of every metric under TensorFlow Serving's name (without the leading colon form)."""
        return {metric.name.replace(":", "/"): metric.total() for metric in self._compatible} | {
            "/tensorflow/core/graph_runs": self._runs()
        }

    def page(self, *, compatible_only: bool = False) -> bytes:
        """Return the text that Prometheus reads."""
        lines = []
        for metric in self._compatible:
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += metric.lines()
        lines += ["# TYPE :tensorflow:core:graph_runs counter", f":tensorflow:core:graph_runs{{}} {self._runs()}"]
        text = "\n".join(lines).encode() + b"\n"
        return text if compatible_only else text + generate_latest(self.registry)


def _bound(value: float) -> str:
    return f"{value:.17g}"


def _braces(labels: Sequence[str], values: Sequence[str]) -> str:
    if not labels:
        return "{}"
    return "{" + ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
