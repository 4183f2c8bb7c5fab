"""How the time of an experiment is divided between the search and what comes after it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

FIXED_SECONDS = 5.0
START_SHARE = 0.4
SECONDS_PER_ROW = 1e-4
SECONDS_PER_COLUMN = 0.1
"""Test, baselines, export, verification and report take some seconds, and more on a slow machine, which shows in how
long a worker took to import TensorFlow and to open the experiment; more for every row (baseline, bootstrap) and every
column (each is some operations in each of the graphs that are traced, saved and loaded)."""

NETWORK_SHARE = 0.04
"""Each network of an ensemble beyond the first is built, saved, traced and loaded: this much of the same time."""

IMAGE_REBUILDING = 1.0
"""A network of images is built, traced, saved, loaded and compared anew after the search. A deep one takes longer for
that than the worker took to open: about as long as it took to build and trace for its trial."""

REFIT_FACTOR = 1.35
"""The final training has the validation rows too, and traces its graph anew."""

COMPOSE_SHARE = 0.5
"""Of the time kept for what comes after the final training, what the steps after the ensemble need."""

LEAST_REFIT = 0.5
"""Of a trial: building and tracing are paid whatever the number of epochs."""

LEAST_FOLD_REFIT = 0.3
"""Of a trial of several folds, which trained as many networks with one graph."""

REFIT_SHARE, SHARED_REFIT_SHARE = 0.15, 0.05
"""Of the whole time, that the final training may take; less where other networks answer too. What would take longer is
not done, as the same time finds a better network, and the one that the trial came to is exported."""


def refit_seconds(trial_seconds: float, *, share: float, by_folds: bool = False) -> float:
    """Returns about how long the final training of a trial takes.

    Args:
        trial_seconds: What the trial took by itself.
        share: Of its epochs, up to the best one, in [0, 1].
        by_folds: Whether it trained a network for each fold.
    """
    least = LEAST_FOLD_REFIT if by_folds else LEAST_REFIT
    return REFIT_FACTOR * trial_seconds * (least if by_folds else max(share, least))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBudget:
    """Wall-clock time for everything, final training and export included.

    Attributes:
        end: When everything is to be done, in seconds since the epoch; infinity without a limit.
        finishing: Seconds to keep for what comes after the final training.
        refitting: Most seconds for the final training.
        rebuilding: Share of the time in which a network was built that what comes after the search takes once more.
    """

    end: float
    finishing: float
    refitting: float = math.inf
    rebuilding: float = 0.0

    @classmethod
    def starting_at(
        cls,
        start: float,
        *,
        seconds: float,
        opening: float,
        num_rows: int,
        num_columns: int = 0,
        num_networks: int = 1,
        rebuilding: float = 0.0,
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
            rebuilding: As the attribute.
        """
        if not seconds:
            return cls(end=math.inf, finishing=0.0)
        size = min(15.0, SECONDS_PER_ROW * num_rows) + SECONDS_PER_COLUMN * num_columns
        finishing = FIXED_SECONDS + (START_SHARE + NETWORK_SHARE * (num_networks - 1)) * opening + size
        share = REFIT_SHARE if num_networks == 1 else SHARED_REFIT_SHARE
        return cls(
            end=start + seconds,
            finishing=min(finishing, seconds / 2),
            refitting=share * seconds,
            rebuilding=rebuilding,
        )

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.time()

    def refits(self, seconds: float, *, building: float = 0.0) -> bool:
        """Whether a final training is worth its time, and there is as much.

        Args:
            seconds: Of the training.
            building: Seconds in which its network was built for the trial.
        """
        return seconds <= min(self.refitting, self.left() - self.finishing - self.rebuilding * building)

    def trial_deadline(self, refit_seconds: float, *, building: float = 0.0, repeated: float = 0.0) -> float:
        """Returns when a trial that starts now has to stop.

        Args:
            refit_seconds: What the best trial's final training will take.
            building: Seconds in which the best trial's network was built.
            repeated: Share of a trial that must be repeated if it becomes the best; the network of a trial can be
                exported as it is, but those of several folds are not one network.
        """
        if math.isinf(self.end):
            return math.inf
        now = time.time()
        usable = self.end - self.finishing - self.rebuilding * building - now
        kept = refit_seconds if refit_seconds <= self.refitting or repeated else 0.0
        return now + min(usable - kept, usable / (1.0 + REFIT_FACTOR * repeated))

    def compose_deadline(self, building: float) -> float:
        """Returns by when the networks of an ensemble have to be together.

        Args:
            building: Seconds in which they were built for their trials, all together.
        """
        return self.end - COMPOSE_SHARE * self.finishing - self.rebuilding * building
