"""How long a worker may be silent before it counts as hung."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long a worker may be silent before it counts as hung, in seconds.

    A trial traces its graph before its first word, later it gives a sign of life about once a second. What is usual
    is learned from the trials so far: `factor` times the longest silence of one that lived, within these bounds.

    Attributes:
        first: At most this before a trial's first word, or before a worker has opened the experiment.
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
