"""The time that KerasTuner's searches and those built on it are held to; runs in the environments of the peers."""

from __future__ import annotations

import math
import time
from typing import Any


class SearchClock:
    """The time of a search, from its first trial on.

    Args:
        seconds: Time for the trials; a final training after them has as much again at most.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = math.inf

    @property
    def spent(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.end

    def callback(self) -> Any:
        """Returns a callback that ends a training when the time is over."""
        import keras

        clock = self

        class OutOfTime(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                # In the middle of an epoch, too: one of a large network takes longer than a whole search.
                del batch, logs
                self.model.stop_training = self.model.stop_training or clock.spent

        return OutOfTime()

    def limit(self, oracle: Any) -> None:
        """Lets an oracle of KerasTuner say that it is done when the time is over."""
        import keras_tuner
        from keras_tuner.engine import trial as trials

        create = oracle.create_trial

        def create_in_time(tuner_id: str) -> Any:
            if math.isinf(self.end):
                self.end = time.monotonic() + self.seconds
            if not self.spent:
                return create(tuner_id)
            self.end = time.monotonic() + self.seconds
            return trials.Trial(keras_tuner.HyperParameters(), status=trials.TrialStatus.STOPPED)

        oracle.create_trial = create_in_time
