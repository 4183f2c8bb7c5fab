"""The program: data -> schema -> splits -> encoding -> space -> search -> final model -> test -> export -> report.

Read `launch` and `run`: one line a stage, in this order. Nothing here imports TensorFlow; whatever needs it happens
in a worker process (R2).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import pandas as pd
from rich.console import Console

from app.arguments import Changes
from app.backbone_stage import begun_with, check_backbone, check_fits, write_backbone
from app.config import ExperimentConfig
from app.data_files import write_config
from app.data_source import check_same_data
from app.ensemble_size import pool_size
from app.ensemble_stage import compose
from app.errors import RunDirectoryError, told_as_disk_error
from app.evaluation.sealed_test import SealedTestReport
from app.execution.executor import Executor
from app.execution.executors import make_executor, workers_warning
from app.feature_record import write_feature_record
from app.final_stage import evaluate, export, train_final
from app.interrupts import Interrupts
from app.one_shot_stage import rank_cells
from app.overview import overview_of
from app.prediction import BatchSettings, Predictor
from app.report_stage import board_of, read_begun, report
from app.run_directory import RunDirectory, read_json
from app.search.space import Configuration
from app.search_loop import SearchLoop
from app.search_progress import read_progress
from app.search_record import SearchRecord
from app.search_stage import (
    check_goals,
    check_settings,
    max_members_of,
    open_search,
    open_workers,
    packing_of,
    search,
    suited_config,
    time_budget,
)
from app.state_store import with_own_checkpoints
from app.summary import data_found
from app.table_stage import keep_encoded, table_of
from app.view import ConsoleView, View
from app.warm_start_stage import add_result, enqueue
from pipelines.schema import DatasetSchema
from pipelines.sources import DataLike, open_source
from tf_serving.model_versions import versions
from tf_serving.verify import VerificationProcess


def launch(
    source: DataLike, config: ExperimentConfig, *, path: Path, executor: Executor, view: View, started: float
) -> Experiment:
    """Runs an experiment from its data to its report.

    Args:
        source: What the user calls data.
        config: The settings.
        path: The run directory, which must be free.
        executor: Runs whatever needs TensorFlow; it imports it while the data is read here.
        view: Shows what happens.
        started: When the user's command began, in seconds since the epoch; the time budget counts from there.

    Raises:
        DataError: The data cannot be used.
        TamizError: A setting, the run directory, the search or the export is at fault.
    """
    directory = prepare(source, config, path=path, view=view)
    with directory.lock(), removed_unless_begun(directory):
        return run(directory, directory.read_config(), executor=executor, view=view, started=started)


def prepare(source: DataLike, config: ExperimentConfig, *, path: Path, view: View) -> RunDirectory:
    """Reads the data, says what is in it, and puts it into a new run directory; arguments and errors as `launch`."""
    check_settings(config)
    start = check_backbone(config)
    config = begun_with(config, start)
    if warning := workers_warning(config.execution, devices=config.training.devices):
        view.say(f"warning: {warning}")
    directory = RunDirectory(path)
    directory.check_free()
    config = with_own_checkpoints(config)
    if config.execution.checkpoints:
        view.say(f"The states of trials are kept at {config.execution.checkpoints}")
    with table_of(open_source(source), config, directory=directory, view=view) as table:
        config = suited_config(config, table.known.schema)
        check_goals(config, table.known.schema)
        check_fits(start, table.known)
        view.show(data_found(table.known))
        with directory.staged() as staged:
            write_feature_record(config, directory=staged)
            write_backbone(start, directory=staged)
            table.write(config, staged)
    return directory


def begin(directory: RunDirectory, config: ExperimentConfig, *, executor: Executor, view: View) -> Experiment:
    """Has the space declared and the search recorded, without a trial, so that configurations can be enqueued."""
    started = time.time()
    with (
        directory.lock(),
        removed_unless_begun(directory),
        contextlib.closing(SearchRecord(directory, started=started)) as record,
    ):
        opened = open_workers(directory, config, executor=executor)
        open_search(directory, config, opened=opened, record=record, view=view)
    return Experiment(directory)


def resume(
    path: Path,
    *,
    view: View,
    changes: Changes | None = None,
    source: DataLike | None = None,
    stored_rows: bool = False,
) -> Experiment:
    """Goes on with an experiment that was interrupted or killed.

    Args:
        path: The run directory.
        view: Shows what happens.
        changes: What is done otherwise; None for nothing.
        source: The data, where its file has moved; None looks at the file it came from.
        stored_rows: Go on with the rows in the run directory, whatever has become of the file.

    Raises:
        RunDirectoryError: There is no experiment, a live one, or one on other data.
        ConfigError: A change cannot be made.
    """
    directory = RunDirectory.open(path)
    changes = changes or Changes()
    with directory.lock():
        config = changes.applied(directory.read_config())
        check_settings(config)
        if warning := workers_warning(config.execution, devices=config.training.devices):
            view.say(f"warning: {warning}")
        if not stored_rows:
            check_same_data(directory, config, source)
        stages = read_progress(directory).stages
        if "report" in stages:
            view.say(f"{path} is finished: its test rows have been opened. Start a new search for more trials.")
            return load(path)
        if "search" in stages and changes != Changes():
            view.say("The search itself has ended; what is left is the final training, the test and the export.")
        write_config(directory, config)
        with contextlib.closing(make_executor(config.execution, devices=config.training.devices)) as executor:
            return run(directory, config, executor=executor, view=view, started=time.time())


def run(
    directory: RunDirectory, config: ExperimentConfig, *, executor: Executor, view: View, started: float
) -> Experiment:
    """Does what is left to do of an experiment whose data is in its directory.

    Args:
        directory: The experiment, locked.
        config: Its settings.
        executor: Runs whatever needs TensorFlow.
        view: Shows what happens.
        started: When this session began, in seconds since the epoch.
    """
    interrupts = Interrupts()
    with (
        told_as_disk_error(directory.path),
        contextlib.closing(SearchRecord(directory, started=started)) as record,
        contextlib.ExitStack() as stack,
    ):
        opened = open_workers(directory, config, executor=executor)
        keep_encoded(directory, config, view=view)
        algorithm = open_search(directory, config, opened=opened, record=record, view=view)
        budget = time_budget(directory, config, record=record, started=started)
        rank_cells(executor, algorithm=algorithm, opened=opened, record=record, budget=budget, view=view)
        # From here on there is something to finish with: the first Ctrl-C asks for that.
        stack.enter_context(interrupts.caught())
        loop = SearchLoop(
            algorithm,
            executor=executor,
            record=record,
            directory=directory,
            budget=budget,
            keep=config.keep,
            pool=pool_size(max_members_of(directory, config)),
            packing=packing_of(directory, config, opened=opened),
        )
        search(loop, config, record=record, interrupts=interrupts, view=view)
        # The process that will prove the export imports its own TensorFlow while the final model trains.
        with VerificationProcess.start() as verification:
            train_final(executor, record=record, budget=budget, view=view)
            compose(directory, config, executor=executor, record=record, budget=budget, view=view)
            tested = evaluate(directory, executor=executor, record=record)
            export(directory, config, executor=executor, verification=verification, record=record, tested=tested)
        report(directory, config, record=record, tested=tested, view=view)
    return Experiment(directory)


def load(path: str | Path) -> Experiment:
    """Returns an experiment that was run before.

    Raises:
        RunDirectoryError: There is none at `path`.
    """
    return Experiment(RunDirectory.open(path))


@contextlib.contextmanager
def removed_unless_begun(directory: RunDirectory) -> Iterator[None]:
    """Takes a new experiment away again when an error ends it before its first trial, such as a space that is none."""
    try:
        yield
    except Exception:
        # Shared weights may have been trained for long, and are taken up again.
        if not read_progress(directory).facts and not directory.supernet.is_dir():
            directory.remove()
        raise


@final
class Experiment:
    """One experiment: its data, its search and its result, in one run directory.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.config = directory.read_config()
        self._predictor: Predictor | None = None

    def __repr__(self) -> str:
        return f"Experiment({str(self.directory.path)!r})"

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def schema(self) -> DatasetSchema:
        """What the columns are."""
        return DatasetSchema.from_json(read_json(self.directory.schema_file))

    @property
    def leaderboard(self) -> pd.DataFrame:
        """The trials, best first: trial, value, epochs, parameters, seconds, status, reason, hyperparameters."""
        return board_of(self.directory)

    @property
    def importance(self) -> Mapping[str, float]:
        """Each hyperparameter's share of the differences between trials, largest first; empty with few trials."""
        return overview_of(read_begun(self.directory)).importance

    @property
    def test_report(self) -> SealedTestReport:
        """The sealed test result with intervals and baselines."""
        return SealedTestReport.from_json(read_json(self.directory.evaluation_file))

    @property
    def test_metrics(self) -> Mapping[str, float]:
        """The metrics of the final model on the sealed test rows, by name."""
        return {estimate.name: estimate.value for estimate in self.test_report.model}

    @property
    def saved_model(self) -> Path:
        """The version directory of the exported SavedModel.

        Raises:
            RunDirectoryError: Nothing was exported yet.
        """
        base = self.directory.exports / self.config.name
        found = versions(base) if base.is_dir() else ()
        if not found:
            raise RunDirectoryError(
                f"{self.directory.path} has no exported model yet: go on with `tamiz resume {self.directory.path}`"
            )
        return base / str(max(found))

    def enqueue(self, configuration: Configuration) -> Configuration:
        """Has a configuration tried before what the search would choose; see `warm_start_stage.enqueue`."""
        return enqueue(self.directory, configuration)

    def add_result(self, configuration: Configuration, value: float) -> int:
        """Tells the search what a configuration came to elsewhere; see `warm_start_stage.add_result`."""
        return add_result(self.directory, configuration, value)

    def run(self, *, view: View | None = None) -> Experiment:
        """Searches, trains, tests, exports and verifies, or goes on with what is left of it."""
        return resume(self.directory.path, view=view or ConsoleView(Console()), stored_rows=True)

    def predict(self, data: DataLike) -> pd.DataFrame:
        """Returns what the exported model answers, one row for each of `data`.

        Args:
            data: A file or a table with the raw columns; the target may be missing.

        Returns:
            Classification: ``label`` and one probability column a class, ``probability of <class>``; regression:
            ``prediction``. A DataFrame's index is kept.

        Raises:
            DataError: A column is missing or of another type.
        """
        if self._predictor is None:
            self._predictor = Predictor(self.saved_model, schema=self.schema, config=self.config)
        return self._predictor.predict(data)

    def predict_file(self, data: DataLike, *, output: str | Path, settings: BatchSettings | None = None) -> int:
        """Writes what the exported model answers to a source of any length, with bounded memory; returns the rows.

        Args:
            data: A source with the raw columns; the target may be missing.
            output: A .parquet or .csv file, ``FILE.db[#TABLE]``, or a database URL with ``#TABLE`` behind it.
            settings: Key column, rows in memory at once, whether a table may be replaced.

        Raises:
            DataError: A column is missing or of another type.
            RunDirectoryError: The answers cannot be written.
        """
        if self._predictor is None:
            self._predictor = Predictor(self.saved_model, schema=self.schema, config=self.config)
        return self._predictor.predict_file(data, output=output, settings=settings)

    def export(self, path: str | Path) -> Path:
        """Copies the exported SavedModel to ``path/<version>`` and returns that folder.

        Raises:
            RunDirectoryError: The place is taken, or nothing was exported yet.
        """
        target = Path(path) / self.saved_model.name
        if target.exists():
            raise RunDirectoryError(f"{target} exists: give another place, TensorFlow Serving needs a new version")
        temporary = target.with_name(f".{target.name}")
        try:
            shutil.copytree(self.saved_model, temporary)
            temporary.rename(target)
        except OSError as error:  # copytree tells of the files one by one
            reason = error.strerror or error.args[0][0][2]
            raise RunDirectoryError(f"cannot write {target}: {reason}; give a place you may write to") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def close(self) -> None:
        """Ends the process that `predict` keeps."""
        if self._predictor is not None:
            self._predictor.close()
            self._predictor = None
