from __future__ import annotations

import sys
import warnings

import pytest

from app.errors import ConfigError, WorkerError
from app.execution.ray_executor import RayExecutor, Share, share_of


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed: expected `pip install 'tamiz\[ray\]'`"):
        RayExecutor()


def test_no_worker_is_refused() -> None:
    with pytest.raises(ValueError, match="num_workers is 0: expected at least 1"):
        RayExecutor(num_workers=0)


def test_a_cluster_that_is_not_there_is_named() -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(WorkerError, match=r"no Ray cluster at 'nowhere' .*: expected an address such as auto or ray://"):
        RayExecutor(address="nowhere")


def test_a_head_that_does_not_answer_is_told_of_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")

    def time_out(**_: object) -> None:
        # What it does after half a minute.
        warnings.warn("Ray Client connection timed out.", stacklevel=2)
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", time_out)
    told = r"no Ray cluster at 'ray://nowhere:1' \(ConnectionError: ray client connection timeout\)"
    with warnings.catch_warnings(record=True) as warned, pytest.raises(WorkerError, match=told):
        RayExecutor(address="ray://nowhere:1")
    assert warned == []


def test_the_cores_of_a_cluster_are_divided_so_that_every_worker_fits_on_a_machine() -> None:
    machines = [{"CPU": 8.0}, {"CPU": 3.0}]
    assert share_of(machines, num_workers=1) == Share(cores=8, gpus=0)
    assert share_of(machines, num_workers=2) == Share(cores=4, gpus=0)
    assert share_of(machines, num_workers=3) == Share(cores=3, gpus=0)
    assert share_of(machines, num_workers=11) == Share(cores=1, gpus=0)


def test_workers_go_where_the_gpus_are() -> None:
    machines = [{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}]
    assert share_of(machines, num_workers=1) == Share(cores=8, gpus=2)
    assert share_of(machines, num_workers=2) == Share(cores=4, gpus=1)
    assert share_of(machines, num_workers=3) == Share(cores=2, gpus=0.5)


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(WorkerError, match="the Ray cluster has 3 cores: expected at most so many workers, not 4"):
        share_of([{"CPU": 2.0}, {"CPU": 1.0}], num_workers=4)
