"""Medians with their spread, and whether a target is reached."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """Repetitions of one measurement.

    Attributes:
        name: What was measured.
        seconds: Wall time of every repetition, in seconds.
    """

    name: str
    seconds: Sequence[float]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        spread = f"{min(self.seconds):.3f} - {max(self.seconds):.3f}"
        return f"{self.name:<24} {self.median:8.3f} s   (min - max {spread}, {len(self.seconds)} runs)"


def ratios(of: Measurement, to: Measurement) -> Measurement:
    """Returns the ratio of each repetition of `of` to the repetition of `to` that ran beside it."""
    paired = [one / other for one, other in zip(of.seconds, to.seconds, strict=True)]
    return Measurement(f"{of.name} / {to.name}", paired)


def ratio_line(of: Measurement, to: Measurement) -> str:
    """Returns the ratio of the medians, with the spread of the ratios of neighbouring repetitions."""
    paired = ratios(of, to).seconds
    ratio = of.median / to.median
    return f"{of.name} / {to.name}: {ratio:.3f}   (neighbouring runs {min(paired):.3f} - {max(paired):.3f})"


def verdict(*, reached: bool) -> str:
    """Returns one word for a target."""
    return "reached" if reached else "MISSED"


def machine_line() -> str:
    """Returns the cores and how busy they are; ratios from a machine that others use mean little."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    return f"{cores} cores, load average {load:.1f}" + ("   (BUSY: others use this machine)" if load > cores else "")
