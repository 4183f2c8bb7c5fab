"""Which devices a worker trains on, when there are several of either; no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.config import Placement as PlacementMode
from app.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A worker's place among the workers of a search, from which follow its devices and its share of the cores.

    Attributes:
        worker: Which one, from 0.
        num_workers: How many there are.
        threads: Threads that TensorFlow may use; 0 for as many as there are cores.
    """

    worker: int = 0
    num_workers: int = 1
    threads: int = 0


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
    small trials side by side finish sooner than the same trials one after the other on all devices.

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
        chosen = "as asked" if mode is PlacementMode.MIRRORED else "there is one worker"
        return Assignment(devices=tuple(devices), reason=f"each trial on all devices: {chosen}")
    chosen = "as asked" if mode is PlacementMode.PER_DEVICE else f"there are {seat.num_workers} workers"
    return Assignment(
        devices=(devices[seat.worker % len(devices)],),
        reason=f"each trial on one of {named}: {chosen}",
    )
