from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_serving.deploy.batching import WARMUP_ROWS, plan_batching
from tf_serving.deploy.latency import BatchLatency, measure_latency
from tf_serving.errors import ExportError
from tf_serving.server.config_files import read_batching_parameters
from tf_serving.warmup import WARMUP_BATCH_SIZES


def latencies(*entries: tuple[int, float]) -> tuple[BatchLatency, ...]:
    return tuple(BatchLatency(rows, p50_ms, 1.5 * p50_ms) for rows, p50_ms in entries)


CHEAP = latencies((1, 0.1), (8, 0.2), (64, 1.0), (256, 4.0))
NO_GAIN = latencies((1, 1.0), (8, 8.0), (64, 64.0))


def test_the_largest_batch_within_half_the_target_is_allowed() -> None:
    assert plan_batching(CHEAP, p95_ms=20, cpus=2).max_execution_batch_size == 256
    assert plan_batching(CHEAP, p95_ms=5, cpus=2).max_execution_batch_size == 64
    assert plan_batching(CHEAP, p95_ms=0.4, cpus=2).max_execution_batch_size == 1


@pytest.mark.parametrize("p95_ms", [0.4, 0.7, 5, 20])
def test_a_request_may_have_more_rows_than_a_batch(p95_ms: float, tmp_path: Path) -> None:
    plan = plan_batching(CHEAP, p95_ms=p95_ms, cpus=2)
    # As many as the queue takes when it is empty; TensorFlow Serving refuses more.
    assert plan.max_batch_size == plan.max_enqueued_batches * plan.max_execution_batch_size
    # The warm-up goes the same way, and a version whose warm-up is refused does not load.
    assert plan.max_batch_size >= WARMUP_ROWS == max(WARMUP_BATCH_SIZES)
    file = tmp_path / "batching.config"
    file.write_text(plan.to_text())
    read = read_batching_parameters(file)
    assert (read.split_large, read.max_batch_size) == (True, plan.max_batch_size)
    assert read.max_execution_batch_size == plan.max_execution_batch_size


def test_rows_wait_for_others_only_where_that_pays() -> None:
    plan = plan_batching(CHEAP, p95_ms=20, cpus=2)
    assert plan.batch_timeout_micros == 2000  # a quarter of 20 - 2 * 6 ms
    assert plan_batching(NO_GAIN, p95_ms=100, cpus=2).batch_timeout_micros == 0


@given(
    times=st.lists(st.floats(0.01, 50), min_size=1, max_size=9), p95_ms=st.floats(0.1, 1000), cpus=st.integers(1, 64)
)
def test_a_request_that_finds_the_queue_as_planned_meets_the_target(
    times: list[float], p95_ms: float, cpus: int
) -> None:
    measured = latencies(*((2**power, time) for power, time in enumerate(sorted(times))))
    try:
        plan = plan_batching(measured, p95_ms=p95_ms, cpus=cpus)
    except ExportError:
        assert 2 * measured[0].p95_ms > p95_ms
        return
    batch = next(entry.p95_ms for entry in measured if entry.rows == plan.max_execution_batch_size)
    # Its own batch, the one that runs, and the wait for more rows.
    assert 2 * batch + plan.batch_timeout_micros / 1e3 <= p95_ms + 1e-9
    assert plan.max_enqueued_batches >= plan.num_batch_threads == cpus


def test_a_target_out_of_reach_is_refused_with_one_within() -> None:
    message = "A 95th percentile of 0.1 ms cannot be met: a batch of 1 takes 0.15 ms .* give at least 0.3 ms"
    with pytest.raises(ExportError, match=message):
        plan_batching(CHEAP, p95_ms=0.1, cpus=2)


def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=f"Cannot measure the model in {tmp_path}: it has no assets.extra/tf_serving_warmup_requests"
    ):
        measure_latency(tmp_path)
