"""A worker process: holds TensorFlow, opens one experiment, and does what the coordinator asks, one thing at a time.

Started by `app.execution.local_executor` as a fresh interpreter; it lives for the whole experiment, so TensorFlow is
imported, the data encoded and the devices initialised once.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from app.errors import DISK_FULL, RunDirectoryError, TamizError, disk_full_message
from app.execution.messages import (
    EpochEnded,
    ExportMeasured,
    ExportModel,
    FinalTrained,
    MeasureExport,
    ModelExported,
    OpenRun,
    OpenTest,
    Predict,
    Predicted,
    Reply,
    Request,
    RequestFailed,
    RunOpened,
    RunPack,
    RunTrial,
    StillWorking,
    StopTrial,
    TestOpened,
    TrainFinal,
    TrialEnded,
)
from app.run_directory import RunDirectory
from app.search.limits import PARAMETERS
from app.search.trial import Completed, Failed, Outcome, Paused, Pruned
from app.training.seeding import derive_seed
from pipelines.errors import DataError
from search_spaces.catalogue import SpaceError
from search_spaces.pack_shapes import why_alone
from search_spaces.portfolio import portfolio_of

if TYPE_CHECKING:
    from app.search.limits import Limit
    from app.training.final_model import FinalModel
    from app.training.fold_packs import FoldPackTrainer
    from app.training.fold_trainer import FoldTrainer
    from app.training.measuring import ModelMeasurer
    from app.training.packing.pack import PackTrainer
    from app.training.strategy import Placement
    from app.training.trainer import End, EpochResult, Trainer, Verdict
    from tf_serving.predictor import SavedModelPredictor


def main(connection_handle: int, lifeline: int) -> None:
    """Serves requests until the coordinator says good-bye or dies.

    Args:
        connection_handle: File descriptor of the two-way connection to the coordinator.
        lifeline: File descriptor that reads end-of-file when the coordinator is gone, however it went.
    """
    _die_with_coordinator(lifeline)
    # A space of the user's own is imported from where the command runs; last, so that it shadows nothing of ours.
    sys.path.append(str(Path.cwd()))
    keep_freed_memory()
    import tensorflow as tf

    del tf  # imported now so that the first request does not wait for it
    worker = Worker(Connection(connection_handle))
    # A closed connection is the coordinator's good-bye.
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        worker.serve()


SIGN_OF_LIFE_SECONDS = 1.0


class Channel(Protocol):
    """A two-way connection to the coordinator, of which `multiprocessing` has one; both ends may be far apart."""

    def send(self, obj: Any, /) -> None:
        """Sends a message."""

    def recv(self) -> Any:
        """Waits for the next message; raises EOFError when there will be none."""

    def poll(self) -> bool:
        """Whether a message has arrived."""


@final
class Worker:
    """Answers requests over a connection.

    Args:
        connection: Two-way connection to the coordinator.
    """

    def __init__(self, connection: Channel) -> None:
        self._connection = connection
        self._last_sign = 0.0
        self._directory: RunDirectory | None = None
        self._seed = 0
        self._trainer: Trainer | None = None
        self._folds: FoldTrainer | None = None
        self._packs: PackTrainer | None = None
        self._fold_packs: FoldPackTrainer | None = None
        self._request: OpenRun | None = None
        self._measurer: ModelMeasurer | None = None
        self._final: FinalModel | None = None
        self._predictors: dict[str, SavedModelPredictor] = {}

    def serve(self) -> None:
        """Answers requests for ever.

        Raises:
            EOFError: The coordinator closed the connection.
        """
        while True:
            request: Request = self._connection.recv()
            if isinstance(request, StopTrial):
                continue  # it crossed with the end of the trial that it meant
            self._connection.send(self._answer(request))

    def _answer(self, request: Request) -> Reply:
        try:
            match request:
                case OpenRun():
                    return self._open(request)
                case RunTrial():
                    return self._run_trial(request)
                case RunPack():
                    return self._run_pack(request)
                case TrainFinal():
                    return self._train_final(request)
                case OpenTest():
                    return TestOpened(*self._final_model().open_test())
                case ExportModel():
                    directory, cases = self._final_model().export(request.extra_files)
                    return ModelExported(directory=str(directory), cases=str(cases))
                case MeasureExport():
                    return ExportMeasured(self._measured_export(Path(request.directory)))
                case Predict():
                    return Predicted(self._predictor(request.directory).predict(request.columns))
                case _:
                    raise TypeError(f"a worker does not know {type(request).__name__}")
        except Exception as error:
            if isinstance(error, (EOFError, ConnectionError)):
                raise
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            known = isinstance(error, (TamizError, SpaceError, DataError))
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                reason = disk_full_message(error.filename or "the run directory")
            return RequestFailed(reason=_one_line(reason))

    def _open(self, request: OpenRun) -> RunOpened:
        from app.evaluation.metrics import METRICS
        from app.training.declaration import declare
        from app.training.fold_data import load_folds
        from app.training.fold_packs import FoldPackTrainer
        from app.training.fold_trainer import FoldTrainer
        from app.training.measuring import ModelMeasurer
        from app.training.packing.pack import PackTrainer
        from app.training.strategy import prepare_devices
        from app.training.trainer import Trainer
        from app.training.trial_data import load_trial_data

        directory = RunDirectory(request.directory)
        if not directory.holds_experiment:
            raise RunDirectoryError(
                f"{directory.path} is not there on {socket.gethostname()}: expected a run directory on a file system "
                "that all machines with workers share"
            )
        _log_to(directory.logs / f"worker-{os.getpid()}.log")
        config = directory.read_config()
        placement = prepare_devices(config.training, seat=request.seat, mode=config.execution.placement)
        data = load_trial_data(directory, weighting=config.training.class_weights)
        trainer_on = partial(
            Trainer,
            space_name=config.search.space,
            objective=METRICS[request.objective],
            placement=placement,
            max_epochs=request.max_epochs,
            patience=config.training.patience,
            also=[METRICS[name] for name in _measures_of(request) if name in METRICS],
        )
        trainer = trainer_on(data)
        self._request = request
        self._measurer = ModelMeasurer(trainer, directory, measures=_measures_of(request))
        space = declare(trainer.space())
        self._directory, self._seed, self._trainer = directory, request.seed, trainer
        parts = load_folds(directory, data) if request.folds > 1 else ()
        self._folds = FoldTrainer(trainer, parts) if parts else None
        self._packs, self._fold_packs = None, None
        alone = _why_alone(request, config.search.space, placement)
        if not alone and parts:
            self._fold_packs = FoldPackTrainer([trainer_on(part) for part in parts], seed=request.seed)
        elif not alone:
            self._packs = PackTrainer(trainer, seed=request.seed)
        # TensorFlow's modules are 400,000 objects that never go: the collector need not visit them after every trial.
        gc.collect()
        gc.freeze()
        sizes = trainer.context(rows=trainer.data.training.num_rows).batch_sizes()
        return RunOpened(
            space=space,
            devices=placement.description,
            num_replicas=placement.num_replicas,
            memory=_resident_bytes(),
            alone=alone,
            portfolio=portfolio_of(config.search.space, batch_sizes=sizes),
        )

    def _run_trial(self, request: RunTrial) -> TrialEnded:
        from app.training.checkpoint import CheckpointError, DiskFullError
        from app.training.trainer import NonFiniteError

        trainer, directory = self._opened()
        start = time.perf_counter()
        outcome: Outcome
        measures: dict[str, float] = {}
        try:
            measures = self._measured(request)
            broken = any(not limit.holds(measures.get(limit.measure, limit.bound)) for limit in self._limits)
            if broken and not request.past_limits:
                seconds = time.perf_counter() - start
                return TrialEnded(
                    trial=request.number,
                    outcome=Pruned(0),
                    num_parameters=int(measures.get(PARAMETERS, 0)),
                    seconds=seconds,
                    measures=measures,
                )
            train = trainer.train_trial
            if self._folds is not None:
                train = partial(self._folds.train_trial, leave_above=request.leave_above)
            result = train(
                request.hyperparameters,
                known=request.space,
                budget=request.budget,
                seed=derive_seed(self._seed, "trial", request.number),
                state=directory.trial_state(request.number),
                report=self._reporter(request.number),
                ask=self._asker(request.number, request.deadline),
            )
        except (EOFError, ConnectionError):
            raise
        except DiskFullError as error:
            return TrialEnded(trial=request.number, outcome=Failed(str(error)), disk_full=True)
        except (NonFiniteError, SpaceError, CheckpointError) as error:
            outcome = Failed(_one_line(str(error)))
        except MemoryError:
            outcome = Failed("out of memory")
        except Exception as error:  # whatever a trial raises is a failed trial, and the search goes on
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            kind = "out of memory" if type(error).__name__ == "ResourceExhaustedError" else type(error).__name__
            outcome = Failed(_one_line(f"{kind}: {error}"))
        else:
            return TrialEnded(
                trial=request.number,
                outcome=(
                    _outcome(result.end, result.epoch, trainer.max_epochs, self._last_losses)
                    if self._folds is None
                    else _outcome_of_folds(result.end, result.epoch, self._folds.num_folds, self._last_losses)
                ),
                num_parameters=result.num_parameters,
                seconds=result.seconds,
                new_parameters=result.new_parameters,
                memory=_resident_bytes(),
                measures=measures | self._metrics_at_best(),
            )
        seconds = time.perf_counter() - start
        return TrialEnded(
            trial=request.number, outcome=outcome, seconds=seconds, memory=_resident_bytes(), measures=measures
        )

    @property
    def _limits(self) -> tuple[Limit, ...]:
        return () if self._request is None else self._request.limits

    def _measured(self, request: RunTrial) -> dict[str, float]:
        """What is known of a trial's network before it is trained."""
        _, directory = self._opened()
        if self._measurer is None:
            return {}
        return self._measurer.measure(request.hyperparameters, state=directory.trial_state(request.number))

    def _measured_export(self, version: Path) -> dict[str, float]:
        if self._measurer is None:
            raise RuntimeError("no experiment is open in this worker: expected OpenRun first")
        return self._measurer.exported(version)

    def _metrics_at_best(self) -> dict[str, float]:
        """The further metrics of the trial that has just been trained, at its best epoch or after its last fold."""
        from app.training.measuring import metric_measures

        if self._request is None or not self._last_results:
            return {}
        trainer, _ = self._opened()
        best = trainer.best_of(self._last_results) if self._folds is None else self._last_results[-1]
        return metric_measures(_measures_of(self._request), best)

    def _run_pack(self, request: RunPack) -> TrialEnded:
        """Trains a pack, and what cannot train in one trial by trial; returns how the last member ended."""
        from app.training.checkpoint import DiskFullError

        waiting = {trial.number: trial for trial in request.trials}
        ended: list[TrialEnded] = []

        def tell(member: TrialEnded) -> None:
            del waiting[member.trial]
            ended.append(member)
            if waiting:
                self._connection.send(member)

        train = None if self._packs is None else self._packs.train
        if self._fold_packs is not None:
            train = partial(
                self._fold_packs.train, limits={trial.number: trial.leave_above for trial in request.trials}
            )
        if train is not None:
            try:
                self._train_pack(train, request, tell)
            except (EOFError, ConnectionError):
                raise
            except DiskFullError as error:
                for number in list(waiting):
                    tell(TrialEnded(trial=number, outcome=Failed(str(error)), disk_full=True))
            except Exception:  # whatever stops a pack as a whole need not stop its members
                print(traceback.format_exc(), file=sys.stderr, flush=True)
                print("the pack failed; its members go on one by one", file=sys.stderr, flush=True)
        for trial in list(waiting.values()):
            tell(self._run_trial(trial))
        return ended[-1]

    def _train_pack(
        self, train: Callable[..., None], request: RunPack, tell: Callable[[TrialEnded], None]
    ) -> None:
        from app.training.packing.live import PackMember
        from app.training.packing.pack import MemberEnded

        trainer, directory = self._opened()
        losses: dict[int, list[float]] = {trial.number: [] for trial in request.trials}
        deadline = min(trial.deadline for trial in request.trials)

        def report(number: int, result: EpochResult) -> None:
            loss = trainer.objective.to_loss(result.objective)
            if not result.fold:
                losses[number].append(loss)
            self._connection.send(
                EpochEnded(
                    trial=number,
                    epoch=result.epoch,
                    loss=loss,
                    scalars=result.scalars,
                    wall_time=time.time(),
                    fold=result.fold,
                )
            )

        def left(member: MemberEnded) -> None:
            outcome: Outcome
            if member.end is None:
                outcome = Failed(_one_line(str(member.error)))
            elif self._folds is not None:
                outcome = _outcome_of_folds(member.end, member.epoch, self._folds.num_folds, losses[member.number])
            else:
                outcome = _outcome(member.end, member.epoch, trainer.max_epochs, losses[member.number])
            tell(
                TrialEnded(
                    trial=member.number,
                    outcome=outcome,
                    num_parameters=member.num_parameters,
                    seconds=member.seconds,
                    new_parameters=member.new_parameters,
                    memory=_resident_bytes(),
                    alone_seconds=member.alone_seconds,
                )
            )

        def ask() -> set[int] | None:
            stopped = self._stopped_trials()
            if None in stopped or time.time() >= deadline:
                return None
            return {number for number in stopped if number is not None}

        members = [
            PackMember(
                number=trial.number,
                values=trial.hyperparameters,
                known=trial.space,
                budget=trial.budget,
                seed=derive_seed(self._seed, "trial", trial.number),
                state=directory.trial_state(trial.number),
            )
            for trial in request.trials
        ]
        train(members, report=report, ended=left, ask=ask)

    def _train_final(self, request: TrainFinal) -> FinalTrained:
        from app.training.final_model import train_final_model
        from app.training.trainer import Verdict

        trainer, directory = self._opened()
        start = time.perf_counter()
        ask = self._asker(None, request.deadline)
        self._final, epochs = train_final_model(
            trainer,
            directory,
            values=request.hyperparameters,
            epochs=request.epochs,
            seed=derive_seed(self._seed, "final"),
            report=self._reporter(None),
            # One epoch late is better than a model that learned nothing.
            ask=lambda: ask() if self._last_losses else Verdict.GO_ON,
        )
        return FinalTrained(
            epochs=epochs,
            num_parameters=self._final.model.count_params(),
            seconds=time.perf_counter() - start,
        )

    def _final_model(self) -> FinalModel:
        from app.training.final_model import load_final_model

        if self._final is None:
            trainer, directory = self._opened()
            self._final = load_final_model(trainer, directory)
        return self._final

    def _predictor(self, directory: str) -> SavedModelPredictor:
        from tf_serving.predictor import SavedModelPredictor

        if directory not in self._predictors:
            self._predictors = {directory: SavedModelPredictor(Path(directory))}
        return self._predictors[directory]

    def _opened(self) -> tuple[Trainer, RunDirectory]:
        if self._trainer is None or self._directory is None:
            raise RuntimeError("no experiment is open in this worker: expected OpenRun first")
        return self._trainer, self._directory

    def _reporter(self, trial: int | None) -> Callable[[EpochResult], None]:
        trainer, _ = self._opened()
        self._last_losses: list[float] = []
        self._last_results: list[EpochResult] = []

        def report(result: EpochResult) -> None:
            loss = trainer.objective.to_loss(result.objective)
            if not result.fold:
                self._last_losses.append(loss)
                self._last_results.append(result)
            self._connection.send(
                EpochEnded(
                    trial=trial,
                    epoch=result.epoch,
                    loss=loss,
                    scalars=result.scalars,
                    wall_time=time.time(),
                    fold=result.fold,
                )
            )

        return report

    def _asker(self, trial: int | None, deadline: float) -> Callable[[], Verdict]:
        from app.training.trainer import Verdict

        def ask() -> Verdict:
            stopped = self._stopped_trials()
            is_over = None in stopped or trial in stopped or time.time() >= deadline
            return Verdict.STOP if is_over else Verdict.GO_ON

        return ask

    def _stopped_trials(self) -> set[int | None]:
        """Gives a sign of life; returns the trials that the coordinator wants to end now (None is all of them)."""
        if time.monotonic() - self._last_sign > SIGN_OF_LIFE_SECONDS:
            self._connection.send(StillWorking(_resident_bytes()))
            self._last_sign = time.monotonic()
        stopped: set[int | None] = set()
        while self._connection.poll():
            message = self._connection.recv()
            if not isinstance(message, StopTrial):
                raise TypeError(f"{type(message).__name__} came during a trial: expected StopTrial")
            stopped.add(message.trial)
        return stopped


def _measures_of(request: OpenRun) -> tuple[str, ...]:
    """Everything that has to be measured beside the objective."""
    return tuple(dict.fromkeys([*request.measure, *(limit.measure for limit in request.limits)]))


def _why_alone(request: OpenRun, space_name: str, placement: Placement) -> str:
    """Returns why every trial trains alone, or nothing."""
    import keras

    if request.measure or request.limits:
        return "every network is measured by itself"
    mixed = keras.config.dtype_policy().name != "float32"
    return why_alone(space_name, num_replicas=placement.num_replicas, mixed_precision=mixed)


def _outcome(end: End, epoch: int, max_epochs: int, losses: list[float]) -> Outcome:
    """Returns how a trial that raised nothing has ended (R7)."""
    from app.training.trainer import End

    finite = [loss for loss in losses if math.isfinite(loss)]
    if end is End.STOPPED:
        return Pruned(epoch)
    if not finite:
        return Failed("the objective is not defined on the validation rows")
    if end is End.BUDGET and epoch < max_epochs:
        return Paused(epoch)
    return Completed(min(finite))


def _outcome_of_folds(end: End, folds: int, num_folds: int, means: list[float]) -> Outcome:
    """Returns how a trial of a cross-validation that raised nothing has ended: its value is the mean of all folds."""
    from app.training.trainer import End

    if end is not End.BUDGET:
        return Pruned(folds)
    return Paused(folds) if folds < num_folds else Completed(means[-1])


def _log_to(path: Path) -> None:
    """Sends whatever this process and its libraries print to a file of the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def keep_freed_memory() -> None:
    """Lets the C library keep what TensorFlow frees: it will ask for as much at the next step.

    Every operation allocates its result. By default large blocks go back to the system at once, and every step of a
    wide network pays for their pages anew: up to three times the time of an element-wise operation.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt, and other habits
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 * 2**20 - 1)
        mallopt(trim_threshold, 2**30)
        mallopt(top_pad, 2**26)


def _die_with_coordinator(lifeline: int) -> None:
    """Ends this process at once when the coordinator is gone, even in the middle of a long TensorFlow call."""

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _one_line(text: str, limit: int = 400) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"
