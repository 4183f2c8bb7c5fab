"""Learning-rate schedules."""

from __future__ import annotations

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
        rate = 0.5 * self.peak * (1.0 + ops.cos(3.141592653589793 * done))
        if not self.warmup_steps:
            return rate
        start = self.peak / self.warmup_steps
        return ops.minimum(rate, start + (self.peak - start) * step / self.warmup_steps)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same schedule."""
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup_steps": self.warmup_steps}
