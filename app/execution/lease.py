"""How long a worker may be silent before it counts as hung."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from app.execution.messages import (
    ExportModel,
    MeasureExport,
    OpenRun,
    OpenTest,
    Predict,
    RankCells,
    Request,
    SaveEnsemble,
    TrainFinal,
)

DOING: Mapping[type[Request], str] = {
    OpenRun: "opening the experiment",
    TrainFinal: "training the final model",
    RankCells: "training shared weights",
    SaveEnsemble: "building the ensemble",
    OpenTest: "judging the sealed test rows",
    ExportModel: "exporting the model",
    MeasureExport: "measuring the exported model",
    Predict: "answering rows",
}
"""What a worker does that was sent a request, as people call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long a worker may be silent before it counts as hung, in seconds.

    A trial traces its graph before its first word, later it gives a sign of life about once a second. What is usual
    is learned from the trials so far: `factor` times the longest silence of one that lived, within these bounds.

    Attributes:
        first: At most this before a trial's first word, and between two words of whatever is no trial.
        later: At most this between two words.
        least: Never less than this.
        factor: How much longer than usual a silence may be.
    """

    first: float = 900.0
    later: float = 300.0
    least: float = 60.0
    factor: float = 20.0

    def allowed(self, *, before_first_word: bool, longest: float) -> float:
        """Returns how long the next silence may be, in seconds.

        Args:
            before_first_word: Whether nothing has been heard of the trial.
            longest: The longest such silence so far; 0 when none has been seen.
        """
        most = self.first if before_first_word else self.later
        return min(most, max(self.least, self.factor * longest)) if longest else most

    def grace(self, longest: float) -> float:
        """Returns how long after its deadline a trial may still be busy, in seconds.

        The very first trial may be tracing its graph when its time is up.
        """
        return max(self.least / 2, 3 * longest) if longest else self.least

    def allowed_for(self, request: type[Request]) -> float:
        """Returns how long a silence may be while a worker does what is no trial, in seconds.

        Whoever has rows answered waits for them, however many they are, and can end it; nobody watches the rest.
        """
        return math.inf if request is Predict else self.first


def hung(silence: float, *, doing: str) -> str:
    """Returns why a worker was given up that was silent for `silence` seconds."""
    return f"the worker hung: nothing was heard of it for {silence:.0f} s of {doing}"


def after_a_hang(directory: str) -> str:
    """Returns what to do when something else than a trial has hung.

    Args:
        directory: The run directory.
    """
    where = f"{directory}/logs tells what the worker did last"
    return f"go on with `tamiz resume {directory}`; if it hangs there again, {where}"
