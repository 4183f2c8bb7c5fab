"""The search of an experiment: what is asked for, how it is searched, and the loop that does it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from app.config import ExperimentConfig
from app.errors import ConfigError
from app.evaluation.metrics import Objective, default_objective, resolve_objective
from app.execution.executor import Executor
from app.execution.messages import OpenRun, RunOpened
from app.fold_choice import FoldChoice
from app.report_stage import board_of
from app.run_directory import RunDirectory, read_json
from app.search.algorithm import Algorithm, Recipe, check_algorithm_name
from app.search.choice import choose
from app.search.trial import Resource
from app.search_loop import Interrupts, SearchLoop, TimeBudget
from app.search_record import Search, SearchRecord
from app.summary import search_begins, search_ended
from app.view import View
from pipelines.schema import DatasetSchema
from search_spaces.catalogue import check_space_name


def check_settings(config: ExperimentConfig) -> None:
    """Checks the names that can be checked before any data is read.

    Raises:
        SpaceError: The space is unknown.
        ConfigError: The algorithm is unknown; the message names the nearest.
    """
    check_space_name(config.search.space)
    if config.search.algorithm != "auto":
        with told_as_config_error():
            check_algorithm_name(config.search.algorithm)


def asked_objective(config: ExperimentConfig, schema: DatasetSchema) -> Objective | None:
    """Returns the metric that the user asked for; None for none.

    Raises:
        ConfigError: It is unknown, or none for this task; the message names the nearest.
    """
    if config.search.objective == "auto":
        return None
    with told_as_config_error():
        return Objective(resolve_objective(config.search.objective, schema.target.task), "as asked")


def choose_objective(directory: RunDirectory, config: ExperimentConfig) -> Objective:
    """Returns the metric that selects, and why."""
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    ratio = read_json(directory.manifest_file)["data"]["imbalance_ratio"] or 1.0
    return asked_objective(config, schema) or default_objective(schema.target.task, imbalance_ratio=ratio)


def num_rows(directory: RunDirectory) -> int:
    """Returns the number of training rows."""
    return int(read_json(directory.manifest_file)["data"]["rows"]["train"])


def max_epochs_of(directory: RunDirectory, config: ExperimentConfig) -> int:
    """Returns the epochs of a trial at full budget: a small table needs more passes for the same number of steps."""
    rows = num_rows(directory)
    return config.training.max_epochs or (100 if rows < 5_000 else 50 if rows < 50_000 else 27)


def fold_choice_of(directory: RunDirectory) -> FoldChoice:
    """Returns how trials are judged, as was decided when the rows were dealt; an older experiment has no folds."""
    told = dict(read_json(directory.manifest_file)["data"].get("folds", {"number": 1, "reason": ""}))
    told.pop("in_time", None)
    return FoldChoice(**told)


def time_budget(
    directory: RunDirectory, config: ExperimentConfig, *, record: SearchRecord, started: float
) -> TimeBudget:
    """Returns the time for everything; earlier sessions have used theirs.

    Args:
        directory: The experiment, whose workers have just been opened.
        config: Its settings.
        record: Knows what earlier sessions took.
        started: When this session began, in seconds since the epoch.
    """
    return TimeBudget.starting_at(
        started - record.progress.spent,
        seconds=config.search.seconds,
        opening=time.time() - started,
        num_rows=num_rows(directory),
        num_columns=len(DatasetSchema.from_json(read_json(directory.schema_file)).used_features),
    )


def open_workers(directory: RunDirectory, config: ExperimentConfig, *, executor: Executor) -> RunOpened:
    """Has the workers load and encode the rows and declare the space."""
    return executor.open(
        OpenRun(
            directory=str(directory.path.absolute()),
            objective=choose_objective(directory, config).metric.name,
            max_epochs=max_epochs_of(directory, config),
            seed=config.search.seed,
            folds=fold_choice_of(directory).number,
        )
    )


def open_search(
    directory: RunDirectory, config: ExperimentConfig, *, opened: RunOpened, record: SearchRecord, view: View
) -> Algorithm:
    """Returns the algorithm, knowing all that happened before."""
    objective = choose_objective(directory, config)
    max_epochs = max_epochs_of(directory, config)
    folds = fold_choice_of(directory)
    settings = config.search
    name, reason = settings.algorithm, "as asked"
    if record.progress.search is not None:
        name, reason = record.progress.search.algorithm, record.progress.search.reason
    elif name == "auto":
        choice = choose(
            space=opened.space,
            num_rows=num_rows(directory),
            time_seconds=settings.seconds or None,
            max_trials=settings.trials or None,
            max_epochs=max_epochs * folds.number,
        )
        name, reason = choice.name, choice.reason
    search = Search(
        algorithm=name,
        reason=reason,
        objective=objective.metric.name,
        max_epochs=max_epochs,
        seed=settings.seed,
        max_trials=settings.trials or None,
        folds=folds.number,
    )
    space = record.progress.space or opened.space
    if record.progress.search != search:
        record.begin(search, space)
    by_folds = folds.number > 1
    recipe = Recipe(
        name=name,
        space=space,
        seed=settings.seed,
        max_epochs=folds.number if by_folds else max_epochs,
        max_trials=search.max_trials,
        resource=Resource.FOLDS if by_folds else Resource.EPOCHS,
    )
    algorithm = Algorithm(recipe)
    algorithm.update(record.progress.facts)
    shown = search_begins(
        search, space, objective=objective, devices=opened.devices, space_name=settings.space, folds=folds
    )
    view.show(shown)
    return algorithm


def search(
    loop: SearchLoop, config: ExperimentConfig, *, record: SearchRecord, interrupts: Interrupts, view: View
) -> None:
    """Searches until the budget is spent, unless an earlier session did."""
    if "search" in record.progress.stages:
        return
    with view.searching(seconds=config.search.seconds or math.inf) as show:
        reason = loop.run(interrupts=interrupts, show=show)
    record.stage_done("search", reason=reason)
    view.show(search_ended(reason, board=board_of(record.directory), metric=record.objective))


@contextlib.contextmanager
def told_as_config_error() -> Iterator[None]:
    """Turns a ValueError about a name that the user gave into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error
