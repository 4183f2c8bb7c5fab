"""The network that a trial of the search came to (TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.search.space import Value
from app.training.checkpoint import load_state
from app.training.network import Network, TrainingPart
from app.training.trainer import Trainer


def network_of_trial(trainer: Trainer, part: TrainingPart, *, values: Mapping[str, Value], state: Path) -> Network:
    """Returns a network with the weights of a trial's best epoch.

    Args:
        trainer: Builds networks.
        part: What the trial was trained on.
        values: Its hyperparameters.
        state: Folder of its state.

    Raises:
        CheckpointError: The weights are damaged.
        FileNotFoundError: They were not kept.
    """
    arrays = load_state(state / "best")[0]["model"]
    network = trainer.network(values, part, num_rows=part.rows.num_rows, seed=0)
    for variable, array in zip(network.model.variables, arrays, strict=True):
        variable.assign(array)
    return network
