from __future__ import annotations

import pytest

from app.config import ExecutionConfig, ExecutorKind, Placement
from app.errors import ConfigError
from app.training.devices import LARGE_NETWORK, Assignment, Seat, assign_devices, may_gather, why_gather

GPUS = ("GPU:0", "GPU:1", "GPU:2")


def assigned(mode: Placement, *, num_workers: int, devices: tuple[str, ...] = GPUS) -> list[Assignment]:
    """What each of the workers gets."""
    seats = [Seat(worker=worker, num_workers=num_workers) for worker in range(num_workers)]
    return [assign_devices(devices, seat=seat, mode=mode) for seat in seats]


def test_one_device_leaves_nothing_to_choose() -> None:
    for mode in Placement:
        assert assigned(mode, num_workers=1, devices=("CPU:0",)) == [Assignment(devices=("CPU:0",), reason="")]
    shared = assigned(Placement.AUTO, num_workers=2, devices=("GPU:0",))
    assert {assignment.reason for assignment in shared} == {"shared by 2 workers"}


def test_one_worker_trains_on_all_devices_and_says_why() -> None:
    (alone,) = assigned(Placement.AUTO, num_workers=1)
    assert alone == Assignment(devices=GPUS, reason="each trial on all devices: there is one worker")
    (asked,) = assigned(Placement.MIRRORED, num_workers=1)
    assert asked.reason == "each trial on all devices: as asked"


def test_several_workers_have_a_device_each_and_share_when_there_are_fewer() -> None:
    several = assigned(Placement.AUTO, num_workers=4)
    assert [assignment.devices for assignment in several] == [("GPU:0",), ("GPU:1",), ("GPU:2",), ("GPU:0",)]
    assert several[0].reason == "each trial on one of GPU:0, GPU:1, GPU:2: there are 4 workers"


def test_per_device_pins_a_single_worker_too() -> None:
    (alone,) = assigned(Placement.PER_DEVICE, num_workers=1)
    assert alone == Assignment(devices=("GPU:0",), reason="each trial on one of GPU:0, GPU:1, GPU:2: as asked")


def test_several_workers_cannot_each_mirror_over_all_devices() -> None:
    with pytest.raises(ConfigError, match=r"mirrored with 2 workers: expected 1 worker.*all of GPU:0, GPU:1, GPU:2"):
        assigned(Placement.MIRRORED, num_workers=2)


def test_the_reason_for_all_devices_is_the_size_where_that_decided() -> None:
    seat = Seat(gathered=why_gather(25_000_000))
    assert assign_devices(GPUS, seat=seat, mode=Placement.AUTO) == Assignment(
        devices=GPUS,
        reason="each trial on all devices: the default network has 25,000,000 weights, 20,000,000 or more",
    )
    assert why_gather(LARGE_NETWORK)
    assert why_gather(LARGE_NETWORK - 1) == ""


@pytest.mark.parametrize(
    ("config", "num_workers", "expected"),
    [
        (ExecutionConfig(), 2, True),
        (ExecutionConfig(), 1, False),
        (ExecutionConfig(workers=2), 2, False),
        (ExecutionConfig(placement=Placement.PER_DEVICE), 2, False),
        (ExecutionConfig(executor=ExecutorKind.RAY), 2, False),
    ],
)
def test_size_decides_only_where_nobody_else_has(config: ExecutionConfig, num_workers: int, expected: bool) -> None:
    assert may_gather(config, seat=Seat(num_workers=num_workers)) is expected
