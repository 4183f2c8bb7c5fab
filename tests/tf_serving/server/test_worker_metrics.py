from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tf_serving.server.metrics import Metrics
from tf_serving.server.worker_metrics import WorkerMetrics, added, keep_counts


def counted(requests: int, *, available: int = 1) -> Metrics:
    metrics = Metrics()
    metrics.request_count.add("m", "OK", by=requests)
    for number in range(requests):
        metrics.request_latency.observe(10.0**number, "m", "predict", "REST")
        metrics.requests.add("m", "1", "predict", "REST", "OK")
    metrics.available.labels("m", "1").set(available)
    metrics.queue_depth.labels("rest").set(requests)
    metrics.load_seconds.labels("m", "1").set(requests)
    return metrics


def value(page: bytes, series: str) -> float:
    (line,) = [line for line in page.decode().splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


def test_any_worker_tells_the_sums_of_all(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / str(other.pid)).write_bytes(counted(3, available=0).page())
        page = WorkerMetrics(counted(2), tmp_path).page()
        other.kill()
    assert value(page, ':tensorflow:serving:request_count{model_name="m",status="OK"}') == 5
    count = ':tensorflow:serving:request_latency_count{model_name="m",API="predict",entrypoint="REST"}'
    assert value(page, count) == 5
    assert value(page, count.replace("_count{", "_sum{")) == 11 + 111
    counter = 'tamiz_requests_total{code="OK",method="predict",model="m",protocol="REST",version="1"}'
    assert value(page, counter) == 5
    assert value(page, "tamiz_processes") == 2
    assert value(page, 'tamiz_queue_depth{queue="rest"}') == 5
    # A version is available where all have it, and has loaded when the slowest has.
    assert value(page, 'tamiz_model_available{model="m",version="1"}') == 0
    assert value(page, 'tamiz_model_load_seconds{model="m",version="1"}') == 3


def test_the_page_of_one_is_unchanged_by_adding() -> None:
    page = counted(2).page().decode()
    kept = [line for line in page.splitlines() if line.startswith("#")]
    assert [line for line in added([page]).splitlines() if line.startswith("#")] == kept
    assert added([added([page])]) == added([page])
    compatible = added([page], compatible_only=True)
    assert "tamiz" not in compatible
    assert ":tensorflow:serving:request_count" in compatible


def test_counts_of_a_worker_that_died_stay_and_its_gauges_go(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    (tmp_path / str(dead.pid)).write_bytes(counted(3).page())
    own = WorkerMetrics(counted(2), tmp_path)
    keep_counts(tmp_path, dead.pid)
    assert not (tmp_path / str(dead.pid)).exists()
    # Written once more by the dying worker: it is not counted twice.
    (tmp_path / str(dead.pid)).write_bytes(counted(3).page())
    keep_counts(tmp_path, os.getppid())  # one that never wrote
    page = own.page()
    assert value(page, ':tensorflow:serving:request_count{model_name="m",status="OK"}') == 5
    assert value(page, 'tamiz_queue_depth{queue="rest"}') == 2
    assert value(page, "tamiz_processes") == 1


def test_a_full_disk_ends_no_worker(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    metrics = WorkerMetrics(counted(2), gone)
    metrics._stopping.set()
    metrics.start()
    keep_counts(gone, 1)
    assert value(metrics.page(), "tamiz_processes") == 1
    metrics.close()
