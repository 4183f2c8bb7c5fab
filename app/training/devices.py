"""Which devices a worker trains on, when there are several of either; no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.config import ExecutionConfig, ExecutorKind
from app.config import Placement as PlacementMode
from app.errors import ConfigError

LARGE_NETWORK = 20_000_000
"""Weights from which `auto` trains a network on all devices at once.

Side by side, trials lose nothing to waiting for each other, so small networks train that way. A network of this size
(ResNet-50 has 25 million) holds 16 bytes a weight with its gradients and Adam's moments, and takes so long that few
trials would end in the time of a search.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A worker's place among the workers of a search, from which follow its devices and its share of the cores.

    Attributes:
        worker: Which one, from 0.
        num_workers: How many there are.
        threads: Threads that TensorFlow may use; 0 for as many as there are cores.
        gathered: Why it has all devices although there could be a worker for each; empty where that was not asked.
    """

    worker: int = 0
    num_workers: int = 1
    threads: int = 0
    gathered: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The devices of one worker.

    Attributes:
        devices: One, or several that train each trial in step.
        reason: Why these, for people; empty where there was nothing to choose.
    """

    devices: tuple[str, ...]
    reason: str


def assign_devices(devices: Sequence[str], *, seat: Seat, mode: PlacementMode) -> Assignment:
    """Returns the devices of the worker on `seat`.

    `auto` lets one worker use all devices for each trial, and gives each of several workers a device of its own: many
    small trials side by side finish sooner than the same trials one after the other on all devices. Whether networks
    are small is known only when the first worker has declared the space: see `why_gather`.

    Args:
        devices: All that there are to use, at least one.
        seat: The worker.
        mode: How trials are laid out.

    Raises:
        ConfigError: Several workers would each take all devices.
    """
    named = ", ".join(devices)
    if len(devices) == 1:
        shared = seat.num_workers > 1 and devices[0].startswith("GPU")
        return Assignment(devices=tuple(devices), reason=f"shared by {seat.num_workers} workers" if shared else "")
    if mode is PlacementMode.MIRRORED and seat.num_workers > 1:
        raise ConfigError(
            f"placement is mirrored with {seat.num_workers} workers: expected 1 worker, since each trial takes all of "
            f"{named}"
        )
    if mode is PlacementMode.MIRRORED or (mode is PlacementMode.AUTO and seat.num_workers == 1):
        chosen = "as asked" if mode is PlacementMode.MIRRORED else seat.gathered or "there is one worker"
        return Assignment(devices=tuple(devices), reason=f"each trial on all devices: {chosen}")
    chosen = "as asked" if mode is PlacementMode.PER_DEVICE else f"there are {seat.num_workers} workers"
    return Assignment(
        devices=(devices[seat.worker % len(devices)],),
        reason=f"each trial on one of {named}: {chosen}",
    )


def may_gather(config: ExecutionConfig, *, seat: Seat) -> bool:
    """Whether the size of the networks decides on the layout: nobody has asked for one, and there is a choice."""
    asked = config.workers or config.placement is not PlacementMode.AUTO
    return not asked and config.executor is ExecutorKind.LOCAL and seat.num_workers > 1


def why_gather(num_parameters: int) -> str:
    """Returns why one worker should have all devices for a network of so many weights, or nothing.

    Args:
        num_parameters: Weights of the default network of a space.
    """
    if num_parameters < LARGE_NETWORK:
        return ""
    return f"the default network has {num_parameters:,} weights, {LARGE_NETWORK:,} or more"
