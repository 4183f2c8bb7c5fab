"""How the time of an experiment is divided between the search and what comes after it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

START_SHARE = 0.8
SECONDS_PER_ROW = 1e-4
SECONDS_PER_COLUMN = 0.1
"""Test, baselines, export, verification and report take about as long as a worker needs to import TensorFlow and open
the experiment, which was just measured on this machine; more for every row (baseline, bootstrap) and every column (each
is some operations in each of the graphs that are traced, saved and loaded)."""

NETWORK_SHARE = 0.06
"""Each network of an ensemble beyond the first is built, saved, traced and loaded: this much of the same time."""

REFIT_FACTOR = 1.35
"""The final training has the validation rows too, and traces its graph anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBudget:
    """Wall-clock time for everything, final training and export included.

    Attributes:
        end: When everything is to be done, in seconds since the epoch; infinity without a limit.
        finishing: Seconds to keep for what comes after the final training.
    """

    end: float
    finishing: float

    @classmethod
    def starting_at(
        cls, start: float, *, seconds: float, opening: float, num_rows: int, num_columns: int = 0, num_networks: int = 1
    ) -> TimeBudget:
        """Returns the budget of `seconds` from `start`.

        A budget too short for a search and a proper end is split in halves.

        Args:
            start: When the time began to count, in seconds since the epoch.
            seconds: Length; 0 for no limit.
            opening: Seconds that it took to open the experiment on a worker.
            num_rows: Rows of the table.
            num_columns: Columns of the table that are used.
            num_networks: Networks that answer together at most.
        """
        if not seconds:
            return cls(end=math.inf, finishing=0.0)
        size = min(15.0, SECONDS_PER_ROW * num_rows) + SECONDS_PER_COLUMN * num_columns
        finishing = 3.0 + (START_SHARE + NETWORK_SHARE * (num_networks - 1)) * opening + size
        return cls(end=start + seconds, finishing=min(finishing, seconds / 2))

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.time()

    def trial_deadline(self, refit_seconds: float, *, repeated: float = 1.0) -> float:
        """Returns when a trial that starts now has to stop.

        What it may take is bounded twice: the best trial so far must still be refitted after it, and so must the
        trial itself if it becomes the best.

        Args:
            refit_seconds: What the best trial's final training will take.
            repeated: Share of a trial that its final training repeats; one fold of several is a part of a trial.
        """
        if math.isinf(self.end):
            return math.inf
        now = time.time()
        usable = self.end - self.finishing - now
        return now + min(usable - refit_seconds, usable / (1.0 + REFIT_FACTOR * repeated))
