"""TensorFlow Serving's batching parameters from measured latency and a target (no TensorFlow here)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tf_serving.deploy.latency import BatchLatency
from tf_serving.errors import ExportError

GAIN = 1.2
"""Rows per second of a batch against single rows from which on waiting for more rows is worth it."""
WARMUP_ROWS = 32
"""Rows of the largest warm-up request of an export. TensorFlow Serving replays it through the batching, and a version
whose warm-up is refused there does not load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingPlan:
    """Batching parameters and where they come from.

    Attributes:
        max_batch_size: Most rows of a request, which is split into batches: as many as may wait.
        max_execution_batch_size: Most rows of a batch.
        batch_timeout_micros: How long a batch waits for more rows.
        num_batch_threads: Batches that run at once.
        max_enqueued_batches: Batches that wait at most; what comes on top is refused at once.
        p95_ms: The target.
        measured: What was measured.
    """

    max_batch_size: int
    max_execution_batch_size: int
    batch_timeout_micros: int
    num_batch_threads: int
    max_enqueued_batches: int
    p95_ms: float
    measured: tuple[BatchLatency, ...]

    def to_text(self) -> str:
        """Return the file for ``--batching_parameters_file``."""
        table = "\n".join(
            f"#   {entry.rows:5d} rows   p50 {entry.p50_ms:9.3f} ms   p95 {entry.p95_ms:9.3f} ms   "
            f"{entry.rows / entry.p50_ms * 1e3:10,.0f} rows/s"
            for entry in self.measured
        )
        return (
            f"# For a 95th percentile of {self.p95_ms:g} ms. A batch may take half of it: a request can find\n"
            "# one batch running and has to wait for it. Measured where this file was written, one batch at a time:\n"
            f"{table}\n"
            "# A request of more rows than max_execution_batch_size is split; of more than max_batch_size, refused.\n"
            "# No allowed_batch_sizes: on a CPU, padding to them is wasted work.\n"
            f"max_batch_size {{ value: {self.max_batch_size} }}\n"
            "enable_large_batch_splitting { value: true }\n"
            f"max_execution_batch_size {{ value: {self.max_execution_batch_size} }}\n"
            f"batch_timeout_micros {{ value: {self.batch_timeout_micros} }}\n"
            f"num_batch_threads {{ value: {self.num_batch_threads} }}\n"
            f"max_enqueued_batches {{ value: {self.max_enqueued_batches} }}\n"
        )


def plan_batching(measured: Sequence[BatchLatency], *, p95_ms: float, cpus: int) -> BatchingPlan:
    """Return the parameters with which a request most likely meets the target.

    The largest measured batch whose 95th percentile is within half the target is allowed; the wait for more rows is a
    quarter of what is then left, and none where larger batches do not answer more rows per second. So many batches
    may wait as can be answered in the time that is left, and at least as many as the largest warm-up request fills.

    Args:
        measured: Latency at growing batch sizes, at least one.
        p95_ms: The target for a request, in milliseconds.
        cpus: Cores that the server will have.

    Raises:
        ExportError: A single row takes longer than the target allows.
    """
    within = [entry for entry in measured if entry.p95_ms <= p95_ms / 2]
    if not within:
        first = measured[0]
        raise ExportError(
            f"A 95th percentile of {p95_ms:g} ms cannot be met: a batch of {first.rows} takes {first.p95_ms:.3g} ms "
            f"here, and a request may have to wait for another one; give at least {2 * first.p95_ms:.3g} ms."
        )
    largest = within[-1]
    single = measured[0]
    left_ms = p95_ms - 2 * largest.p95_ms
    gains = largest.rows / largest.p50_ms >= GAIN * single.rows / single.p50_ms
    waiting = max(cpus, int(cpus * 0.75 * left_ms / largest.p95_ms), -(-WARMUP_ROWS // largest.rows))
    return BatchingPlan(
        max_batch_size=waiting * largest.rows,
        max_execution_batch_size=largest.rows,
        batch_timeout_micros=int(250 * left_ms) if gains else 0,
        num_batch_threads=cpus,
        max_enqueued_batches=waiting,
        p95_ms=p95_ms,
        measured=tuple(measured),
    )
