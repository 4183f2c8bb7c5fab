"""The search of an experiment: what is asked for, how it is searched, and the loop that does it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from app.config import ExperimentConfig, SearchConfig
from app.ensemble_size import max_members
from app.errors import ConfigError
from app.execution.executor import Executor
from app.execution.messages import OpenRun, RunOpened
from app.fold_choice import FoldChoice
from app.goals import SearchGoals, read_goals, read_limit, shown_unmet
from app.interrupts import Interrupts
from app.one_shot_stage import check_one_shot, with_cells
from app.overview import overview_of
from app.packing import Packing
from app.report_stage import board_of
from app.run_directory import RunDirectory, read_json
from app.search.algorithm import Algorithm, Recipe, check_algorithm_name
from app.search.choice import Choice, choose
from app.search.limits import unmet_limits
from app.search.space import Space
from app.search.trial import Resource
from app.search.warm_start import filled
from app.search_loop import SearchLoop, SearchView
from app.search_progress import Search
from app.search_record import SearchRecord
from app.shared_scores import ONE_SHOT, agreement_told, ranking_warning
from app.state_store import check_checkpoints
from app.summary import search_begins, search_ended
from app.time_budget import IMAGE_REBUILDING, TimeBudget
from app.view import View
from app.warm_start_stage import check_start, earlier_configurations
from pipelines.balance import Balance
from pipelines.schema import DatasetSchema
from search_spaces.catalogue import check_space_name, check_space_suits, space_warning

IMAGE_SPACE = "cnn"
"""Where images are data and no space is named."""

PACK_SHARE = 0.15
"""Of the whole budget for one pack: about a third of what the search itself has in a short one."""


def check_settings(config: ExperimentConfig) -> None:
    """Checks the names that can be checked before any data is read.

    Raises:
        SpaceError: The space is unknown.
        ConfigError: The algorithm or a limit is unknown; the message names the nearest.
        RunDirectoryError: There is no earlier run to start from.
        StateStoreError: The states of trials cannot be kept where they are to be.
    """
    check_space_name(config.search.space)
    check_one_shot(config)
    with told_as_config_error():
        if config.search.algorithm != "auto":
            check_algorithm_name(config.search.algorithm)
        for limit in config.search.limits:
            read_limit(limit)
    for run in config.search.start_from:
        check_start(Path(run))
    if config.execution.checkpoints:
        check_checkpoints(config.execution.checkpoints)


def suited_config(config: ExperimentConfig, schema: DatasetSchema) -> ExperimentConfig:
    """Returns the settings with a space for the kind of data, where the space was not chosen.

    Raises:
        SpaceError: The space that was chosen builds networks for another kind of data.
    """
    config = with_cells(config)
    space = config.search.space
    if schema.has_images and space == SearchConfig().space:
        return replace(config, search=replace(config.search, space=IMAGE_SPACE))
    check_space_suits(space, has_images=schema.has_images)
    return config


def check_goals(config: ExperimentConfig, schema: DatasetSchema) -> None:
    """Checks objectives and limits against the task.

    Raises:
        ConfigError: One is unknown, or none for this task; the message names the nearest.
    """
    with told_as_config_error():
        read_goals(
            config.search.objective,
            limits=config.search.limits,
            task=schema.target.task,
            quantiles=bool(schema.target.quantiles),
            num_targets=len(schema.target.names),
        )
    balance, target = config.training.balance, schema.target
    has_classes = target.task.is_classification and not target.columns
    if balance not in (Balance.AUTO, Balance.NONE) and not has_classes:
        raise ConfigError(
            f"balance is {balance.value!r} and the target has no classes to balance ({target.reason}): leave it out"
        )


def goals_of(directory: RunDirectory, config: ExperimentConfig) -> SearchGoals:
    """Returns the metric that selects, and why; what is wanted beside it, and within which limits."""
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    ratio = read_json(directory.manifest_file)["data"]["imbalance_ratio"] or 1.0
    with told_as_config_error():
        return read_goals(
            config.search.objective,
            limits=config.search.limits,
            task=schema.target.task,
            imbalance_ratio=ratio,
            quantiles=bool(schema.target.quantiles),
            num_targets=len(schema.target.names),
        )


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
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    return TimeBudget.starting_at(
        started - record.progress.spent,
        seconds=config.search.seconds,
        opening=time.time() - started,
        num_rows=num_rows(directory),
        num_columns=len(schema.used_features),
        num_networks=max_members_of(directory, config) * fold_choice_of(directory).number,
        rebuilding=IMAGE_REBUILDING if schema.has_images else 0.0,
    )


def max_members_of(directory: RunDirectory, config: ExperimentConfig) -> int:
    """Returns how many trials may answer together; 1 for the winner alone."""
    others = goals_of(directory, config).others
    folds = fold_choice_of(directory).number
    return max_members(config.search.ensemble, num_objectives=1 + len(others), num_folds=folds)


def packing_of(directory: RunDirectory, config: ExperimentConfig, *, opened: RunOpened) -> Packing | None:
    """Returns which trials train together; None when each trains alone."""
    if opened.alone or not config.execution.packing:
        return None
    return Packing(
        space=config.search.space,
        num_rows=num_rows(directory),
        num_columns=opened.num_columns,
        unit_epochs=max_epochs_of(directory, config) if fold_choice_of(directory).number > 1 else 1,
        seconds=PACK_SHARE * config.search.seconds or math.inf,
    )


def open_workers(directory: RunDirectory, config: ExperimentConfig, *, executor: Executor) -> RunOpened:
    """Has the workers load and encode the rows and declare the space."""
    goals = goals_of(directory, config)
    return executor.open(
        OpenRun(
            directory=str(directory.path.absolute()),
            objective=goals.objective.metric.name,
            max_epochs=max_epochs_of(directory, config),
            seed=config.search.seed,
            measure=goals.measure,
            limits=goals.limits,
            folds=fold_choice_of(directory).number,
        )
    )


def open_search(
    directory: RunDirectory, config: ExperimentConfig, *, opened: RunOpened, record: SearchRecord, view: View
) -> Algorithm:
    """Returns the algorithm, knowing all that happened before."""
    goals, folds, settings = goals_of(directory, config), fold_choice_of(directory), config.search
    max_epochs = max_epochs_of(directory, config)
    rows = opened.epoch_rows or num_rows(directory)
    choice = _chosen(record, config, space=opened.space, rows=rows, epochs=max_epochs * folds.number)
    search = Search(
        algorithm=choice.name,
        reason=choice.reason,
        objective=goals.objective.metric.name,
        max_epochs=max_epochs,
        seed=settings.seed,
        max_trials=settings.trials or None,
        folds=folds.number,
        others=goals.others,
        limits=goals.limits,
    )
    is_new = record.progress.search is None
    space = record.progress.space or opened.space
    if record.progress.search != search:
        record.begin(search, space)
    # A kill may have come between the two records.
    if not record.history and not record.progress.portfolio:
        # Where cells are ranked first, these are what is known to be good.
        recipes = () if search.algorithm == ONE_SHOT else opened.portfolio
        known_good = (*earlier_configurations(settings.start_from, space=space), *recipes)
        if known_good:
            record.portfolio([filled(configuration, space=space) for configuration in known_good])
    if is_new and (warning := space_warning(settings.space, num_rows=num_rows(directory))):
        view.say(f"warning: {warning}")
    if not config.execution.packing:
        opened = replace(opened, alone="packing is off")
    view.show(search_begins(search, space, goals=goals, opened=opened, space_name=settings.space, folds=folds))
    return Algorithm(_recipe(search, space, record=record), history=record.progress.history)


def _chosen(record: SearchRecord, config: ExperimentConfig, *, space: Space, rows: int, epochs: int) -> Choice:
    """The algorithm that searched before, unless another is asked for now; else as asked, or a fitting one."""
    before, asked = record.progress.search, config.search.algorithm
    if asked != "auto" and (before is None or before.algorithm != asked):
        return Choice(asked, "as asked")
    if before is not None:
        return Choice(before.algorithm, before.reason)
    return choose(
        space=space,
        num_rows=rows,
        time_seconds=config.search.seconds or None,
        max_trials=config.search.trials or None,
        max_epochs=epochs,
    )


def _recipe(search: Search, space: Space, *, record: SearchRecord) -> Recipe:
    by_folds = search.folds > 1
    # Results from elsewhere are no trials of this search.
    num_added = len(record.progress.added)
    return Recipe(
        name=search.algorithm,
        space=space,
        seed=search.seed,
        max_epochs=search.folds if by_folds else search.max_epochs,
        max_trials=None if search.max_trials is None else search.max_trials + num_added,
        resource=Resource.FOLDS if by_folds else Resource.EPOCHS,
        objectives=search.others,
        limits=search.limits,
        wishes=(*record.progress.wishes, *record.progress.portfolio),
    )


def search(
    loop: SearchLoop, config: ExperimentConfig, *, record: SearchRecord, interrupts: Interrupts, view: View
) -> None:
    """Searches until the budget is spent, unless an earlier session did."""
    if "search" in record.progress.stages:
        return
    with (
        view.searching(seconds=config.search.seconds or math.inf) as show,
        # A decision solves many small systems: more threads only wait for each other and for the workers' cores.
        threadpool_limits(limits=1, user_api="blas"),
    ):
        reason = loop.run(interrupts=interrupts, show=_telling(show, record=record, view=view))
    record.stage_done("search", reason=reason, winner=loop.winner())
    overview = overview_of(record.progress)
    board = board_of(record.directory)
    view.show(search_ended(reason, board=board, metric=record.objective, importance=overview.importance))
    if warning := ranking_warning(record.progress):
        view.say(f"warning: {warning}")
    elif overview.agreement is not None:
        view.say(f"The {agreement_told(overview.agreement)}.")


def _telling(
    show: Callable[[SearchView], None], *, record: SearchRecord, view: View
) -> Callable[[SearchView], None]:
    """Returns `show`, which also says once when none of the first trials keeps a limit, and when packs fail."""
    limits = record.progress.search.limits if record.progress.search else ()
    told, packs = not limits, len(record.progress.failed_packs)

    def shown(state: SearchView) -> None:
        nonlocal told, packs
        unmet = () if told else unmet_limits(state.history, limits)
        if unmet:
            told = True
            view.say(shown_unmet(unmet[0]))
        for failed in record.progress.failed_packs[packs:]:
            view.say(
                f"warning: a pack could not be trained together, {failed}; they go on one by one, and the next packs "
                f"are half as large (the worker's log has the traceback)."
            )
        packs = len(record.progress.failed_packs)
        show(state)

    return shown


@contextlib.contextmanager
def told_as_config_error() -> Iterator[None]:
    """Turns a ValueError about a name that the user gave into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error
