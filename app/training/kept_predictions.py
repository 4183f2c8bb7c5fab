"""What a trial answered on the rows that judged it, kept beside its weights: ensembles are chosen from it.

One flat file of float32 arrays for the best epoch, written by the same rules as a state; nothing in it could run code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.evaluation.predictions import Predictions
from app.state_store import PREDICTIONS_FILE
from app.training.checkpoint import CheckpointError, load_state, save_state

MOST_BYTES = 64 * 2**20
"""Of one trial on the rows of one part: with thousands of classes and many rows, predictions are larger than networks.
What is not kept cannot be a member of an ensemble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPredictions:
    """What a network answered on the rows held out from it, in their order.

    Attributes:
        probabilities: ``(num_rows, num_classes)``; None for a regression.
        values: ``(num_rows,)``, in the target's units; None for a classification.
        quantiles: ``(num_rows, num_levels)``, likewise; None where there are none.
        class_weights: Weight of every class in the loss, which its labels ask for; empty when all weigh the same.
    """

    probabilities: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None
    quantiles: NDArray[np.float32] | None = None
    class_weights: tuple[float, ...] = ()

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        kept = self.values if self.probabilities is None else self.probabilities
        return 0 if kept is None else len(kept)


def keep_predictions(state: Path, predictions: Predictions, *, class_weights: tuple[float, ...]) -> None:
    """Writes the predictions of a trial's best epoch, unless they are too large to keep.

    Args:
        state: Folder of the trial's state, or of a fold's.
        predictions: On the rows that judged it.
        class_weights: Weight of every class in the loss; empty when all weigh the same.

    Raises:
        DiskFullError: They could not be written.
    """
    found: dict[str, Any] = {name: getattr(predictions, name) for name in ("probabilities", "values", "quantiles")}
    arrays = {name: [array.astype(np.float32, copy=False)] for name, array in found.items() if array is not None}
    if sum(group[0].nbytes for group in arrays.values()) > MOST_BYTES:
        return
    save_state(state / PREDICTIONS_FILE, arrays=arrays, header={"class_weights": list(class_weights)})


def kept_predictions(state: Path) -> KeptPredictions | None:
    """Returns what `keep_predictions` wrote; None where there is nothing, or nothing that can be read."""
    try:
        groups, header = load_state(state / PREDICTIONS_FILE)
    except (OSError, CheckpointError):
        return None
    return KeptPredictions(
        **{name: group[0] for name, group in groups.items()}, class_weights=tuple(header["class_weights"])
    )
