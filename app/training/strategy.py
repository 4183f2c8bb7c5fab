"""Which devices a worker trains on, and in which precision (TensorFlow).

With several devices a `tf.distribute.MirroredStrategy` keeps one replica on each; the batch is global and divided
among them. `TableContext.global_batch` has the arithmetic of the batch, `search_spaces.recipe.learning_rate_factor`
that of the learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from app.config import Placement as PlacementMode
from app.config import Precision, TrainingConfig
from app.errors import ConfigError
from app.training.devices import Seat, assign_devices

TENSOR_CORES = (7, 0)
"""CUDA compute capability from which float16 is faster than float32."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a worker trains.

    Attributes:
        strategy: TensorFlow's distribution strategy.
        description: One sentence for people.
    """

    strategy: Any
    description: str

    @property
    def num_replicas(self) -> int:
        """Number of copies of the network that train in step."""
        return int(self.strategy.num_replicas_in_sync)


def prepare_devices(
    config: TrainingConfig, *, seat: Seat | None = None, mode: PlacementMode = PlacementMode.AUTO
) -> Placement:
    """Chooses devices, threads and precision; call once, before TensorFlow touches a device.

    Args:
        config: Devices and precision that the user asked for.
        seat: Which of several workers this is; None for the only one.
        mode: How trials are laid out over the devices.

    Raises:
        ConfigError: A device does not exist here, or is named twice.
    """
    seat = seat or Seat()
    if seat.threads:
        _limit_threads(seat.threads)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Without this TensorFlow takes all memory of every GPU at its first operation.
        tf.config.experimental.set_memory_growth(gpu, True)
    every = list(config.devices) or [f"GPU:{index}" for index in range(len(gpus))] or ["CPU:0"]
    if len(set(every)) < len(every):
        raise ConfigError(f"devices are {', '.join(every)}: expected each one once")
    assignment = assign_devices(every, seat=seat, mode=mode)
    devices = _visible(assignment.devices, gpus, pinned=len(every) > 1)
    known = {device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()}
    for device in devices:
        if device not in known:
            raise ConfigError(f"device {device} does not exist here: expected one of {', '.join(sorted(known))}")
    if not any(device.startswith("GPU") for device in devices):
        # Rewriting the graph costs half a second a trial and gains nothing for small networks on a CPU.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    mixed = _mixed_precision(config.precision, assignment.devices, gpus)
    keras.config.set_dtype_policy("mixed_float16" if mixed else "float32")
    how = ["mixed float16" if mixed else "float32"]
    if seat.threads:
        how.append(f"{seat.threads} thread{'s' if seat.threads > 1 else ''} a worker")
    if assignment.reason:
        how.append(assignment.reason)
    if len(devices) > 1:
        strategy = tf.distribute.MirroredStrategy(devices)
        return Placement(strategy, f"MirroredStrategy over {', '.join(devices)}, {', '.join(how)}")
    strategy = tf.distribute.get_strategy()
    if config.devices and devices != ["CPU:0"]:
        strategy = tf.distribute.OneDeviceStrategy(devices[0])
    return Placement(strategy, f"{assignment.devices[0]}, {', '.join(how)}")


def _limit_threads(threads: int) -> None:
    """Leaves the other cores to the other workers."""
    # An experiment may be opened twice in one process; the first time has settled it.
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def _visible(assigned: Sequence[str], gpus: Sequence[Any], *, pinned: bool) -> list[str]:
    """Shows TensorFlow the assigned devices and no others; returns what it calls them from then on."""
    chosen = [index for index in range(len(gpus)) if f"GPU:{index}" in assigned]
    absent = [device for device in assigned if device.startswith("GPU") and int(device[4:]) >= len(gpus)]
    # Otherwise whatever runs outside a strategy, evaluation included, would go to the first GPU.
    tf.config.set_visible_devices([gpus[index] for index in chosen], "GPU")
    cpus = [device for device in assigned if device.startswith("CPU")]
    if pinned and list(assigned) == cpus and len(cpus) == 1:
        return ["CPU:0"]  # a logical one of another process's has no number here
    _split_cpu(cpus)
    return [f"GPU:{index}" for index in range(len(chosen))] + absent + cpus


def _split_cpu(devices: Sequence[str]) -> None:
    """Makes as many logical CPUs as `devices` names."""
    wanted = sum(device.startswith("CPU") for device in devices)
    if wanted > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)


def _mixed_precision(precision: Precision, devices: Sequence[str], gpus: Sequence[Any]) -> bool:
    if precision is not Precision.AUTO:
        return precision is Precision.MIXED
    used = [gpu for index, gpu in enumerate(gpus) if f"GPU:{index}" in devices]
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in used]
    return bool(capabilities) and all(c is not None and tuple(c) >= TENSOR_CORES for c in capabilities)
