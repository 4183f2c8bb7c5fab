"""Prometheus metrics: TensorFlow Serving's names on TensorFlow Serving's page, and conventional ones beside them.

TensorFlow Serving's names break the conventions (colons, microseconds, counters without ``_total``), which
prometheus-client would correct; those series are written here. Everything else is in a registry of prometheus-client,
to which extensions may add. Labels are names of configured models only: a name from the network never becomes one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Gauge, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

MONITORING_PATH = "/monitoring/prometheus/metrics"
UNKNOWN = "_unknown"
MICROSECOND_BUCKETS = tuple(10 * 1.8**power for power in range(33))
SECOND_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROW_BUCKETS = tuple(2.0**power for power in range(20))
REQUEST_LABELS = ("model", "version", "method", "protocol", "code")
SECONDS_LABELS = ("model", "version")
APIS = {"predict": "Predict", "classify": "Classify", "regress": "Regress", "multi_inference": "MultiInference"}
MOST_UNCOUNTED = 1_024
"""Answers that are kept until they are counted together: one by one takes ten times as long."""
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


@final
class CompatibleCounter:
    """A counter under TensorFlow Serving's name.

    Args:
        name: With colons.
        labels: Names of its labels.
        lock: Shared by metrics that are changed together.
    """

    kind = "counter"

    def __init__(self, name: str, *labels: str, lock: threading.Lock | None = None) -> None:
        self.name = name
        self._labels = labels
        self._lock = lock or threading.Lock()
        self._values: dict[tuple[str, ...], list[int]] = {}

    def add(self, *values: str, by: int = 1) -> None:
        """Count."""
        count = self.count(*values)
        with self._lock:
            count[0] += by

    def count(self, *values: str) -> list[int]:
        """Return the count of one series, alone in a list; changed under the lock only."""
        found = self._values.get(values)
        return found if found is not None else self._values.setdefault(values, [0])

    def series(self) -> Mapping[tuple[str, ...], list[int]]:
        """Return the counts of all series."""
        return self._values.copy()

    def total(self) -> int:
        """Return the sum over all labels."""
        return sum(count for (count,) in self.series().values())

    def lines(self) -> list[str]:
        """Return the series."""
        return [
            f"{self.name}{_braces(self._labels, values)} {count}" for values, (count,) in sorted(self.series().items())
        ]


@final
class CompatibleHistogram:
    """A histogram under TensorFlow Serving's name.

    Args:
        name: With colons.
        labels: Names of its labels.
        buckets: Upper bounds, ascending.
        lock: Shared by metrics that are changed together.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        *labels: str,
        buckets: Sequence[float] = MICROSECOND_BUCKETS,
        lock: threading.Lock | None = None,
    ) -> None:
        self.name = name
        self._labels = labels
        self.buckets = list(buckets)
        self._lock = lock or threading.Lock()
        self._values: dict[tuple[str, ...], list[float]] = {}

    def observe(self, value: float, *values: str) -> None:
        """Count a value in its bucket."""
        counts = self.counts(*values)
        with self._lock:
            counts[bisect_left(self.buckets, value)] += 1
            counts[-1] += value

    def counts(self, *values: str) -> list[float]:
        """Return the counts of one series, one for each bucket, and the sum; changed under the lock only."""
        found = self._values.get(values)
        return found if found is not None else self._values.setdefault(values, [0.0] * (len(self.buckets) + 2))

    def series(self) -> Mapping[tuple[str, ...], list[float]]:
        """Return the counts of all series."""
        return self._values.copy()

    def total(self) -> int:
        """Return the number of values over all labels."""
        return int(sum(sum(counts[:-1]) for counts in self.series().values()))

    def lines(self) -> list[str]:
        """Return the series: buckets, sum and count."""
        lines = []
        for values, counts in sorted(self.series().items()):
            below = 0
            for bound, count in zip([*map(_bound, self.buckets), "+Inf"], counts, strict=False):
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
        # What every answer changes is changed at once.
        self.answering = lock = threading.Lock()
        self.request_count = CompatibleCounter(f"{serving}request_count", "model_name", "status", lock=lock)
        self.request_latency = CompatibleHistogram(
            f"{serving}request_latency", "model_name", "API", "entrypoint", lock=lock
        )
        self.runtime_latency = CompatibleHistogram(
            f"{serving}runtime_latency", "model_name", "API", "runtime", lock=lock
        )
        self.example_counts = CompatibleHistogram(
            f"{serving}request_example_counts", "model", buckets=ROW_BUCKETS, lock=lock
        )
        self.example_count_total = CompatibleCounter(f"{serving}request_example_count_total", "model", lock=lock)
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
        self.requests = CompatibleCounter("tamiz_requests", *REQUEST_LABELS, lock=lock)
        self.seconds = CompatibleHistogram("tamiz_model_seconds", *SECONDS_LABELS, buckets=SECOND_BUCKETS, lock=lock)
        self.registry.register(_Conventional(self))
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
        self._tallies: dict[tuple[str, str, str, str], Tally] = {}

    def tally(self, model: str, version: str, method: str, protocol: str) -> Tally:
        """Return what counts the good answers of a version to a method over a protocol."""
        key = (model, version, method, protocol)
        found = self._tallies.get(key)
        return found if found is not None else self._tallies.setdefault(key, Tally(self, *key))

    def ran(self, model: str, version: str, method: str, seconds: float) -> None:
        """Count a call of the model, in seconds."""
        self.runtime_latency.observe(seconds * 1e6, model, APIS[method], "TF1")
        self.seconds.observe(seconds, model, version)

    def read(self, model: str, rows: int) -> None:
        """Count the rows of a request."""
        self.example_counts.observe(rows, model)
        self.example_count_total.add(model, by=rows)

    def count_all(self) -> None:
        """Count the answers that wait for it; whoever reads comes here first."""
        for tally in list(self._tallies.values()):
            tally.count()

    def _runs(self) -> int:
        return self.runtime_latency.total()

    def totals(self) -> Mapping[str, int]:
        """Return the sum of every metric under TensorFlow Serving's name (without the leading colon form)."""
        self.count_all()
        return {metric.name.replace(":", "/"): metric.total() for metric in self._compatible} | {
            "/tensorflow/core/graph_runs": self._runs()
        }

    def page(self, *, compatible_only: bool = False) -> bytes:
        """Return the text that Prometheus reads."""
        self.count_all()
        lines = []
        for metric in self._compatible:
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += metric.lines()
        lines += ["# TYPE :tensorflow:core:graph_runs counter", f":tensorflow:core:graph_runs{{}} {self._runs()}"]
        text = "\n".join(lines).encode() + b"\n"
        return text if compatible_only else text + generate_latest(self.registry)


@final
class Tally:
    """Counts good answers in all metrics they change, many at once.

    Args:
        metrics: To change.
        model: Name.
        version: Number.
        method: "predict", "classify", "regress" or "multi_inference".
        protocol: "REST" or "gRPC".
    """

    __slots__ = (
        "_latency",
        "_lock",
        "_num_requests",
        "_num_rows",
        "_rows",
        "_runtime",
        "_seconds",
        "_statuses",
        "_uncounted",
    )

    def __init__(self, metrics: Metrics, model: str, version: str, method: str, protocol: str) -> None:
        self._lock = metrics.answering
        api = APIS[method] if protocol == "gRPC" else method
        self._statuses = metrics.request_count.count(model, "OK")
        self._num_requests = metrics.requests.count(model, version, method, protocol, "OK")
        self._latency = metrics.request_latency.counts(model, api, "GRPC" if protocol == "gRPC" else "REST")
        self._runtime = metrics.runtime_latency.counts(model, APIS[method], "TF1")
        self._seconds = metrics.seconds.counts(model, version)
        self._rows = metrics.example_counts.counts(model)
        self._num_rows = metrics.example_count_total.count(model)
        self._uncounted: deque[tuple[float, float, int]] = deque()

    def add(self, *, seconds: float, in_model: float, rows: int | None) -> None:
        """Take an answer.

        Args:
            seconds: From the whole request to the whole answer.
            in_model: Seconds of them.
            rows: Of the request; None where it has no such number.
        """
        self._uncounted.append((seconds, in_model, -1 if rows is None else rows))
        if len(self._uncounted) >= MOST_UNCOUNTED:
            self.count()

    def count(self) -> None:
        """Count the answers taken so far."""
        with self._lock:
            # Others may take answers meanwhile; only here do any go.
            taken = [self._uncounted.popleft() for _ in range(len(self._uncounted))]
            if not taken:
                return
            seconds, in_model, rows = np.array(taken).T
            self._statuses[0] += len(taken)
            self._num_requests[0] += len(taken)
            _observe(self._latency, MICROSECOND_BUCKETS, seconds * 1e6)
            _observe(self._runtime, MICROSECOND_BUCKETS, in_model * 1e6)
            _observe(self._seconds, SECOND_BUCKETS, in_model)
            rows = rows[rows >= 0]
            _observe(self._rows, ROW_BUCKETS, rows)
            self._num_rows[0] += int(rows.sum())


def _observe(counts: list[float], buckets: Sequence[float], values: NDArray[Any]) -> None:
    """Count values, ``(num_values,)``, in their buckets, and add their sum."""
    places, times = np.unique(np.searchsorted(buckets, values), return_counts=True)
    for place, several in zip(places.tolist(), times.tolist(), strict=True):
        counts[place] += several
    counts[-1] += float(values.sum())


class _Conventional:
    """Tells prometheus-client what is counted without it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Return the families."""
        self._metrics.count_all()
        requests = CounterMetricFamily("tamiz_requests", "Answers.", labels=REQUEST_LABELS)
        for values, (count,) in self._metrics.requests.series().items():
            requests.add_metric(values, count)
        yield requests
        seconds = HistogramMetricFamily("tamiz_model_seconds", "Time in the model.", labels=SECONDS_LABELS)
        bounds = [*map(floatToGoString, SECOND_BUCKETS), "+Inf"]
        for values, counts in self._metrics.seconds.series().items():
            seconds.add_metric(values, list(zip(bounds, accumulate(counts[:-1]), strict=True)), counts[-1])
        yield seconds


def _bound(value: float) -> str:
    return f"{value:.17g}"


def _braces(labels: Sequence[str], values: Sequence[str]) -> str:
    if not labels:
        return "{}"
    return "{" + ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
