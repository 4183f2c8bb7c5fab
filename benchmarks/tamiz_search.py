"""Tamiz as the benchmarks run it: its own data stage, worker process, search loop, journal and TensorBoard files.

Nothing here imports TensorFlow; it is the coordinator's side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import final

import pandas as pd
from benchmark_tables import TARGET

from app.config import DataConfig, ExperimentConfig, SearchConfig, TrainingConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.execution.local_executor import LocalExecutor
from app.execution.messages import OpenRun, RunOpened
from app.interrupts import Interrupts
from app.run_directory import RunDirectory
from app.search import journal
from app.search.algorithm import create
from app.search.space import Categorical, Configuration, Float, Space
from app.search.trial import Completed
from app.search_loop import Packing, SearchLoop, SearchView
from app.search_progress import Search
from app.search_record import SearchRecord
from app.search_stage import PACK_SHARE, num_rows
from app.time_budget import TimeBudget

OBJECTIVE = "log_loss"
SPACE = "mlp"
UNLIMITED = TimeBudget(end=math.inf, finishing=0.0)


def prepare_run(frame: pd.DataFrame, *, path: Path, seed: int, patience: int, held_out: float = 0.15) -> RunDirectory:
    """Writes a run directory whose rows both sides of a benchmark train and select on.

    Args:
        frame: The table.
        path: Where the run directory is made.
        seed: Seed of the splits and of the search.
        patience: Epochs without a better validation value after which a trial ends.
        held_out: Share of the validation rows, and again of the test rows, which nothing here opens.
    """
    config = ExperimentConfig(
        name="benchmark",
        data=DataConfig(target=TARGET, validation_share=held_out, test_share=held_out),
        search=SearchConfig(space=SPACE, objective=OBJECTIVE, seed=seed),
        training=TrainingConfig(patience=patience),
    )
    directory = RunDirectory(path)
    data = prepare_data(read_source(frame, config), config)
    with directory.staged() as staged:
        write_data(data, config, directory=staged)
    return directory


@final
class TamizSearch:
    """A search whose worker is warm: TensorFlow is imported, the rows are encoded, no trial has run.

    Args:
        directory: The run.
        executor: Holds the worker.
        record: The journal.
        max_epochs: Epochs of a trial.
    """

    def __init__(
        self, directory: RunDirectory, *, executor: LocalExecutor, record: SearchRecord, max_epochs: int
    ) -> None:
        self._directory, self._executor, self._record = directory, executor, record
        self._max_epochs = max_epochs
        self._seed = directory.read_config().search.seed
        self._wishes: Sequence[Configuration] = ()
        opened: RunOpened = executor.open(
            OpenRun(directory=str(directory.path), objective=OBJECTIVE, max_epochs=max_epochs, seed=self._seed)
        )
        self.space = opened.space
        self._packs, self._portfolio = not opened.alone, opened.portfolio

    def begin(self, algorithm: str, space: Space) -> None:
        """Writes down what is searched."""
        search = Search(
            algorithm=algorithm,
            reason="a benchmark",
            objective=OBJECTIVE,
            max_epochs=self._max_epochs,
            seed=self._seed,
            max_trials=None,
        )
        self._record.begin(search, space)

    def run_one_more(self, space: Space) -> tuple[float, float]:
        """Runs one more trial of `space` and returns its wall time here and in the worker, in seconds.

        Raises:
            RuntimeError: The trial did not train all its epochs.
        """
        number = len(self._record.history) + 1
        start = time.perf_counter()
        self._loop("random", space, max_trials=number).run(interrupts=Interrupts(), show=_show_nothing)
        elapsed = time.perf_counter() - start
        trial = max(self._record.history.values(), key=lambda trial: trial.number)
        if not isinstance(trial.outcome, Completed) or trial.epochs != self._max_epochs:
            raise RuntimeError(f"trial {trial.number} ended as {trial.outcome} after {trial.epochs} epochs")
        return elapsed, self._record.progress.seconds[trial.number]

    def run_for(self, seconds: float, *, algorithm: str) -> list[float]:
        """Searches for `seconds` and returns the best loss of every trial that was completed in time."""
        self.begin(algorithm, self.space)
        interrupts = Interrupts()
        end = time.time() + seconds

        def stop_in_time(view: SearchView) -> None:
            del view
            interrupts.requested = time.time() >= end

        # As long as a pack may take in a search that has twice the time for everything.
        packing = Packing(space=SPACE, num_rows=num_rows(self._directory), seconds=2 * PACK_SHARE * seconds)
        self._wishes = self._portfolio
        loop = self._loop(algorithm, self.space, packing=packing if self._packs else None)
        loop.run(interrupts=interrupts, show=stop_in_time)
        ended = [record for record in journal.read(self._directory.journal_file) if record["event"] == "ended"]
        in_time = {record["trial"] for record in ended if record["time"] <= end}
        return [
            trial.loss
            for trial in self._record.history.values()
            if trial.number in in_time and isinstance(trial.outcome, Completed) and trial.loss is not None
        ]

    def _loop(
        self, algorithm: str, space: Space, *, max_trials: int | None = None, packing: Packing | None = None
    ) -> SearchLoop:
        searcher = create(
            algorithm, space=space, seed=self._seed, max_epochs=self._max_epochs, max_trials=max_trials
        )
        searcher.enqueue(self._wishes)
        searcher.update(self._record.progress.facts)
        return SearchLoop(
            searcher,
            executor=self._executor,
            record=self._record,
            directory=self._directory,
            budget=UNLIMITED,
            keep=self._directory.read_config().keep,
            packing=packing,
        )


@contextmanager
def opened_search(directory: RunDirectory, *, max_epochs: int) -> Iterator[TamizSearch]:
    """Yields a search on `directory` with a warm worker, and ends the worker afterwards."""
    with closing(LocalExecutor()) as executor, closing(SearchRecord(directory, started=time.time())) as record:
        yield TamizSearch(directory, executor=executor, record=record, max_epochs=max_epochs)


def single_configuration(space: Space) -> Space:
    """Returns a space that holds the default configuration of `space` alone, as often as one likes.

    The parameter ``repetition`` is read by no network; without it the second trial would be refused as a double.
    Parameters that the default switches off are there too, so that a build finds no name that is new; their values
    are read by no network either.
    """
    fixed = [Categorical(parameter.name, (parameter.fallback,)) for parameter in space.parameters]
    return Space([*fixed, Float("repetition", 0.0, 1.0)])


def _show_nothing(view: SearchView) -> None:
    del view
