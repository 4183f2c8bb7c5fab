"""A worker: holds TensorFlow, opens one experiment, and does what the coordinator asks, one thing at a time."""

from __future__ import annotations

import gc
import math
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, final

from app.ensemble_file import read_ensemble
from app.errors import DISK_FULL, RunDirectoryError, TamizError, disk_full_message
from app.execution.conversation import Channel, Conversation
from app.execution.machine import resident_memory
from app.execution.messages import (
    CellsRanked,
    EnsembleSaved,
    ExportMeasured,
    ExportModel,
    FinalTrained,
    MeasureExport,
    ModelExported,
    OpenRun,
    OpenTest,
    Predict,
    Predicted,
    RankCells,
    Reply,
    Request,
    RequestFailed,
    RunOpened,
    RunPack,
    RunTrial,
    SaveEnsemble,
    StopTrial,
    TestOpened,
    TrainFinal,
    one_line,
)
from app.run_directory import RunDirectory
from app.state_store import BEST_FILE
from app.training.devices import may_gather, why_gather
from app.training.epochs import EpochResult, Verdict
from app.training.seeding import derive_seed
from pipelines.errors import DataError
from search_spaces.catalogue import SpaceError
from search_spaces.portfolio import portfolio_of

if TYPE_CHECKING:
    from app.execution.ensemble_builder import EnsembleBuilder
    from app.execution.trial_runner import TrialRunner
    from app.training.final_model import FinalModel
    from tf_serving.predictor import SavedModelPredictor


@final
class Worker:
    """Answers requests over a connection.

    Args:
        channel: Two-way connection to the coordinator.
    """

    def __init__(self, channel: Channel) -> None:
        self._conversation = Conversation(channel)
        self._directory: RunDirectory | None = None
        self._seed = 0
        self._runner: TrialRunner | None = None
        self._final: FinalModel | None = None
        self._ensemble: EnsembleBuilder | None = None
        self._predictors: dict[str, SavedModelPredictor] = {}

    def serve(self) -> None:
        """Answers requests for ever.

        Raises:
            EOFError: The coordinator closed the connection.
        """
        while True:
            request = self._conversation.hear()
            if isinstance(request, StopTrial):
                continue  # it crossed with the end of the trial that it meant
            self._conversation.say(self._answer(request))

    def _answer(self, request: Request) -> Reply:
        try:
            match request:
                case OpenRun():
                    return self._open(request)
                case RunTrial():
                    return self._opened()[0].run_trial(request)
                case RunPack():
                    return self._opened()[0].run_pack(request)
                case RankCells():
                    return self._rank_cells(request)
                case TrainFinal():
                    return self._train_final(request)
                case SaveEnsemble():
                    return self._save_ensemble(request)
                case OpenTest():
                    return TestOpened(*self._final_model().open_test())
                case ExportModel():
                    directory, cases = self._final_model().export(request.extra_files)
                    return ModelExported(directory=str(directory), cases=str(cases))
                case MeasureExport():
                    return ExportMeasured(self._opened()[0].measurer.exported(Path(request.directory)))
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
            return RequestFailed(reason=one_line(reason))

    def _open(self, request: OpenRun) -> RunOpened:
        from app.execution.trial_runner import TrialRunner
        from app.training.declaration import declare
        from app.training.strategy import prepare_devices
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
        data = load_trial_data(
            directory,
            balance=config.training.balance,
            images=config.images,
            alive=self._conversation.give_sign_of_life,
        )
        runner = TrialRunner(request, directory, data, placement=placement, conversation=self._conversation)
        space, described, gather = declare(runner.trainer.space()), placement.description, ""
        if may_gather(config.execution, seat=request.seat):
            weights = runner.default_weights(space)
            described, gather = f"{described}; the default network has {weights:,} weights", why_gather(weights)
        data.balance.check_searched(space.names, space=config.search.space)
        self._directory, self._seed, self._runner = directory, request.seed, runner
        # TensorFlow's modules are 400,000 objects that never go: the collector need not visit them after every trial.
        gc.collect()
        gc.freeze()
        context = runner.trainer.context(rows=data.training.num_rows)
        return RunOpened(
            space=space,
            devices=described,
            num_replicas=placement.num_replicas,
            memory=resident_memory(),
            alone=runner.alone,
            gather=gather,
            epoch_rows=context.num_training_rows,
            num_columns=context.num_numeric + len(context.cardinalities),
            portfolio=portfolio_of(config.search.space, context, seconds=config.search.seconds / max(1, request.folds)),
        )

    def _rank_cells(self, request: RankCells) -> CellsRanked:
        from app.training.network import forget_graphs
        from app.training.shared_weights import SharedWeights

        runner, directory = self._opened()
        start = time.perf_counter()
        ask = self._conversation.asker(None, math.inf)

        def is_stopped() -> bool:
            return ask() is Verdict.STOP

        try:
            shared = SharedWeights(
                runner.trainer,
                values=request.hyperparameters,
                state=directory.supernet / "state",
                seed=derive_seed(self._seed, "supernet"),
            )
            epochs = shared.train(
                epochs=request.epochs,
                until=request.train_until,
                report=lambda result: self._conversation.tell_epoch(None, result, loss=result.objective),
                is_stopped=is_stopped,
            )
            cells = shared.rank(request.space, most=request.most, until=request.rank_until, is_stopped=is_stopped)
        finally:
            forget_graphs()
        return CellsRanked(
            cells=tuple(cells),
            epochs=epochs,
            seconds=time.perf_counter() - start,
            epoch_seconds=shared.epoch_seconds,
            graph_seconds=shared.graph_seconds,
        )

    def _train_final(self, request: TrainFinal) -> FinalTrained:
        from app.training.final_model import train_final_model

        runner, directory = self._opened()
        start = time.perf_counter()
        ask = self._conversation.asker(None, request.deadline)
        told = 0

        def report(result: EpochResult) -> None:
            nonlocal told
            told += 1
            loss = runner.trainer.objective.to_loss(result.objective)
            self._conversation.tell_epoch(None, result, loss=loss)

        def go_on() -> Verdict:
            # One epoch late is better than a model that learned nothing.
            return ask() if told else Verdict.GO_ON

        epochs, of_trial = 0, time.time() >= request.deadline and self._take_trial(request)
        if not of_trial:
            self._final, epochs = train_final_model(
                runner.trainer,
                directory,
                values=request.hyperparameters,
                epochs=request.epochs,
                seed=derive_seed(self._seed, "final"),
                report=report,
                ask=go_on,
            )
            # A schedule that is cut off leaves a network at a high rate, worse than the one that won.
            of_trial = epochs < request.epochs and self._take_trial(request)
        if self._final is None:
            raise RuntimeError("there is no final model: expected it to be trained or taken from the trial")
        if runner.trainer.data.images is not None:
            self._show_images(request)
        return FinalTrained(
            epochs=epochs,
            num_parameters=self._final.single.num_parameters,
            seconds=time.perf_counter() - start,
            of_trial=of_trial,
        )

    def _show_images(self, request: TrainFinal) -> None:
        """Writes what TensorBoard shows of images; an experiment does not fail for want of pictures."""
        from app.training.image_board import write_image_board
        from app.training.network import forget_graphs
        from app.training.trial_network import network_of_trial

        runner, directory = self._opened()
        try:
            with runner.states.held(request.trial, only=[BEST_FILE]) as state:
                network = network_of_trial(
                    runner.trainer, runner.trainer.part, values=request.hyperparameters, state=state
                )
            write_image_board(runner.trainer, network, directory)
        except Exception:
            print(traceback.format_exc(), file=sys.stderr, flush=True)
        finally:
            forget_graphs()

    def _take_trial(self, request: TrainFinal) -> bool:
        """Makes the network that the winner came to in the search the final one; returns whether it could."""
        from app.training.checkpoint import CheckpointError
        from app.training.final_model import final_model_of_trial

        runner, directory = self._opened()
        if len(runner.parts) > 1:
            return False  # it came to a network for each fold
        try:
            with runner.states.held(request.trial, only=[BEST_FILE]) as state:
                self._final = final_model_of_trial(
                    runner.trainer, directory, values=request.hyperparameters, state=state
                )
        except (CheckpointError, FileNotFoundError):
            return False
        return True

    def _save_ensemble(self, request: SaveEnsemble) -> EnsembleSaved:
        from app.execution.ensemble_builder import EnsembleBuilder

        runner, directory = self._opened()
        if self._ensemble is None:
            self._ensemble = EnsembleBuilder(
                runner.trainer, runner.parts, directory=directory, measurer=runner.measurer
            )
        self._final, saved = self._ensemble.build(request, self._final_model())
        return saved

    def _final_model(self) -> FinalModel:
        from app.training.final_model import load_final_model

        runner, directory = self._opened()
        # Another worker may have saved an ensemble since.
        if self._final is None or self._final.saved != read_ensemble(directory):
            self._final = load_final_model(runner.trainer, directory)
        return self._final

    def _predictor(self, directory: str) -> SavedModelPredictor:
        from tf_serving.predictor import SavedModelPredictor

        if directory not in self._predictors:
            self._predictors = {directory: SavedModelPredictor(Path(directory))}
        return self._predictors[directory]

    def _opened(self) -> tuple[TrialRunner, RunDirectory]:
        if self._runner is None or self._directory is None:
            raise RuntimeError("no experiment is open in this worker: expected OpenRun first")
        return self._runner, self._directory


def _log_to(path: Path) -> None:
    """Sends whatever this process and its libraries print to a file of the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
