"""What coordinator and workers say to each other; plain data, no TensorFlow.

The messages travel through a pipe between two processes of the same program and are never written to disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.evaluation.predictions import Predictions
from app.search.limits import Limit
from app.search.ranked_cell import RankedCell
from app.search.space import Parameter, Space, Value
from app.search.trial import Outcome
from app.training.devices import Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """Open an experiment: load and encode its rows, declare its space. Answered by `RunOpened`.

    Attributes:
        directory: The run directory.
        objective: Name of the metric to select by.
        max_epochs: Epochs of a trial at full budget.
        seed: The experiment's seed.
        seat: Filled in by the executor.
        measure: What to measure of every trial beside the objective: measures of the model (`MODEL_MEASURES`), and
            names of metrics, each of which comes back as a number to minimise.
        limits: A network that breaks one of them before it is trained is not trained.
        folds: Folds of the cross-validation that the budgets of trials count; 1 for budgets in epochs, judged on the
            validation rows.
    """

    directory: str
    objective: str
    max_epochs: int
    seed: int
    seat: Seat = field(default_factory=Seat)
    measure: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    folds: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOpened:
    """A worker has opened the experiment.

    Attributes:
        space: The declared space.
        devices: One sentence on devices and precision.
        num_replicas: Replicas of MirroredStrategy.
        memory: Resident memory of the worker, in bytes.
        alone: Why no trial of this search can train in a pack; empty when they can.
        gather: Why one worker with all devices would serve this search better than one a device; empty when not.
        portfolio: Configurations known to be good, which are tried first; what they leave out takes its default.
        epoch_rows: Training rows that an epoch sees; 0 for all of them.
        num_columns: Encoded columns, a categorical one counting as one.
    """

    space: Space
    devices: str
    num_replicas: int
    memory: int = 0
    alone: str = ""
    gather: str = ""
    portfolio: tuple[Mapping[str, Value], ...] = ()
    epoch_rows: int = 0
    num_columns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrial:
    """Train a trial; answered by `EpochEnded` for every epoch and one `TrialEnded`.

    Attributes:
        number: The trial.
        hyperparameters: Active parameters.
        budget: Epochs to reach, or folds.
        space: The space as the coordinator knows it.
        deadline: Time (seconds since the epoch) at which to stop; infinity for none.
        leave_above: Mean losses after the first, second ... fold above which the trial is pruned; () for never.
        past_limits: Train it even if its network breaks a limit, because no network has kept them.
        has_to_answer: Judge it at the deadline even in the middle of its first epoch, because no trial has a result.
    """

    number: int
    hyperparameters: Mapping[str, Value]
    budget: int
    space: Space
    deadline: float
    leave_above: tuple[float, ...] = ()
    past_limits: bool = False
    has_to_answer: bool = False


@dataclass(frozen=True, slots=True)
class StopTrial:
    """End a trial in flight at the next look at the messages.

    Attributes:
        trial: Which one; None for all that this worker trains.
    """

    trial: int | None = None


@dataclass(frozen=True, slots=True)
class StillWorking:
    """A sign of life between two epochs, sent about once a second: what is silent for too long hangs.

    Attributes:
        memory: Resident memory of the worker, in bytes.
    """

    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPack:
    """Train several trials together in one graph; answered by `EpochEnded` and one `TrialEnded` of each of them.

    Attributes:
        trials: The members; `search_spaces.pack_shapes.pack_shape` is the same for all, and so is the budget.
    """

    trials: tuple[RunTrial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCells:
    """Train a supernet and rank cells by it; answered by `EpochEnded` for every epoch and one `CellsRanked`.

    Attributes:
        hyperparameters: A cell's parameters; all but its edges are those of the supernet.
        space: The space of cells.
        epochs: Epochs to train the supernet.
        train_until: When its training has to end, in seconds since the epoch; infinity for no limit.
        rank_until: When the ranking has to end.
        most: Most cells.
    """

    hyperparameters: Mapping[str, Value]
    space: Space
    epochs: int
    train_until: float
    rank_until: float
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsRanked:
    """Cells were ranked by shared weights.

    Attributes:
        cells: The best first.
        epochs: Epochs that the supernet was trained.
        seconds: Wall time.
        epoch_seconds: Wall time of an epoch of the supernet.
        graph_seconds: What its first epoch took beyond that.
    """

    cells: tuple[RankedCell, ...]
    epochs: int
    seconds: float
    epoch_seconds: float
    graph_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded:
    """A trial, or the final training (`trial` is None), has trained an epoch, or a whole fold.

    Attributes:
        trial: The trial.
        epoch: Epochs trained so far; folds trained so far where budgets count those.
        loss: The objective as a number to minimise.
        scalars: Tag -> value for TensorBoard.
        wall_time: When, in seconds since the epoch.
        fold: The fold, from 1, of which this is an epoch: news for TensorBoard, not yet a loss of the trial. 0 for what
            the budget counts.
    """

    trial: int | None
    epoch: int
    loss: float
    scalars: Mapping[str, float]
    wall_time: float
    fold: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial has ended or paused.

    Attributes:
        trial: The trial.
        outcome: How (R7).
        num_parameters: Weights of its network; 0 if none was built.
        seconds: Wall time that it took this time.
        new_parameters: Parameters that the space revealed only now.
        disk_full: The failure is the machine's, not the trial's: nothing can be written any more.
        lost: The worker died, hung or grew too large; the trial may be tried again from its saved state.
        memory: Resident memory of the worker, in bytes.
        measures: What was measured beside the objective, by name.
        alone_seconds: Wall time that the same training would take outside a pack, at a guess; 0 when it was in none.
    """

    trial: int
    outcome: Outcome
    num_parameters: int = 0
    seconds: float = 0.0
    new_parameters: tuple[Parameter, ...] = ()
    disk_full: bool = False
    lost: bool = False
    memory: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)
    alone_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFailed:
    """A pack could not be trained as a whole; its members that have not ended go on one by one, on the same worker.

    Attributes:
        trials: These members.
        size: Members that the pack began with.
        reason: One line for people; the worker's log has the traceback.
    """

    trials: tuple[int, ...]
    size: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReplaced:
    """The executor has ended a worker, or found it dead; unless none can be started, another takes its place.

    Attributes:
        worker: Its name.
        reason: One line for people.
    """

    worker: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFinal:
    """Train the winner from scratch and save it. Answered by `FinalTrained`.

    Attributes:
        trial: Number of the winner.
        hyperparameters: Its parameters.
        epochs: Epochs to train.
        deadline: Time (seconds since the epoch) at which to stop; one that has passed asks for the network that the
            trial came to, where it was kept and is a single one.
    """

    trial: int
    hyperparameters: Mapping[str, Value]
    epochs: int
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalTrained:
    """The final model is saved.

    Attributes:
        epochs: Epochs trained; 0 where the network of the trial was taken without trying.
        num_parameters: Weights of the network.
        seconds: Wall time.
        of_trial: Whether the network of the trial itself was saved, since there was no time to train all epochs again.
    """

    epochs: int
    num_parameters: int
    seconds: float
    of_trial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleMember:
    """A trial of an ensemble.

    Attributes:
        trial: Its number.
        hyperparameters: Its active parameters.
        weight: Its share of the average; the shares of all members sum to 1.
    """

    trial: int
    hyperparameters: Mapping[str, Value]
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveEnsemble:
    """Build and save what is exported, the final model being there. Answered by `EnsembleSaved`.

    Attributes:
        members: The most important first; () exports the winner alone.
        winner: The trial that the final model was trained from.
        temperature: Temperature of the ensemble.
        single_temperature: Temperature of the winner alone.
        deadline: Time (seconds since the epoch) from which on no further member is built.
        measure: What to measure of the model to be exported: ``latency_ms``, ``size_bytes``.
        interval_margin: What the intervals of the ensemble are widened by on either side, in the target's units.
    """

    members: tuple[EnsembleMember, ...]
    winner: int
    temperature: float
    single_temperature: float
    deadline: float
    measure: tuple[str, ...] = ()
    interval_margin: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSaved:
    """What is exported is saved.

    Attributes:
        trials: The members that were built; fewer than asked for when the time was up or a state was damaged.
        num_networks: Networks that answer together.
        num_parameters: Weights of all of them.
        measures: What was to be measured, and ``num_parameters``.
        broken: Those of the others that cannot be built: their files are damaged, or their space has changed.
    """

    trials: tuple[int, ...]
    num_networks: int
    num_parameters: int
    measures: Mapping[str, float] = field(default_factory=dict)
    broken: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenTest:
    """Open the sealed test rows and predict them with the saved model. Answered by `TestOpened`."""


@dataclass(frozen=True, slots=True)
class TestOpened:
    """Predictions of the final model on the test rows.

    Attributes:
        predictions: What the model answered, beside the truth.
        features: The encoded test rows, for the baselines.
        single: Predictions of the winner alone; None where nothing else is exported.
    """

    predictions: Predictions
    features: Mapping[str, NDArray[Any]]
    single: Predictions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportModel:
    """Export the saved model. Answered by `ModelExported`.

    Attributes:
        extra_files: Name -> content of files for assets.extra.
    """

    extra_files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class ModelExported:
    """The model is exported but not yet verified.

    Attributes:
        directory: The staged version directory.
        cases: File of raw rows and the answers that the Keras model gives on them.
    """

    directory: str
    cases: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureExport:
    """Measure latency and size of an exported model. Answered by `ExportMeasured`.

    Attributes:
        directory: The version directory of the SavedModel.
    """

    directory: str


@dataclass(frozen=True, slots=True)
class ExportMeasured:
    """``latency_ms`` and ``size_bytes`` of the exported model."""

    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predict:
    """Answer raw rows with an exported model. Answered by `Predicted`.

    Attributes:
        directory: The version directory of the SavedModel.
        columns: Raw columns, each ``(num_rows,)`` float32 or bytes.
    """

    directory: str
    columns: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Predicted:
    """Named outputs of the exported model, each with ``num_rows`` rows."""

    outputs: Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed:
    """A request could not be met.

    Attributes:
        reason: One line for people; the worker's log has the traceback.
    """

    reason: str


Trainings = RunTrial | RunPack | StopTrial | TrainFinal
Request = OpenRun | Trainings | RankCells | SaveEnsemble | OpenTest | ExportModel | MeasureExport | Predict
Progress = StillWorking | EpochEnded | PackFailed | TrialEnded
Finished = CellsRanked | FinalTrained | EnsembleSaved | TestOpened | ModelExported | ExportMeasured
Reply = RunOpened | Progress | Finished | Predicted | RequestFailed


def one_line(text: str, limit: int = 400) -> str:
    """Returns a reason of an end in one line of at most `limit` characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"
