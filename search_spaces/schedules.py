"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tamiz")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to a peak, then half a cosine down to zero (Loshchilov & Hutter, 2017, without restarts).

    The same curve as `keras.optimizers.schedules.CosineDecay` with a warm-up from ``peak / warmup_steps``, in plain
    arithmetic: that one branches in the graph, which costs more than the rest of a small network's update.

    Args:
        peak: Largest learning rate, above 0.
        total_steps: Steps until zero, warm-up included.
        warmup_steps: Steps of the warm-up, below `total_steps`; 0 for none.
    """

    def __init__(self, peak: float, *, total_steps: int, warmup_steps: int = 0) -> None:
        super().__init__()
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"warmup_steps is {warmup_steps}: expected at least 0 and below total_steps {total_steps}")
        self.peak, self.total_steps, self.warmup_steps = float(peak), int(total_steps), int(warmup_steps)

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of step `step` (from 0)."""
        step = ops.cast(step, "float32")
        done = ops.clip((step - self.warmup_steps) / (self.total_steps - self.warmup_steps), 0.0, 1.0)
        rate = 0.5 * self.peak * (1.0 + ops.cos(math.pi * done))
        if not self.warmup_steps:
            return rate
        start = self.peak / self.warmup_steps
        return ops.minimum(rate, start + (self.peak - start) * step / self.warmup_steps)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same schedule."""
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="tamiz")
class LogCycles(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine cycles from zero up to a peak and back, each twice as long as the one before (coslog).

    ``peak / 2 * (1 - cos(2 pi log2(1 + (2^cycles - 1) t)))`` at the share ``t`` of all steps (Holzmueller et al.,
    NeurIPS 2024, section 3). The network is at rest at the end of every cycle, and what it has learned by then looks
    worse for much of the next one: a training must not be given up inside a cycle.

    Args:
        peak: Largest learning rate, above 0.
        total_steps: Steps of all cycles.
        num_cycles: Cycles.
    """

    def __init__(self, peak: float, *, total_steps: int, num_cycles: int = 4) -> None:
        super().__init__()
        if total_steps < 1 or num_cycles < 1:
            raise ValueError(f"total_steps is {total_steps} and num_cycles {num_cycles}: expected at least 1 of each")
        self.peak, self.total_steps, self.num_cycles = float(peak), int(total_steps), int(num_cycles)

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of step `step` (from 0)."""
        share = ops.clip(ops.cast(step, "float32") / self.total_steps, 0.0, 1.0)
        cycles = ops.log2(1.0 + (2.0**self.num_cycles - 1.0) * share)
        return 0.5 * self.peak * (1.0 - ops.cos(2.0 * math.pi * cycles))

    def resting_at(self, step: int) -> LogCycles:
        """Returns the cycles that are over at `step` (from 1), as many as these have nearly gone through by then."""
        share = min(step / self.total_steps, 1.0)
        done = math.log2(1.0 + (2.0**self.num_cycles - 1.0) * share)
        return LogCycles(self.peak, total_steps=step, num_cycles=max(1, round(done)))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same schedule."""
        return {"peak": self.peak, "total_steps": self.total_steps, "num_cycles": self.num_cycles}


@keras.saving.register_keras_serializable(package="tamiz")
class FlatCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A constant for the first half of all steps, then half a cosine down to zero.

    Args:
        start: The constant.
        total_steps: Steps until zero.
    """

    def __init__(self, start: float, *, total_steps: int) -> None:
        super().__init__()
        if total_steps < 1:
            raise ValueError(f"total_steps is {total_steps}: expected at least 1")
        self.start, self.total_steps = float(start), int(total_steps)

    def __call__(self, step: Any) -> Any:
        """Returns the value at step `step` (from 0)."""
        return self.start * flat_cosine(ops.cast(step, "float32") / self.total_steps)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same schedule."""
        return {"start": self.start, "total_steps": self.total_steps}


def flat_cosine(share: Any) -> Any:
    """Returns 1 up to half of all steps and then half a cosine down to 0.

    Args:
        share: Share of the steps that is done, a float32 tensor.
    """
    return 0.5 * (1.0 + ops.cos(math.pi * ops.clip(2.0 * share - 1.0, 0.0, 1.0)))


def runs_in_cycles(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether a network gets worse before it gets better: see `LogCycles`."""
    return isinstance(_schedule(optimizer), LogCycles)


def last_step(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the step from which on the rate is zero and nothing is learned any more; infinity without such a one."""
    schedule = _schedule(optimizer)
    return float(schedule.total_steps) if isinstance(schedule, (LogCycles, WarmupCosine)) else math.inf


def rest_at(optimizer: keras.optimizers.Optimizer, step: int) -> None:
    """Lets a rate that goes through cycles end at `step`; call it before the first step.

    The best epoch of one training need not lie at the end of a cycle, and is luck where it does not: another one that
    stops there, in the middle of a cycle, is worse.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if isinstance(optimizer._learning_rate, LogCycles):
        optimizer.learning_rate = optimizer._learning_rate.resting_at(step)


def _schedule(optimizer: keras.optimizers.Optimizer) -> Any:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer._learning_rate
