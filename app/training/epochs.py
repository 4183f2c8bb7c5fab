"""What an epoch brought, and what is wanted after it. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What the coordinator wants of a trial after an epoch, or in the middle of one."""

    GO_ON = "go on"
    STOP = "stop"
    ANSWER = "answer"
    """End, but come to an answer: of the first epoch, what is trained by now is judged as if it were whole."""


class NonFiniteError(Exception):
    """The loss or the predictions became NaN or infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What one epoch brought.

    Attributes:
        epoch: Number of epochs trained so far, from 1.
        objective: Value of the objective on the validation rows; NaN when there are none to select on.
        scalars: Tag -> value for TensorBoard.
        fold: The fold, from 1, of which this is an epoch; 0 where there are no folds, and for a whole fold, whose
            number is `epoch` then.
    """

    epoch: int
    objective: float
    scalars: Mapping[str, float]
    fold: int = 0


Report = Callable[[EpochResult], None]
Ask = Callable[[], Verdict]
